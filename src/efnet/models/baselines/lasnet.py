"""LASNet (Li 2022, arXiv 2210.14530): ResNet-152 on both images, three kinds of fusion, one decoder.

Of five levels the deepest is fused by location, the middle three by activation, the first by sharpening; a
decoder restores the size level by level. One ResNet-152 serves both modalities: two of them alone would have
116 M parameters, the official code has 93.6 M in all. Layers within the fusions and the decoder are our
reading (`docs/rivals.md`); the paper's supervision within the network is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.baselines.base import PaddedBaseline
from efnet.models.baselines.resnet import ResNet, enlarge, init_convolution, load_resnets
from efnet.models.layers import ConvNorm


class CollaborativeLocation(nn.Module):
    """CLM, deepest level: where both modalities together see an object.

    Every cell of either modality gathers what corresponds to it in the other one (a softmax over similarities
    Q K^T / sqrt(d), d the `width`); both are fused, and a location map in (0, 1) raises the cells of objects.
    """

    def __init__(self, channels: int, width: int = 256) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(channels, width, 1) for _ in range(2))
        self.fuse = ConvNorm(2 * channels, channels, 1)
        self.locate = nn.Conv2d(channels, 1, 1)

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Two maps (B, C, h, w) to one."""
        queries, keys = _cells(self.project[0](rgb)), _cells(self.project[1](thermal))
        similarities = queries @ keys.transpose(1, 2) / math.sqrt(queries.shape[2])
        from_thermal = similarities.softmax(dim=2) @ _cells(thermal)
        from_rgb = similarities.transpose(1, 2).softmax(dim=2) @ _cells(rgb)
        gathered = [values.transpose(1, 2).reshape(rgb.shape) for values in (from_thermal, from_rgb)]
        fused = self.fuse(torch.cat([rgb + gathered[0], thermal + gathered[1]], dim=1))
        located: Tensor = fused * (1 + torch.sigmoid(self.locate(fused)))
        return located


def _cells(features: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h * w, C)."""
    return features.flatten(2).transpose(1, 2)


class ComplementaryActivation(nn.Module):
    """CAM, middle levels: each modality activates the regions that the other one misses.

    Channels are weighted per modality (squeeze and excitation, arXiv 1709.01507), then a spatial map of
    either modality, from its channels' mean and maximum (arXiv 1807.06521), raises the other one's cells:
    F = F_R (1 + S_T) + F_T (1 + S_R).
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = channels // reduction
        self.excite = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))
            for _ in range(2)
        )
        self.activate = nn.ModuleList(nn.Conv2d(2, 1, 7, padding=3) for _ in range(2))

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Two maps (B, C, h, w) to one."""
        excited, regions = [], []
        for features, excite, activate in zip((rgb, thermal), self.excite, self.activate, strict=True):
            weighted = features * torch.sigmoid(excite(features.mean((2, 3), keepdim=True)))
            summary = torch.cat([weighted.mean(1, keepdim=True), weighted.amax(1, keepdim=True)], dim=1)
            excited.append(weighted)
            regions.append(torch.sigmoid(activate(summary)))
        return excited[0] * (1 + regions[1]) + excited[1] * (1 + regions[0])


class EdgeSharpening(nn.Module):
    """ESM, first level: what differs from its surroundings is an edge, and edges are raised.

    F = F_R + F_T; the difference of F and its 3x3 mean, seen at four dilations, gives an edge map E in
    (0, 1); the result is F (1 + E).
    """

    rates = (1, 2, 4, 6)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.views = nn.ModuleList(ConvNorm(channels, channels, 3, dilation=rate) for rate in self.rates)
        self.edges = nn.Conv2d(len(self.rates) * channels, 1, 1)

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Two maps (B, C, h, w) to one."""
        both = rgb + thermal
        contrast = both - F.avg_pool2d(both, 3, stride=1, padding=1, count_include_pad=False)
        edges = self.edges(torch.cat([view(contrast) for view in self.views], dim=1))
        sharpened: Tensor = both * (1 + torch.sigmoid(edges))
        return sharpened


class LASNetDecoder(nn.Module):
    """Enlarge, convolve, add the fused map; four times, then classify at stride 2."""

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        pairs = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.steps = nn.ModuleList(ConvNorm(deep, shallow, 3) for deep, shallow in pairs)
        self.classify = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Five maps at strides 2 to 32 to logits (B, K, H / 2, W / 2)."""
        features = maps[-1]
        for step, fused in zip(self.steps, maps[-2::-1], strict=True):
            features = step(enlarge(features, fused.shape[2:])) + fused
        logits: Tensor = self.classify(features)
        return logits


class LASNet(PaddedBaseline):
    """Encoder, fusions and decoder; with one modality, no fusions."""

    architecture = "lasnet"
    load_encoder = load_resnets

    def _build(self) -> None:
        self.encoder = ResNet(152)
        first, *middle, last = self.encoder.widths
        self.fuse = nn.ModuleList()
        if self.config.modality == "rgbt":
            self.fuse.extend((EdgeSharpening(first), *map(ComplementaryActivation, middle)))
            self.fuse.append(CollaborativeLocation(last))
        self.decoder = LASNetDecoder(self.encoder.widths, self.config.num_classes)
        self.fuse.apply(init_convolution)
        self.decoder.apply(init_convolution)

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H / 2, W / 2)."""
        maps = [self.encoder(images) for images in (rgb, thermal) if images is not None]
        both = len(maps) == 2
        fused = [fuse(*level) for fuse, *level in zip(self.fuse, *maps, strict=True)] if both else maps[0]
        logits: Tensor = self.decoder(fused)
        return logits
