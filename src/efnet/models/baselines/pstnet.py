"""PSTNet (Shivakumar 2020, arXiv 1909.10980) as in its authors' code: two streams.

The colour stream is a ResNet-18 with lateral convolutions and a path at full size, and works alone. Its
logits, scaled to 0..1 per image, then the thermal and the colour image enter the second stream, in the manner
of ERFNet. With modality `rgb` the network is the colour stream. The authors train that one first and freeze
it; here both are trained together.
"""

from __future__ import annotations

import os
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.models.baselines.base import PLAIN, PaddedBaseline, conv, enlarge_by
from efnet.models.baselines.resnet import ResNet, load_resnets
from efnet.models.weights import LoadReport

EPSILON = 1e-3  # of the second stream's normalisations
MOST_CLASSES = 27


def rectified(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Sequential:
    """Make a convolution and a ReLU."""
    return nn.Sequential(conv(in_channels, out_channels, kernel), nn.ReLU())


def resize(features: Tensor, size: torch.Size) -> Tensor:
    """Bilinear interpolation of (B, C, h, w) to `size`, corners onto corners."""
    return F.interpolate(features, size, mode="bilinear", align_corners=True)


class ColourStream(nn.Module):
    """Images to logits of their size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder = ResNet(18)
        widths = self.encoder.widths
        for level, width in enumerate(widths):
            self.add_module(f"layer{level}_1x1", rectified(width, width, 1))
        for level, (below, width) in enumerate(zip((256, 256, 512, 512), (128, 256, 256, 512), strict=True)):
            self.add_module(f"conv_up{level}", rectified(below + widths[level], width))
        self.conv_original_size0 = rectified(3, 64)
        self.conv_original_size1 = rectified(64, 64)
        self.conv_original_size2 = rectified(192, 64)
        self.conv_last = nn.Conv2d(64, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, K, H, W)."""
        detail = self.conv_original_size1(self.conv_original_size0(images))
        maps = self.encoder(images)
        lateral = [self.get_submodule(f"layer{level}_1x1")(features) for level, features in enumerate(maps)]
        features = lateral[4]
        for level in (3, 2, 1, 0):
            features = enlarge_by(features, 2)
            if level > 1:  # where an odd side was halved, twice the half is one too many
                features = resize(features, lateral[level].shape[2:])
            features = self.get_submodule(f"conv_up{level}")(torch.cat([features, lateral[level]], dim=1))
        features = self.conv_original_size2(torch.cat([enlarge_by(features, 2), detail], dim=1))
        logits: Tensor = self.conv_last(features)
        return logits


class Downsampler(nn.Module):
    """Half the size: a strided convolution beside a pooling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels - in_channels, stride=2)
        self.bn = nn.BatchNorm2d(out_channels, eps=EPSILON)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h / 2, w / 2)."""
        return F.relu(self.bn(torch.cat([self.conv(features), F.max_pool2d(features, 2)], dim=1)))


class Factorized(nn.Module):
    """3x1, 1x3, dilated 3x1, dilated 1x3, dropout, around a shortcut."""

    def __init__(self, channels: int, dropout: float, dilation: int) -> None:
        super().__init__()
        for index, rate in ((1, 1), (2, dilation)):
            self.add_module(f"conv3x1_{index}", conv(channels, channels, (3, 1), dilation=(rate, 1)))
            self.add_module(f"conv1x3_{index}", conv(channels, channels, (1, 3), dilation=(1, rate)))
            self.add_module(f"bn{index}", nn.BatchNorm2d(channels, eps=EPSILON))
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, h, w) to the same."""
        inner = features
        for index in (1, 2):
            column, row, norm = (
                self.get_submodule(f"{name}{index}") for name in ("conv3x1_", "conv1x3_", "bn")
            )
            inner = norm(row(F.relu(column(F.relu(inner) if index == 2 else inner))))
        return F.relu(self.dropout(inner) + features)


class Upsampler(nn.Module):
    """Twice the size, bilinear, then a convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_Double(), conv(in_channels, out_channels))
        self.bn = nn.BatchNorm2d(out_channels, eps=EPSILON)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, 2h, 2w)."""
        return F.relu(self.bn(self.conv(features)))


class _Double(nn.Module):
    """Bilinear enlargement by two."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, 2h, 2w)."""
        return enlarge_by(features, 2)


class PSTNet(PaddedBaseline):
    """Both streams; with modality `rgb` the first one."""

    architecture = "pstnet"
    modalities = ("rgbt", "rgb")
    stride = 8
    rgb_pixels = PLAIN
    thermal_pixels = PLAIN
    input_size = (360, 640)
    unused = (r"(rgb_net\.module\.)?base_model\.",)
    renames = (
        (r"(?:rgb_net\.module\.)?layer0\.0\.", "rgb_net.encoder.conv1."),
        (r"(?:rgb_net\.module\.)?layer0\.1\.", "rgb_net.encoder.bn1."),
        (r"(?:rgb_net\.module\.)?layer1\.1\.", "rgb_net.encoder.layer1."),
        (r"(?:rgb_net\.module\.)?layer([234])\.", r"rgb_net.encoder.layer\1."),
        (r"(?:rgb_net\.module\.)?(layer\d_1x1|conv_(?:up|orig|last))", r"rgb_net.\1"),
    )

    def _build(self) -> None:
        classes = self.config.num_classes
        self.rgb_net = ColourStream(classes)
        if self.config.modality == "rgb":
            return
        if classes > MOST_CLASSES:
            raise InputError(
                f"`num_classes` {classes}: {self.architecture} takes at most {MOST_CLASSES}, since the first "
                "32 channels of its second stream hold a copy of its input"
            )
        self.initial_block_enc = Downsampler(classes + 4, 32)
        self.layers_enc = nn.Sequential(
            Downsampler(32, 64),
            *(Factorized(64, 0.03, 1) for _ in range(5)),
            Downsampler(64, 128),
            *(Factorized(128, 0.3, rate) for rate in 2 * (2, 4, 8, 16)),
        )
        steps = (
            (Upsampler(wide, narrow), Factorized(narrow, 0, 1), Factorized(narrow, 0, 1))
            for wide, narrow in pairwise((128, 64, 16))
        )
        self.layers_dec = nn.Sequential(*(module for step in steps for module in step))
        self.output_conv = nn.Sequential(_Double(), conv(16, classes))

    def load_encoder(self, path: str | os.PathLike[str]) -> LoadReport:
        """Start the colour stream's ResNet-18 from torchvision's weights."""
        return load_resnets(self, path)

    def second_input(self, logits: Tensor, rgb: Tensor, thermal: Tensor) -> Tensor:
        """(B, K + 4, H, W): the colour stream's logits scaled to 0..1 per image, thermal, colour."""
        low, high = logits.amin((1, 2, 3), keepdim=True), logits.amax((1, 2, 3), keepdim=True)
        return torch.cat([(logits - low) / (high - low), thermal[:, :1], rgb], dim=1)

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H, W)."""
        logits: Tensor = self.rgb_net(rgb)
        if self.config.modality == "rgb":
            return logits
        assert rgb is not None
        assert thermal is not None
        features = self.initial_block_enc(self.second_input(logits, rgb, thermal))
        refined: Tensor = self.output_conv(self.layers_dec(self.layers_enc(features)))
        return refined
