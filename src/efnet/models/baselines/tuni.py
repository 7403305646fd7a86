"""TUNI (Guo 2025, arXiv 2509.10005): one encoder whose blocks extract from both images and fuse them at once.

What the authors tell in the abstract and beside their code, and what is DFormer's or ours, stands in
`docs/rivals.md`; the modules of a block are in `efnet.models.baselines.tuni`. Depths are DFormer-B's for
`tuni_b`; the decoder is SegFormer's, of a width that meets the published counts.

The three modules of a TUNI block (Guo 2025, arXiv 2509.10005) on maps of cells (B, h, w, C).

The authors name them and say what they are for; the layers here are DFormer's (Yin 2024, arXiv
2309.09668), on which they built, and otherwise our reading (`docs/rivals.md`). C are the channels of the
RGB branch, C_T those of the slimmer thermal one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.classes import ClassSet
from efnet.models.baselines.base import Rival, RivalConfig
from efnet.models.baselines.segformer import SegFormerDecoder
from efnet.models.layers import Linear, init_weights, layer_norm
from efnet.ops.attention import attention

REACH = 7
"""Side of the depthwise convolutions and of the pooled queries, DFormer's best."""


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
    """RGB-T local module: what both modalities share and where they differ, weighed by their similarity.

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
    """Cosine similarity of each channel over all cells.

    Taken of means, not of sums, which half precision could not hold.

    Args:
        one: (B, h, w, C).
        other: (B, h, w, C).

    Returns:
        (B, 1, 1, C) from -1 to 1, float32 (float64 for maps of that type).
    """
    one, other = (cells if cells.dtype == torch.float64 else cells.float() for cells in (one, other))
    product, first, second = (
        (left * right).mean((1, 2), keepdim=True)
        for left, right in ((one, other), (one, one), (other, other))
    )
    # A floor under the norms: a channel of zeros is similar to nothing.
    return product * (first.clamp_min(1e-8) * second.clamp_min(1e-8)).rsqrt()


class RGBTGlobalModule(nn.Module):
    """RGB-T global module: few queries of both modalities look at all cells, DFormer's global awareness.

    Queries are both maps pooled to 7 x 7, keys and values the RGB map's; what they gather is enlarged to the
    map again.

    Args:
        width: C.
        query_width: C + C_T; C where there is one modality.
        out_width: channels of queries, keys, values and result.
        heads: of attention.
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

    depths: tuple[int, int, int, int]
    """Blocks."""
    widths: tuple[int, int, int, int]
    """Channels of the RGB branch."""
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    """Of the global module."""
    mlp_ratios: tuple[int, int, int, int] = (8, 8, 4, 4)
    """Hidden width of the feed-forward part over the width."""


class TUNIBlock(nn.Module):
    """Three modules side by side, concatenated; each branch goes on with a projection of all of them.

    Args:
        width: channels C of the RGB branch.
        thermal_width: channels C_T of the thermal one; 0: there is none, and no RGB-T local module.
        heads: of the global module.
        ratio: of the feed-forward parts.
        last: whether the thermal branch ends here: nobody reads it after the last block.
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
        """One map (B, h, w, C), or two of them, the second (B, h, w, C_T), to those that go on."""
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
        super().__init__(
            layer_norm(width), Linear(width, ratio * width), nn.GELU(), Linear(ratio * width, width)
        )


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
    """Both branches at a half of the size (the first stage: a quarter), then blocks.

    Args:
        config: depths and widths.
        stage: 0 to 3.
        channels: of the branches that come in.
    """

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
            TUNIBlock(
                width,
                thermal_width,
                config.heads[stage],
                config.mlp_ratios[stage],
                last=stage == len(config.depths) - 1 and index == depth - 1,
            )
            for index in range(depth)
        )
        self.norm = layer_norm(width)

    def forward(self, branches: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Maps (B, C, H, W) of the branches to theirs, and to the normalised one for the decoder."""
        maps = [shrink(features) for shrink, features in zip(self.downsample, branches, strict=True)]
        cells = [features.permute(0, 2, 3, 1) for features in maps]
        for block in self.blocks:
            cells = block(cells)
        seen: Tensor = self.norm(cells[0])
        return [branch.permute(0, 3, 1, 2) for branch in cells], seen.permute(0, 3, 1, 2)


class TUNI(Rival):
    """Four stages, and a decoder that reads the RGB branch alone, which holds both by then.

    Of one modality alone, thermal too, it is the wide branch with the RGB-RGB local and the global module:
    the slim one has no modules of its own. A subclass names its size.
    """

    encoder_config: ClassVar[TUNIConfig]
    decoder_width: ClassVar[int]

    def __init__(self, config: RivalConfig, name: str = "", classes: ClassSet | None = None) -> None:
        super().__init__(config, name, classes)
        channels: Sequence[int] = {"rgbt": (3, 1), "rgb": (3,), "thermal": (1,)}[config.modality]
        stages: list[TUNIStage] = []
        for index in range(len(self.encoder_config.widths)):
            stages.append(TUNIStage(self.encoder_config, index, channels))
            channels = stages[-1].widths
        self.stages = nn.ModuleList(stages)
        self.decoder = SegFormerDecoder(self.encoder_config.widths, config.num_classes, self.decoder_width)
        self.apply(init_weights)

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H/4, W/4)."""
        # Of the thermal image's three equal channels one is enough.
        branches = [] if rgb is None else [rgb]
        if thermal is not None:
            branches.append(thermal[:, :1])
        maps = []
        for stage in self.stages:
            branches, seen = stage(branches)
            maps.append(seen)
        logits: Tensor = self.decoder(maps)
        return logits


class TUNIS(TUNI):
    """TUNI-S."""

    architecture = "tuni_s"
    encoder_config = TUNIConfig((2, 2, 4, 2), (48, 96, 192, 384))
    decoder_width = 256


class TUNIB(TUNI):
    """TUNI-B, with the depths and widths of DFormer-B."""

    architecture = "tuni_b"
    encoder_config = TUNIConfig((3, 3, 12, 2), (64, 128, 256, 512))
    decoder_width = 256
