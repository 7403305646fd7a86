"""EAEFNet (Liang 2023, arXiv 2303.15710): two ResNets, their maps fused at all five levels, and a decoder.

The decoder is ours: an atrous pyramid on the deepest map, as
DeepLabV3+ has it (arXiv 1802.02611), then one step per level that appends the fused map in few channels.
Its widths were chosen so that parameters and multiply-adds of the whole lie beside the official code's.

Explicit attention-enhanced fusion of one level (Liang 2023, arXiv 2303.15710).

The abstract tells three cases: both modalities have something to say, one has, neither has. One branch
enhances the first and the third, the other one remedies the second. So with w_R, w_T the channel weights of
both maps (a small network on their means) and W = sigmoid(w_R * w_T), which is near one where they agree in
sign and near zero where they do not: the interaction branch enhances W * F of either modality from both;
the complement branch gives both of them (1 - W) * (F_R + F_T), so that the one without it receives what the
other saw. The sums are merged by spatial weights that add up to one, and both encoders go on with the mean
of their own map and the merged one. The layers within are ours (see `docs/rivals.md`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from efnet.core.classes import ClassSet
from efnet.models.baselines.base import PaddedRival, RivalConfig
from efnet.models.baselines.resnet import (
    ConvNorm,
    ResNet,
    encode_alone,
    enlarge,
    init_convolution,
    load_resnets,
)
from efnet.models.tcformer_weights import LoadReport


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


class AtrousPyramid(nn.Module):
    """Views of several reaches at once, and the mean of the whole map."""

    rates = (6, 12, 18)

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvNorm(in_channels, width, 1)])
        self.branches.extend(ConvNorm(in_channels, width, 3, dilation=rate) for rate in self.rates)
        self.context = nn.Sequential(nn.Conv2d(in_channels, width, 1), nn.ReLU())
        self.project = ConvNorm(width * (len(self.rates) + 2), width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, width, h, w)."""
        context = self.context(features.mean((2, 3), keepdim=True)).expand(-1, -1, *features.shape[2:])
        views = [*(branch(features) for branch in self.branches), context]
        projected: Tensor = self.project(torch.cat(views, dim=1))
        return projected


class StepDecoder(nn.Module):
    """From the pyramid up to stride 2.

    Args:
        widths: channels of the fused maps, strides 2 to 32.
        num_classes: K.
        width: channels from stride 32 to 4.
        detail: channels of what a step appends, and of stride 2.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, width: int = 256, detail: int = 64) -> None:
        super().__init__()
        self.pyramid = AtrousPyramid(widths[-1], width)
        self.details = nn.ModuleList(ConvNorm(channels, detail, 1) for channels in widths[-2:0:-1])
        self.steps = nn.ModuleList(ConvNorm(width + detail, width, 3) for _ in self.details)
        self.narrow = ConvNorm(width, detail, 3)
        self.last = ConvNorm(detail, detail, 3)
        self.classify = nn.Conv2d(detail, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Five maps to logits (B, K, H / 2, W / 2)."""
        features = self.pyramid(maps[-1])
        for fused, detail, step in zip(maps[-2:0:-1], self.details, self.steps, strict=True):
            features = step(torch.cat([enlarge(features, fused.shape[2:]), detail(fused)], dim=1))
        features = self.narrow(enlarge(features, maps[0].shape[2:])) + maps[0]
        logits: Tensor = self.classify(self.last(features))
        return logits


class EAEFNet(PaddedRival):
    """Encoders, five fusions, decoder; of one modality alone, its encoder and the decoder."""

    architecture = "eaefnet"
    depth: ClassVar[int] = 152

    def __init__(self, config: RivalConfig, name: str = "", classes: ClassSet | None = None) -> None:
        super().__init__(config, name, classes)
        self.rgb = ResNet(self.depth) if config.modality != "thermal" else None
        self.thermal = ResNet(self.depth, in_channels=1) if config.modality != "rgb" else None
        encoder = self.rgb or self.thermal
        assert encoder is not None
        fused = encoder.widths if config.modality == "rgbt" else ()
        self.fuse = nn.ModuleList(EAEF(width) for width in fused)
        self.decoder = StepDecoder(encoder.widths, config.num_classes)
        self.fuse.apply(init_convolution)
        self.decoder.apply(init_convolution)

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H / 2, W / 2)."""
        logits: Tensor = self.decoder(self._encode(rgb, None if thermal is None else thermal[:, :1]))
        return logits

    def _encode(self, rgb: Tensor | None, thermal: Tensor | None) -> list[Tensor]:
        """Images to the fused maps of all levels."""
        if self.rgb is None:
            assert self.thermal is not None
            return encode_alone(self.thermal, thermal)
        if self.thermal is None:
            return encode_alone(self.rgb, rgb)
        assert rgb is not None
        assert thermal is not None
        maps = []
        for level, fuse in enumerate(self.fuse):
            rgb, thermal, fused = fuse(self.rgb.level(level, rgb), self.thermal.level(level, thermal))
            maps.append(fused)
        return maps

    def load_encoder(self, path: str | os.PathLike[str]) -> LoadReport:
        """Start the encoders from a published ResNet of the same depth.

        Raises:
            InputError: the file cannot be read, is no ResNet, or is one of another depth.
        """
        return load_resnets(self, path)


class EAEFNet50(EAEFNet):
    """EAEFNet with ResNet-50, as EFNet's table III has it."""

    architecture = "eaefnet50"
    depth = 50
