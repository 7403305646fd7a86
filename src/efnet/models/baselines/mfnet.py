"""MFNet (Ha 2017, IROS, "MFNet: towards real-time semantic segmentation...") as in its author's PyTorch code.

A colour encoder and a narrower thermal one, each of plain convolutions and, from 1/8 on, mini-inception
blocks; a decoder that enlarges by two (nearest neighbour) and adds both encoders' maps of that size. The last
layer, too, is followed by batch normalisation and a leaky ReLU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.baselines.base import PLAIN, PaddedBaseline, conv_norm

_WIDTHS = {"rgb": (3, 16, 48, 48, 96, 96), "inf": (1, 16, 16, 16, 36, 36)}
"""Channels of the image and at strides 1, 2, 4, 8, 16, by the suffix of the encoder's modules."""


def leaky(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """Make a 3x3 convolution, batch normalisation and leaky ReLU."""
    return conv_norm(in_channels, out_channels, activation=nn.LeakyReLU(0.2), bias=True, dilation=dilation)


class MiniInception(nn.Module):
    """Three layers, half of each dilated by two: a wider view at a plain convolution's price."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        for layer in (1, 2, 3):
            channels = in_channels if layer == 1 else out_channels
            self.add_module(f"conv{layer}_left", leaky(channels, out_channels // 2))
            self.add_module(f"conv{layer}_right", leaky(channels, out_channels // 2, dilation=2))

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h, w)."""
        for layer in (1, 2, 3):
            sides = (self.get_submodule(f"conv{layer}_{side}") for side in ("left", "right"))
            features = torch.cat([side(features) for side in sides], dim=1)
        return features


class MFNet(PaddedBaseline):
    """Both encoders and the decoder."""

    architecture = "mfnet"
    stride = 16
    rgb_pixels = PLAIN
    thermal_pixels = PLAIN

    def _build(self) -> None:
        for suffix, (image, first, second, third, fourth, fifth) in _WIDTHS.items():
            for name, module in (
                ("conv1", leaky(image, first)),
                ("conv2_1", leaky(first, second)),
                ("conv2_2", leaky(second, second)),
                ("conv3_1", leaky(second, third)),
                ("conv3_2", leaky(third, third)),
                ("conv4", MiniInception(third, fourth)),
                ("conv5", MiniInception(fourth, fifth)),
            ):
                self.add_module(f"{name}_{suffix}", module)
        first, second, third, fourth, _ = (
            sum(level) for level in zip(*(widths[1:] for widths in _WIDTHS.values()), strict=True)
        )
        self.decode4 = leaky(fourth, third)
        self.decode3 = leaky(third, second)
        self.decode2 = leaky(second, first)
        self.decode1 = leaky(first, self.config.num_classes)

    def _encode(self, suffix: str, images: Tensor) -> list[Tensor]:
        """Maps of one modality at strides 2, 4, 8, 16."""
        features = self.get_submodule(f"conv1_{suffix}")(images)
        maps = []
        for names in (("conv2_1", "conv2_2"), ("conv3_1", "conv3_2"), ("conv4",), ("conv5",)):
            features = F.max_pool2d(features, 2)
            for name in names:
                features = self.get_submodule(f"{name}_{suffix}")(features)
            maps.append(features)
        return maps

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H, W)."""
        assert rgb is not None
        assert thermal is not None
        pairs = zip(self._encode("rgb", rgb), self._encode("inf", thermal[:, :1]), strict=True)
        *shortcuts, features = (torch.cat(pair, dim=1) for pair in pairs)
        for step, shortcut in zip((self.decode4, self.decode3, self.decode2), shortcuts[::-1], strict=True):
            features = step(F.interpolate(features, scale_factor=2.0, mode="nearest") + shortcut)
        logits: Tensor = self.decode1(F.interpolate(features, scale_factor=2.0, mode="nearest"))
        return logits
