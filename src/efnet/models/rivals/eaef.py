"""Explicit attention-enhanced fusion of one level (Liang 2023, arXiv 2303.15710).

The abstract tells three cases: both modalities have something to say, one has, neither has. One branch
enhances the first and the third, the other one remedies the second. So with w_R, w_T the channel weights of
both maps (a small network on their means) and W = sigmoid(w_R * w_T), which is near one where they agree in
sign and near zero where they do not: the interaction branch enhances W * F of either modality from both;
the complement branch gives both of them (1 - W) * (F_R + F_T), so that the one without it receives what the
other saw. The sums are merged by spatial weights that add up to one, and both encoders go on with the mean
of their own map and the merged one. The layers within are ours (see `docs/rivals.md`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EAEF(nn.Module):
    """Both branches and the merge.

    Ours: a hidden layer of a sixteenth in the channel weights; in the interaction a 3x3 convolution of each
    channel with its counterpart and a pointwise one; 3x3 for the spatial weights.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.weigh = nn.ModuleList(_channel_weights(channels, reduction) for _ in range(2))
        self.enhance = nn.ModuleList(_interaction(channels) for _ in range(2))
        self.merge = nn.Conv2d(2 * channels, 2, 3, padding=1)

    def forward(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Two maps (B, C, h, w) to those that the encoders go on with, and the merged one."""
        agreement = torch.sigmoid(self.weigh[0](rgb) * self.weigh[1](thermal))
        complement = (1 - agreement) * (rgb + thermal)
        both = torch.cat([agreement * rgb, agreement * thermal], dim=1)
        of_rgb = self.enhance[0](both) + complement
        of_thermal = self.enhance[1](both) + complement
        share = self.merge(torch.cat([of_rgb, of_thermal], dim=1)).softmax(dim=1)
        merged = share[:, :1] * of_rgb + share[:, 1:] * of_thermal
        return (rgb + merged) / 2, (thermal + merged) / 2, merged


def _channel_weights(channels: int, reduction: int) -> nn.Sequential:
    """(B, C, h, w) to weights (B, C, 1, 1) of either sign."""
    hidden = max(4, channels // reduction)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
    )


def _interaction(channels: int) -> nn.Sequential:
    """(B, 2C, h, w) to (B, C, h, w): each channel sees its counterpart, then all channels each other."""
    return nn.Sequential(
        nn.Conv2d(2 * channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )
