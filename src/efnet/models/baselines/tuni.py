"""TUNI (Guo 2025, arXiv 2509.10005): one encoder whose blocks extract from both images and fuse them at once.

The authors name the three modules of a block and their purpose; the layers here are DFormer's (Yin 2024,
arXiv 2309.09668), on which they built, and otherwise our reading (`docs/rivals.md`). Maps are (B, h, w, C): C
are the channels of the RGB branch, C_T those of the narrower thermal one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.baselines.base import Baseline
from efnet.models.baselines.segformer import SegFormerDecoder
from efnet.models.layers import Linear, init_weights, layer_norm
from efnet.ops.linear import attention
from efnet.ops.precision import at_least_float32

REACH = 7  # side of the depthwise convolutions and of the pooled queries, DFormer's best


class DepthwiseConv(nn.Conv2d):
    """Each channel sees the cells around it."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__(width, width, kernel, padding=kernel // 2, groups=width)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, h, w, C) to the same."""
        return super().forward(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class RGBLocalModule(nn.Module):
    """RGB-RGB local module: DConv(W x) * W' x, DFormer's base branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = Linear(width, width)
        self.conv = DepthwiseConv(width, REACH)
        self.value = Linear(width, width)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, h, w, C) to the same."""
        local: Tensor = self.conv(self.gate(cells)) * self.value(cells)
        return local


class RGBTLocalModule(nn.Module):
    """RGB-T local module: the common and the different part of both modalities, weighted by similarity.

    With r, t both maps brought to C channels and s_c = <r_c, t_c> / (|r_c| |t_c|) the cosine similarity of a
    channel over the map: a = sigmoid(slope * s + offset), slope and offset learned per channel, and the
    result is a DConv(r * t) + (1 - a) DConv'(|r - t|).
    """

    def __init__(self, width: int, thermal_width: int) -> None:
        super().__init__()
        self.rgb = Linear(width, width)
        self.thermal = Linear(thermal_width, width)
        self.consistent = DepthwiseConv(width, REACH)
        self.distinct = DepthwiseConv(width, REACH)
        self.slope = nn.Parameter(torch.ones(width))
        self.offset = nn.Parameter(torch.zeros(width))

    def forward(self, cells: Tensor, thermal: Tensor) -> Tensor:
        """(B, h, w, C) and (B, h, w, C_T) to (B, h, w, C)."""
        rgb, thermal = self.rgb(cells), self.thermal(thermal)
        share = torch.sigmoid(self.slope * channel_similarity(rgb, thermal) + self.offset).to(rgb.dtype)
        consistent, distinct = self.consistent(rgb * thermal), self.distinct((rgb - thermal).abs())
        weighed: Tensor = share * consistent + (1 - share) * distinct
        return weighed


def channel_similarity(one: Tensor, other: Tensor) -> Tensor:
    """Cosine similarity (B, 1, 1, C) of each channel of two maps (B, h, w, C), in float32 at least."""
    one, other = at_least_float32(one), at_least_float32(other)
    # Means, not sums, which half precision could not hold.
    product, first, second = (
        (left * right).mean((1, 2), keepdim=True)
        for left, right in ((one, other), (one, one), (other, other))
    )
    # With a floor under the norms a channel of zeros is similar to nothing.
    return product * (first.clamp_min(1e-8) * second.clamp_min(1e-8)).rsqrt()


class RGBTGlobalModule(nn.Module):
    """RGB-T global module: few queries of both modalities attend to all cells, DFormer's global awareness.

    Queries (of `query_width`, C + C_T) are both maps pooled to 7 x 7, keys and values the RGB map's; the
    result, of `out_width` channels, is enlarged to the map.
    """

    def __init__(self, width: int, query_width: int, out_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = Linear(query_width, out_width)
        self.kv = Linear(width, 2 * out_width)

    def forward(self, cells: Tensor, thermal: Tensor | None = None) -> Tensor:
        """(B, h, w, C) and (B, h, w, C_T) to (B, h, w, out_width)."""
        both = cells if thermal is None else torch.cat([cells, thermal], dim=3)
        pooled = pool_cells(both, REACH).flatten(1, 2)
        q = self.q(pooled).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, 49, C / heads)
        k, v = self.kv(cells.flatten(1, 2)).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        gathered = attention(q, k, v).permute(0, 1, 3, 2).flatten(1, 2)  # (B, C, 49)
        grid = gathered.reshape(*gathered.shape[:2], REACH, REACH)
        enlarged = F.interpolate(grid, cells.shape[1:3], mode="bilinear", align_corners=False)
        return enlarged.permute(0, 2, 3, 1)


def pool_cells(cells: Tensor, side: int) -> Tensor:
    """Adaptive average pooling, (B, h, w, C) to (B, side, side, C), as products that export for any size."""
    rows, columns = (bins(length, side, cells) for length in cells.shape[1:3])
    by_row = torch.einsum("ih,bhwc->biwc", rows, cells)
    return torch.einsum("jw,biwc->bijc", columns, by_row)


def bins(length: int, count: int, like: Tensor) -> Tensor:
    """Weights (count, length) that average `length` cells into `count` bins, overlapping where they must."""
    first = torch.arange(count, device=like.device)[:, None]
    cells = torch.arange(length, device=like.device)[None, :]
    # Bin i spans floor(i * length / count) up to, without it, ceil((i + 1) * length / count).
    inside = ((cells + 1) * count > first * length) & (cells * count < (first + 1) * length)
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


@dataclass(frozen=True)
class TUNIConfig:
    """One size: a value per stage. The thermal branch has half of each width."""

    depths: tuple[int, int, int, int]  # blocks
    widths: tuple[int, int, int, int]  # channels of the RGB branch
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)  # attention heads of the global module
    mlp_ratios: tuple[int, int, int, int] = (8, 8, 4, 4)  # hidden width of the feed-forward over the width


class TUNIBlock(nn.Module):
    """Three modules side by side, concatenated; each branch continues with a projection of all of them.

    A `thermal_width` of 0: no thermal branch, no RGB-T local module. The last block ends the thermal branch.
    """

    def __init__(self, width: int, thermal_width: int, heads: int, ratio: int, last: bool) -> None:
        super().__init__()
        branches = [width, thermal_width] if thermal_width else [width]
        after = branches[:1] if last else branches
        half = width // 2
        joined = width + half + (width if thermal_width else 0)
        self.norms = nn.ModuleList(layer_norm(channels) for channels in branches)
        self.rgb_local = RGBLocalModule(width)
        self.rgbt_local = RGBTLocalModule(width, thermal_width) if thermal_width else None
        self.rgbt_global = RGBTGlobalModule(width, sum(branches), half, heads)
        self.projects = nn.ModuleList(Linear(joined, channels) for channels in after)
        self.mlps = nn.ModuleList(FeedForward(channels, ratio) for channels in after)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """One map (B, h, w, C), or a second (B, h, w, C_T) too, to those that continue."""
        normed = [norm(cells) for norm, cells in zip(self.norms, branches, strict=True)]
        parts = [self.rgb_local(normed[0]), self.rgbt_global(*normed)]
        if self.rgbt_local is not None:
            parts.append(self.rgbt_local(*normed))
        joined = torch.cat(parts, dim=3)
        fused = [cells + project(joined) for cells, project in zip(branches, self.projects, strict=False)]
        return [cells + mlp(cells) for cells, mlp in zip(fused, self.mlps, strict=True)]


class FeedForward(nn.Sequential):
    """Norm and two linear layers, cell by cell."""

    def __init__(self, width: int, ratio: int) -> None:
        hidden = ratio * width
        super().__init__(layer_norm(width), Linear(width, hidden), nn.GELU(), Linear(hidden, width))


class Downsampling(nn.Sequential):
    """3x3 convolutions of stride 2, each normalised; between two of them a GELU."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            if layers:
                layers.append(nn.GELU())
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after)]
        super().__init__(*layers)


class TUNIStage(nn.Module):
    """Both branches at half the size (in stage 0 a quarter), then blocks; `channels` are the input's."""

    def __init__(self, config: TUNIConfig, stage: int, channels: Sequence[int]) -> None:
        super().__init__()
        width, depth = config.widths[stage], config.depths[stage]
        thermal_width = width // 2 if len(channels) > 1 else 0
        self.widths = (width, thermal_width)[: len(channels)]
        # The stem takes two steps, over half of its width.
        between = [(after // 2,) if stage == 0 else () for after in self.widths]
        self.downsample = nn.ModuleList(
            Downsampling(before, *middle, after)
            for before, middle, after in zip(channels, between, self.widths, strict=True)
        )
        self.blocks = nn.ModuleList(
            TUNIBlock(width, thermal_width, config.heads[stage], config.mlp_ratios[stage], last)
            for last in (*[False] * (depth - 1), stage == len(config.depths) - 1)
        )
        self.norm = layer_norm(width)

    def forward(self, branches: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Maps (B, C, H, W) of the branches to this stage's, and to the normalised one for the decoder."""
        maps = [shrink(features) for shrink, features in zip(self.downsample, branches, strict=True)]
        cells = [features.permute(0, 2, 3, 1) for features in maps]
        for block in self.blocks:
            cells = block(cells)
        seen: Tensor = self.norm(cells[0])
        return [branch.permute(0, 3, 1, 2) for branch in cells], seen.permute(0, 3, 1, 2)


class TUNI(Baseline):
    """Four stages, and a decoder that reads the RGB branch alone, into which both are fused.

    With one modality, thermal too, it is the wide branch with the RGB-RGB local and the global module. A
    subclass names its size.
    """

    encoder_config: ClassVar[TUNIConfig]
    decoder_width: ClassVar[int] = 256

    def _build(self) -> None:
        channels: Sequence[int] = {"rgbt": (3, 1), "rgb": (3,), "thermal": (1,)}[self.config.modality]
        stages: list[TUNIStage] = []
        for index in range(len(self.encoder_config.widths)):
            stages.append(TUNIStage(self.encoder_config, index, channels))
            channels = stages[-1].widths
        self.stages = nn.ModuleList(stages)
        widths, classes = self.encoder_config.widths, self.config.num_classes
        self.decoder = SegFormerDecoder(widths, classes, self.decoder_width)
        self.apply(init_weights)

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H/4, W/4)."""
        # One of the thermal image's three equal channels is enough.
        branches = [] if rgb is None else [rgb]
        if thermal is not None:
            branches.append(thermal[:, :1])
        maps = []
        for stage in self.stages:
            branches, seen = stage(branches)
            maps.append(seen)
        logits: Tensor = self.decoder(maps)
        return logits


class TUNIS(TUNI, architecture="tuni_s", encoder_config=TUNIConfig((2, 2, 4, 2), (48, 96, 192, 384))):
    """TUNI-S."""


class TUNIB(TUNI, architecture="tuni_b", encoder_config=TUNIConfig((3, 3, 12, 2), (64, 128, 256, 512))):
    """TUNI-B, with the depths and widths of DFormer-B."""
