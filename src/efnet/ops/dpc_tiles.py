"""Spatial tiles: which tokens a clustering has to look at, and a proof of how far the others are.

The spatial term alone keeps tokens apart, d_ij >= spatial_weight * ||y_i - y_j|| (equation 1 of EFNet,
arXiv 2501.10958). Tokens are sorted into strips of equal count by their first coordinate, each strip into
tiles of equal count by the second. A tile is compared with a run of tokens around it in its own strip and
in the next strip on either side: equal counts make that one batched matrix multiplication for tokens at any
positions, on a grid or off it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_HEIGHT, _WIDTH = 4, 8
"""A tile at least, in token spacings."""

_REACH = 2.2
"""Strip height times spatial weight, in token spacings: far enough to certify features of unit variance."""


class Tiles(NamedTuple):
    """T tiles of R tokens, each with the S tokens it is compared with.

    Tokens are numbered through the batch, 0 to B * N - 1; the number B * N stands for none.

    Attributes:
        rows: (T, R) the tile's tokens; over all tiles every token once.
        columns: (T, S) the tokens of its window.
        own: (T, R) where in its window a token finds itself.
        bound: (T, R) float32, no token outside the window is nearer than that.
    """

    rows: Tensor
    columns: Tensor
    own: Tensor
    bound: Tensor


class Layout(NamedTuple):
    """Sizes of the tiling, which follow from N and the weight alone."""

    strips: int
    tiles: int  # of a strip
    rows: int  # tokens of a tile
    run: int  # tokens of one strip that a tile is compared with


def layout(tokens: int, spatial_weight: float) -> Layout | None:
    """Sizes for N tokens of one sample, or None where windows would not save anything."""
    height = max(_HEIGHT, math.ceil(_REACH / spatial_weight))
    strips = max(1, round(math.sqrt(tokens) / height))
    length = math.ceil(tokens / strips)
    tiles = max(1, round(length / (height * max(_WIDTH, height))))
    rows = math.ceil(length / tiles)
    # Even down to 3 columns of the window, which a tournament halves again and again.
    run = -(-(rows + 2 * height * height) // 32) * 32
    if strips < 4 or run > tiles * rows or 6 * run > tokens:
        return None
    return Layout(strips, tiles, rows, run)


def spatial_tiles(positions: Tensor, spatial_weight: float, sizes: Layout) -> Tiles:
    """Tile the tokens of a batch.

    Args:
        positions: (B, N, 2).
        spatial_weight: weight of their distance, positive.
        sizes: from `layout`.
    """
    batch, tokens, _ = positions.shape
    none = batch * tokens
    length = sizes.tiles * sizes.rows
    device = positions.device
    first, second = positions.double().unbind(-1)
    order = first.argsort(dim=1, stable=True)
    # Strips of N / strips tokens each, up to one; what a strip lacks is infinitely far.
    border = torch.arange(sizes.strips + 1, device=device) * tokens // sizes.strips
    place = border[:-1, None] + torch.arange(length, device=device)
    lacking = place >= border[1:, None]
    chosen = order[:, place.clamp_max(tokens - 1)]  # (B, strips, L)
    offset = (torch.arange(batch, device=device) * tokens)[:, None, None]
    ids = (chosen + offset).masked_fill(lacking, none)
    row = first.gather(1, chosen.flatten(1)).view(ids.shape)
    bottom = row.masked_fill(lacking, -torch.inf).amax(-1)  # (B, strips)
    top = row.masked_fill(lacking, torch.inf).amin(-1)
    column = second.gather(1, chosen.flatten(1)).view(ids.shape).masked_fill(lacking, torch.inf)
    column, by_column = column.sort(dim=-1, stable=True)
    ids = ids.gather(-1, by_column)
    row = row.gather(-1, by_column)

    strip = torch.arange(sizes.strips, device=ids.device)
    window = (strip - 1).clamp(0, sizes.strips - 3)[:, None] + torch.arange(3, device=ids.device)
    tile_column = column.view(batch, sizes.strips, sizes.tiles, sizes.rows)  # (B, strips, tiles, R)
    start, left, right = _runs(column, window, sizes)
    place = (window[:, None] * length + start.transpose(2, 3))[..., None]  # (B, strips, tiles, 3, 1)
    place = place + torch.arange(sizes.run, device=ids.device)
    columns = ids.flatten(1).gather(1, place.flatten(1))
    slot = strip - window[:, 0]  # of the strip itself among the three
    rank = torch.arange(length, device=ids.device).view(sizes.tiles, sizes.rows)
    own_start = start[:, strip, slot][..., None]
    own = slot[:, None, None] * sizes.run + rank - own_start

    tile_row = row.view(batch, sizes.strips, sizes.tiles, sizes.rows)
    above = torch.nn.functional.pad(bottom, (1, 0), value=-torch.inf)[:, window[:, 0]]
    below = torch.nn.functional.pad(top, (0, 1), value=torch.inf)[:, window[:, 2] + 1]
    gap = torch.minimum(tile_row - above[..., None, None], below[..., None, None] - tile_row)
    gap = torch.minimum(gap, torch.minimum(tile_column - left[..., None], right[..., None] - tile_column))
    bound = (gap.nan_to_num(0.0, torch.inf) * (spatial_weight * (1 - 2**-20))).clamp_min(0)
    return Tiles(
        ids.view(-1, sizes.rows),
        columns.reshape(-1, 3 * sizes.run),
        own.reshape(-1, sizes.rows),
        bound.view(-1, sizes.rows).float(),
    )


def _runs(column: Tensor, window: Tensor, sizes: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Where each tile's run begins in the three strips of its window, and the nearest columns left out.

    Args:
        column: (B, strips, L) sorted.
        window: (strips, 3) the strips of a window.
        sizes: from `layout`.

    Returns:
        starts (B, strips, 3, tiles), chosen so that run and tile share their middle; the largest column
        before and the smallest one after any of the three runs, (B, strips, tiles).
    """
    length = column.shape[-1]
    middle = torch.arange(sizes.tiles, device=column.device) * sizes.rows + sizes.rows // 2
    strips = column[:, window]  # (B, strips, 3, L)
    wanted = column[..., middle][:, :, None].expand(-1, -1, 3, -1).contiguous()
    centre = torch.searchsorted(strips, wanted)
    # Of equal columns it finds the first: in its own strip a tile must lie within its run.
    itself = window == torch.arange(sizes.strips, device=column.device)[:, None]
    centre = torch.where(itself[..., None], middle, centre)
    start = (centre - sizes.run // 2).clamp(0, length - sizes.run)
    before = strips.gather(-1, (start - 1).clamp_min(0)).masked_fill(start == 0, -torch.inf)
    end = start + sizes.run
    after = strips.gather(-1, end.clamp_max(length - 1)).masked_fill(end == length, torch.inf)
    return start, before.amax(2), after.amin(2)
