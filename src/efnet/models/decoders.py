"""From the four stages to class scores on the initial grid: MFAD (EFNet section II-D), and table VII."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.config import Decoder
from efnet.models.layers import Tokens
from efnet.ops.distance import squared_distance
from efnet.ops.tokens import Size


class MFAD(nn.Module):
    """Multi-scale feature aggregation decoder: minus the distance of each cell to each class token.

    Equations 6-8. Squared distances add over the parts of a concatenation, so each stage's part is
    computed once per token and then read by the cells: the concatenated map never exists.

    Args:
        widths: channels of the four stages.
        num_classes: K.
    """

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.class_tokens = nn.Parameter(torch.empty(num_classes, sum(widths)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The scale of normalised features: nearer to zero, all distances would be alike for long."""
        nn.init.normal_(self.class_tokens)

    def forward(self, stages: Sequence[Tokens]) -> Tensor:
        """Four stages to logits (B, K, h, w), float32."""
        total = stages[0].features.new_zeros((), dtype=torch.float32)
        for stage, part in zip(stages, torch.split(self.class_tokens, list(self.widths), dim=1), strict=True):
            total = total + _read(squared_distance(stage.features, part), stage)
        # Below the square root a floor, where its slope would be infinite.
        logits = -total.clamp_min(1e-6).sqrt()
        height, width = stages[0].grid.size
        return logits.transpose(1, 2).reshape(logits.shape[0], -1, height, width)


def _read(values: Tensor, stage: Tokens) -> Tensor:
    """(B, n, K) what each cell's token (B, N, K) holds."""
    if stage.grid.regular:
        return values
    return values.gather(1, stage.assignment[..., None].expand(-1, -1, values.shape[-1]))


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


class DeepLabDecoder(nn.Module):
    """DeepLabV3+'s head (arXiv 1802.02611): atrous pyramid on the last stage, refined by the first."""

    rates = (6, 12, 18)

    def __init__(self, widths: Sequence[int], num_classes: int, width: int = 256, detail: int = 48) -> None:
        super().__init__()
        deep = widths[-1]
        self.branches = nn.ModuleList([ConvNorm(deep, width, 1)])
        self.branches.extend(ConvNorm(deep, width, 3, dilation=rate) for rate in self.rates)
        self.context = nn.Sequential(nn.Conv2d(deep, width, 1), nn.ReLU())
        self.project = ConvNorm(width * (len(self.rates) + 2), width, 1)
        self.detail = ConvNorm(widths[0], detail, 1)
        self.refine = nn.Sequential(ConvNorm(width + detail, width, 3), ConvNorm(width, width, 3))
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, stages: Sequence[Tokens]) -> Tensor:
        """Four stages to logits (B, K, h, w)."""
        first, last = stages[0], stages[-1]
        # The pyramid works at stride 16, as DeepLab's does; its rates are meant for that.
        size: Size = stages[2].map_size
        deep = last.to_map(size)
        context = self.context(deep.mean((2, 3), keepdim=True)).expand(-1, -1, *size)
        pyramid = self.project(torch.cat([*(branch(deep) for branch in self.branches), context], dim=1))
        pyramid = F.interpolate(pyramid, first.grid.size, mode="bilinear", align_corners=False)
        refined = self.refine(torch.cat([pyramid, self.detail(first.to_map())], dim=1))
        logits: Tensor = self.classify(self.dropout(refined))
        return logits


class ConvNorm(nn.Sequential):
    """Convolution that keeps the size, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )


def make_decoder(kind: Decoder, widths: Sequence[int], num_classes: int) -> nn.Module:
    """The module of a configuration's `decoder`."""
    decoders: dict[str, type[MFAD | MLPDecoder | DeepLabDecoder]] = {
        "mfad": MFAD,
        "mlp": MLPDecoder,
        "deeplab": DeepLabDecoder,
    }
    return decoders[kind](widths, num_classes)
