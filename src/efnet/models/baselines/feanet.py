"""FEANet (Deng 2021, arXiv 2110.08988) as in its authors' code, MIT: RTFNet with attention before every sum.

Two slips of the code are kept, since the published weights need them: after level 1 the thermal encoder goes
on with its channel-weighted map, and at level 3 the thermal map is added without its channel weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.baselines.rtfnet import RTFNet


class ChannelWeights(nn.Module):
    """Weights of channels from their maxima: (B, C, h, w) to (B, C, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, 1, 1)."""
        return torch.sigmoid(self.fc2(F.relu(self.fc1(features.amax((2, 3), keepdim=True)))))


class CellWeights(nn.Module):
    """Weights of cells from the maxima over channels: (B, C, h, w) to (B, 1, h, w)."""

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 1, h, w)."""
        return torch.sigmoid(self.conv1(features.amax(1, keepdim=True)))


_LEVELS = ("0", "1", "2", "3_1", "4_1")


class FEANet(RTFNet):
    """RTFNet-152 with maps weighted by channel and by cell, in layers that both modalities share."""

    architecture = "feanet"
    depth = 152

    def _build(self) -> None:
        super()._build()
        for level, width in zip(_LEVELS, self.encoder_rgb.widths, strict=True):
            self.add_module(f"atten_depth_channel_{level}", ChannelWeights(width))
            self.add_module(f"atten_depth_spatial_{level}", CellWeights())

    def fuse_level(self, level: int, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of both weighted maps, and the thermal map."""
        channels = self.get_submodule(f"atten_depth_channel_{_LEVELS[level]}")
        cells = self.get_submodule(f"atten_depth_spatial_{_LEVELS[level]}")
        rgb = channels(rgb) * rgb
        weighted = channels(thermal) * thermal
        added = cells(weighted) * (thermal if level == 3 else weighted)
        return cells(rgb) * rgb + added, weighted if level == 1 else thermal
