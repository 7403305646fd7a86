"""A small network of a user's, registered for tests that need many steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import efnet


@efnet.register_model("small_of_tests")
class Small(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 12, 5, stride=4, padding=2), nn.ReLU(), nn.Conv2d(12, num_classes, 3, padding=1)
        )

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        return self.body(torch.cat((rgb, thermal), 1))
