"""Decoders, from the four stages to class scores on the initial grid (EFNet section II-D, table VII)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.config import Decoder, Enlargement
from efnet.models.layers import ConvNorm, Tokens
from efnet.ops.linear import squared_distance


class MFAD(nn.Module):
    """Multi-scale feature aggregation decoder: minus the distance of each cell to each class token.

    Equations 6-8. Squared distances add over the parts of a concatenation, so each stage's part is computed
    once per token and then read by the cells: the concatenated map never exists.

    Equation 6 may also be read as an `enlargement` of the stages' maps, bilinear in place of each cell's own
    token. Then features are enlarged first, at the memory of the whole map.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, enlargement: Enlargement = "token") -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.enlargement = enlargement
        self.class_tokens = nn.Parameter(torch.empty(num_classes, sum(widths)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start at the scale of normalised features: near zero, all distances would stay alike for long."""
        nn.init.normal_(self.class_tokens)

    def forward(self, stages: Sequence[Tokens]) -> Tensor:
        """Four stages to logits (B, K, h, w), float32 (float64 for a network of that type)."""
        total = stages[0].features.new_zeros((), dtype=torch.float32)
        for stage, part in zip(stages, torch.split(self.class_tokens, list(self.widths), dim=1), strict=True):
            if self.enlargement == "bilinear":
                total = total + squared_distance(_enlarge(stage), part)
            else:
                total = total + _read(squared_distance(stage.features, part), stage)
        # At zero the slope of the square root is infinite.
        logits = -total.clamp_min(1e-6).sqrt()
        height, width = stages[0].grid.size
        return logits.transpose(1, 2).reshape(logits.shape[0], -1, height, width)


def _read(values: Tensor, stage: Tokens) -> Tensor:
    """(B, n, K) the values (B, N, K) of each cell's token."""
    if stage.grid.regular:
        return values
    return values.gather(1, stage.assignment[..., None].expand(-1, -1, values.shape[-1]))


def _enlarge(stage: Tokens) -> Tensor:
    """(B, n, C) the stage's map, enlarged bilinearly to the initial grid."""
    features = F.interpolate(stage.to_map(), stage.grid.size, mode="bilinear", align_corners=False)
    return features.flatten(2).transpose(1, 2)


class MLPDecoder(nn.Module):
    """SegFormer's all-MLP head (arXiv 2105.15203): a linear layer per stage, concatenation, fusion."""

    def __init__(self, widths: Sequence[int], num_classes: int, width: int = 256) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(channels, width) for channels in widths)
        self.fuse = ConvNorm(len(widths) * width, width, 1)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, stages: Sequence[Tokens]) -> Tensor:
        """Four stages to logits (B, K, h, w)."""
        maps = [
            stage.with_features(linear(stage.features)).to_map(stage.grid.size)
            for stage, linear in zip(stages, self.linears, strict=True)
        ]
        logits: Tensor = self.classify(self.dropout(self.fuse(torch.cat(maps[::-1], dim=1))))
        return logits


def separable(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """3x3 convolution per channel, then 1x1 over channels, each with batch normalisation and ReLU."""
    depthwise = ConvNorm(in_channels, in_channels, 3, dilation, groups=in_channels)
    return nn.Sequential(*depthwise, nn.ReLU(), *ConvNorm(in_channels, out_channels, 1), nn.ReLU())


class DeepLabDecoder(nn.Module):
    """DeepLabV3+'s separable head (arXiv 1802.02611): a pyramid on the last stage, refined by the first.

    Views of several reaches of the last stage, and the mean of its whole map, become one map of `width`
    channels through a 3x3 bottleneck; `detail` channels of the first stage join it.
    """

    rates = (6, 12, 18)

    def __init__(self, widths: Sequence[int], num_classes: int, width: int = 256, detail: int = 48) -> None:
        super().__init__()
        last = widths[-1]
        self.branches = nn.ModuleList([ConvNorm(last, width, 1)])
        self.branches.extend(separable(last, width, rate) for rate in self.rates)
        # Without a normalisation: a batch of one pair has a single value per channel here.
        self.context = nn.Sequential(nn.Conv2d(last, width, 1), nn.ReLU())
        self.bottleneck = ConvNorm(width * (len(self.rates) + 2), width, 3)
        self.detail = ConvNorm(widths[0], detail, 1)
        self.refine = nn.Sequential(separable(width + detail, width), separable(width, width))
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def views(self, features: Tensor) -> Tensor:
        """(B, widths[-1], h, w) to (B, width, h, w)."""
        context = self.context(features.mean((2, 3), keepdim=True)).expand(-1, -1, *features.shape[2:])
        joined: Tensor = self.bottleneck(
            torch.cat([*(branch(features) for branch in self.branches), context], 1)
        )
        return joined

    def forward(self, stages: Sequence[Tokens]) -> Tensor:
        """Four stages to logits (B, K, h, w)."""
        first, last = stages[0], stages[-1]
        # At stride 16, as DeepLab's: its rates are meant for that.
        pyramid = self.views(last.to_map(stages[2].map_size))
        pyramid = F.interpolate(pyramid, first.grid.size, mode="bilinear", align_corners=False)
        refined = self.refine(torch.cat([pyramid, self.detail(first.to_map())], dim=1))
        logits: Tensor = self.classify(self.dropout(refined))
        return logits


def make_decoder(
    kind: Decoder | None, widths: Sequence[int], num_classes: int, enlargement: Enlargement = "token"
) -> nn.Module:
    """Make the module of a configuration's `decoder`; `enlargement` is MFAD's."""
    if kind == "mlp":
        return MLPDecoder(widths, num_classes)
    if kind == "deeplab":
        return DeepLabDecoder(widths, num_classes)
    return MFAD(widths, num_classes, enlargement)
