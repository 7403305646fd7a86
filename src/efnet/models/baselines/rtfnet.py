"""RTFNet (Sun 2019, IEEE RA-L 4(3), "RGB-thermal fusion network") as in its author's code, MIT.

Two ResNets without normalisation of their input; the thermal map of each level is added to the colour map,
and the thermal encoder goes on by itself. Five steps, of a block of equal size and one of twice the size
each, bring 2048 channels at 1/32 to K at full size. The last block ends in a ReLU like all others, so logits
are never negative.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.baselines.base import PLAIN
from efnet.models.baselines.resnet import TwoResNets


class TransBottleneck(nn.Module):
    """1x1, 3x3, and a last convolution, around a shortcut.

    With `double` the last one is transposed and doubles the size, and so does the shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, double: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv3 = (
            nn.ConvTranspose2d(out_channels, out_channels, 2, stride=2, bias=False)
            if double
            else nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        )
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.upsample: nn.Module = nn.Identity()
        if double:
            self.upsample = nn.Sequential(
                nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h, w), or with `double` (B, out_channels, 2h, 2w)."""
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(features))))))
        return F.relu(self.bn3(self.conv3(inner)) + self.upsample(features))


class RTFNet(TwoResNets):
    """A subclass names the encoders' depth."""

    rgb_pixels = PLAIN
    thermal_pixels = PLAIN

    def _build(self) -> None:
        super()._build()
        deepest = self.encoder_rgb.widths[-1]
        widths = [*(deepest >> step for step in range(5)), self.config.num_classes]
        for step, (wide, narrow) in enumerate(pairwise(widths), 1):
            blocks = TransBottleneck(wide, wide, double=False), TransBottleneck(wide, narrow, double=True)
            self.add_module(f"deconv{step}", nn.Sequential(*blocks))

    def fuse_level(self, level: int, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps (B, C, h, w) to those that the encoders go on with."""
        return rgb + thermal, thermal

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H, W)."""
        assert rgb is not None
        assert thermal is not None
        thermal = thermal[:, :1]
        for level in range(self.encoder_rgb.levels):
            rgb, thermal = self.encoder_rgb.level(level, rgb), self.encoder_thermal.level(level, thermal)
            rgb, thermal = self.fuse_level(level, rgb, thermal)
        for step in range(1, 6):
            rgb = self.get_submodule(f"deconv{step}")(rgb)
        return rgb


class RTFNet50(RTFNet, architecture="rtfnet50"):
    """RTFNet with ResNet-50."""


class RTFNet152(RTFNet, architecture="rtfnet152", depth=152):
    """RTFNet with ResNet-152."""
