"""SFAF-MA (He 2023, IEEE TIM 72, "Spatial feature aggregation and fusion") as in its authors' code.

As in RTFNet the colour encoder goes on with the sum of both maps. For the decoder each level's sum weighs the
two maps against each other, from its cells and from its mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.baselines.base import PLAIN, conv
from efnet.models.baselines.resnet import TwoResNets

_CONTEXTS = ((1, 2, 4), (2, 4, 8), (2, 4, 8), (2, 4, 8))
"""Dilations of the four branches; that three of them are equal is in the authors' code."""


class ContextModule(nn.Module):
    """SSF: four branches of dilated convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 4
        self.conv1 = nn.Conv2d(channels, width, 1)
        for index, rates in enumerate(_CONTEXTS, 1):
            steps: list[nn.Module] = []
            for rate in rates:
                steps += [conv(width, width, dilation=rate), nn.BatchNorm2d(width), nn.ReLU()]
            self.add_module(f"context{index}", nn.Sequential(*steps))
        self.conv2 = nn.Conv2d(width, channels, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        reduced = self.conv1(features)
        views = [self.get_submodule(f"context{index}")(reduced) for index in range(1, 5)]
        seen: Tensor = self.dropout(self.conv2(views[0] + views[1] + views[2] + views[3]) + features)
        return seen


class DecoderBlock(nn.Module):
    """1x1, transposed 3x3 to twice the size, 1x1."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        width = in_channels // 4
        self.conv1 = nn.Conv2d(in_channels, width, 1)
        self.norm1 = nn.BatchNorm2d(width)
        self.deconv2 = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1)
        self.norm3 = nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, 2h, 2w)."""
        inner = F.relu(self.norm1(self.conv1(features)))
        inner = F.relu(self.norm2(self.deconv2(inner)))
        return F.relu(self.norm3(self.conv3(inner)))


class SFAFMA(TwoResNets):
    """Encoders, five fusions, context, decoder."""

    architecture = "sfafma"
    rgb_pixels = PLAIN
    thermal_pixels = PLAIN
    unused = (r"encoder_downsampling\d\.|aspp2\.|aspp3\.",)

    def _build(self) -> None:
        super()._build()
        widths = self.encoder_rgb.widths
        for level, width in enumerate(widths):
            for reach, first in (("local", nn.Identity()), ("global", nn.AdaptiveAvgPool2d(1))):
                layers = first, nn.Conv2d(width, width // 4, 1), nn.BatchNorm2d(width // 4), nn.ReLU()
                self.add_module(f"{reach}_att{level}", nn.Sequential(*layers))
            self.add_module(f"conv{level}", nn.Conv2d(width // 4, width, 1))
            if level:
                self.add_module(f"decoder{level}", DecoderBlock(width, widths[level - 1]))
        self.aspp4 = ContextModule(widths[4])
        self.finaldeconv1 = nn.ConvTranspose2d(64, 32, 3, stride=2)
        self.finalconv2 = nn.Conv2d(32, 32, 3)
        self.finalconv3 = nn.Conv2d(32, self.config.num_classes, 2, padding=1)

    def weigh(self, level: int, rgb: Tensor, thermal: Tensor) -> Tensor:
        """MDAF: two maps (B, C, h, w) to one, weighted by their sum."""
        total = rgb + thermal
        local, whole = (self.get_submodule(f"{reach}_att{level}")(total) for reach in ("local", "global"))
        share = torch.sigmoid(self.get_submodule(f"conv{level}")(local + whole) + total)
        return share * rgb + (1 - share) * thermal

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H, W)."""
        assert rgb is not None
        assert thermal is not None
        thermal, maps = thermal[:, :1], []
        for level in range(self.encoder_rgb.levels):
            rgb, thermal = self.encoder_rgb.level(level, rgb), self.encoder_thermal.level(level, thermal)
            maps.append(self.weigh(level, rgb, thermal))
            rgb = rgb + thermal
        features = self.aspp4(maps[4])
        for level in (4, 3, 2, 1):
            features = self.get_submodule(f"decoder{level}")(features) + maps[level - 1]
        features = F.relu(self.finalconv2(F.relu(self.finaldeconv1(features))))
        logits: Tensor = self.finalconv3(features)
        return logits
