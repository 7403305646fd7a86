"""MFNet (Ha 2017, IROS, "MFNet: towards real-time semantic segmentation..."): two small encoders.

A colour encoder and a narrower thermal one, each of plain convolutions and, from 1/8 on, mini-inception
blocks; a decoder that enlarges by two (nearest neighbour) and adds both encoders' maps of that size. The
widths give the official code's parameter count. Batch normalisation makes a bias before it superfluous.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.baselines.base import PaddedBaseline

RGB_WIDTHS = (16, 48, 48, 96, 96)
THERMAL_WIDTHS = (16, 16, 16, 36, 36)  # channels at strides 1, 2, 4, 8, 16


class LeakyConv(nn.Sequential):
    """3x3 convolution, batch normalisation, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.2),
        )


class MiniInception(nn.Module):
    """Three layers, half of each dilated by two: a wider view at a plain convolution's price."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        widths = (in_channels, out_channels, out_channels)
        self.near = nn.ModuleList(LeakyConv(width, out_channels // 2) for width in widths)
        self.far = nn.ModuleList(LeakyConv(width, out_channels // 2, dilation=2) for width in widths)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h, w)."""
        for near, far in zip(self.near, self.far, strict=True):
            features = torch.cat([near(features), far(features)], dim=1)
        return features


class MFNetEncoder(nn.Module):
    """One modality: images to maps at strides 1, 2, 4, 8, 16."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        first, second, third, fourth, fifth = widths
        self.levels = nn.ModuleList(
            (
                LeakyConv(in_channels, first),
                nn.Sequential(LeakyConv(first, second), LeakyConv(second, second)),
                nn.Sequential(LeakyConv(second, third), LeakyConv(third, third)),
                MiniInception(third, fourth),
                MiniInception(fourth, fifth),
            )
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) to five maps."""
        maps = [self.levels[0](images)]
        for level in list(self.levels)[1:]:
            maps.append(level(F.max_pool2d(maps[-1], 2)))
        return maps


class MFNetDecoder(nn.Module):
    """Enlarge, add the encoders' maps (the shortcut), convolve; four times."""

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        first, second, third, fourth, _ = widths
        pairs = ((fourth, third), (third, second), (second, first))
        self.steps = nn.ModuleList(LeakyConv(deep, shallow) for deep, shallow in pairs)
        self.classify = nn.Conv2d(first, num_classes, 3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Five maps, of both encoders concatenated, to logits (B, K, H, W)."""
        features = maps[4]
        for step, shortcut in zip(self.steps, maps[3:0:-1], strict=True):
            features = step(F.interpolate(features, scale_factor=2.0, mode="nearest") + shortcut)
        logits: Tensor = self.classify(F.interpolate(features, scale_factor=2.0, mode="nearest"))
        return logits


class MFNet(PaddedBaseline):
    """Both encoders and the decoder; of one modality alone, its encoder and a decoder of that width."""

    architecture = "mfnet"
    stride = 16

    def _build(self) -> None:
        modality = self.config.modality
        self.rgb = MFNetEncoder(3, RGB_WIDTHS) if modality != "thermal" else None
        self.thermal = MFNetEncoder(1, THERMAL_WIDTHS) if modality != "rgb" else None
        used = [encoder.widths for encoder in (self.rgb, self.thermal) if encoder is not None]
        widths = [sum(level) for level in zip(*used, strict=True)]
        self.decoder = MFNetDecoder(widths, self.config.num_classes)

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H, W)."""
        seen = ((self.rgb, rgb), (self.thermal, None if thermal is None else thermal[:, :1]))
        maps = [encoder(images) for encoder, images in seen if encoder is not None]
        logits: Tensor = self.decoder([torch.cat(level, dim=1) for level in zip(*maps, strict=True)])
        return logits
