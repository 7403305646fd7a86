"""The three modules of a TUNI block (Guo 2025, arXiv 2509.10005) on maps of cells (B, h, w, C).

The authors name them and say what they are for; the layers here are DFormer's (Yin 2024, arXiv
2309.09668), on which they built, and otherwise our reading (`docs/rivals.md`). C are the channels of the
RGB branch, C_T those of the slimmer thermal one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.layers import Linear
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
