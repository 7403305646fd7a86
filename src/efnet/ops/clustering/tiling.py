"""Which tokens a clustering has to compare, by their positions alone, and a proof of how far the others are.

The spatial term keeps tokens apart, d_ij >= spatial_weight * ||y_i - y_j|| (EFNet, arXiv 2501.10958, equation
1).

On a regular grid positions are y = a + A (row, column): cells an offset o apart are ||A o|| apart, at least
||o|| times the smallest singular value of A, so a token is compared with the cells of a disk of offsets.

Off it tokens are sorted into bands of equal count by their first coordinate, each band into tiles of equal
count by the second. A tile is compared with the nine tiles whose boxes are nearest: equal counts make that
one batched matrix product. A token is at least as far from every token of a tile as from the box around them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


class Disk(NamedTuple):
    """Offsets (rows, columns) within a radius."""

    half: list[tuple[int, int]]  # those of one half plane
    all: list[tuple[int, int]]  # those, then their negatives
    gap: float  # every offset beyond the disk is at least that long


@lru_cache(maxsize=64)
def disk(radius: int, size: Size) -> Disk:
    """Offsets of at most `radius` cells that fit into a grid of (h, w)."""
    lengths = range(radius**2 + 1, radius**2 + 2 * radius + 2)  # up to (radius + 1)^2, a sum of squares
    gap = next(n for n in lengths if any(math.isqrt(n - a * a) ** 2 == n - a * a for a in range(radius + 2)))
    half = [
        (row, column)
        for row in range(min(radius, size[0] - 1) + 1)
        for column in range(-radius, radius + 1)
        if (row > 0 or column > 0) and row**2 + column**2 <= radius**2 and abs(column) < size[1]
    ]
    return Disk(half, half + [(-row, -column) for row, column in half], math.sqrt(gap))


def shifted(offsets: list[tuple[int, int]], size: Size, tokens: Tensor, none: int) -> Tensor:
    """(offsets, n) the token at each offset from each of `tokens` (n,); `none` where there is none."""
    reach = max(max(map(abs, offset)) for offset in offsets)
    height, width = size[0] + 2 * reach, size[1] + 2 * reach
    numbers = torch.arange(none, device=tokens.device).view(-1, *size)
    framed = F.pad(numbers, (reach, reach, reach, reach), value=none).flatten()
    sample, inside = tokens // (size[0] * size[1]), tokens % (size[0] * size[1])
    place = (sample * height + inside // size[1] + reach) * width + inside % size[1] + reach
    shift = torch.tensor([row * width + column for row, column in offsets], device=tokens.device)
    return torch.stack([framed.index_select(0, place + one) for one in shift])


def stretch(positions: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """How far apart neighbouring cells are at least.

    `positions`: (B, h * w, 2). `size`: (h, w). Returns scalars, float64: smallest singular value of the A
    that fits best at the corners, and by how much the distance of two positions may fall short of ||A o||.
    """
    height, width = size
    y = positions.double().view(-1, height, width, 2)
    origin = y[:, :1, :1]
    down = (y[:, -1:, :1] - origin) / max(1, height - 1)
    right = (y[:, :1, -1:] - origin) / max(1, width - 1)
    row = torch.arange(height, device=y.device)[:, None, None]
    column = torch.arange(width, device=y.device)[:, None]
    short = 2 * (y - origin - row * down - column * right).square().sum(-1).sqrt().amax()
    if height == 1 or width == 1:
        least = (right if height == 1 else down).square().sum(-1)
    else:
        least = least_stretch(down, right, 2.0**-40)
    return least.amin().clamp_min(0).sqrt(), short


def least_stretch(down: Tensor, right: Tensor, rounding: float) -> Tensor:
    """Square of the smallest singular value of columns (..., 2), less `rounding` of the largest one."""
    a, b, c = (down * down).sum(-1), (down * right).sum(-1), (right * right).sum(-1)
    middle, spread = (a + c) / 2, (((a - c) / 2).square() + b.square()).sqrt()
    return middle - spread - (middle + spread) * rounding  # an eigenvalue of [[a, b], [b, c]]


FAR = 2.0**60
"""Coordinate of a place that does not exist: farther than any, and its square is finite in float32."""

HUGE = 2.0**100  # farther than any token: finite, because infinity times zero is not a number
NEAR_TILES = 9  # tiles of a window, the tile itself the first
_BOUNDING = 16  # further tiles whose distance from each token is computed; beyond them that of boxes will do


class Tiles(NamedTuple):
    """T tiles of R tokens for each sample, and the window of tiles that each is compared with."""

    rows: Tensor  # (B, T, R) the tokens 0 to N - 1 of each tile, N for none; every token once
    columns: Tensor  # (B, T, S) the tokens of its window; a tile's own come first
    bound: Tensor  # (B, T, R) no place outside the window is nearer to the token's


def tile(places: Tensor, rows: int, tiles: int) -> Tiles:
    """Sort tokens into tiles; all sizes but B and N are fixed, so that a program of any N can be exported.

    `places`: (B, N, 2) finite coordinates, below 2^50. `rows`: R, tokens of a tile. `tiles`: tiles of a band.
    """
    row = _sorted_into_tiles(places, rows, tiles)
    count = row.shape[1]
    there = row < places.shape[1]
    own, low, high = [], [], []
    for axis in torch.cat([places, places[:, -1:]], 1).unbind(2):
        own.append(axis.gather(1, row.flatten(1)).view(row.shape))
        # Tile T is empty: none of those that exist.
        low.append(F.pad(torch.where(there, own[-1], FAR).amin(2), (0, 1), value=FAR))
        high.append(F.pad(torch.where(there, own[-1], -FAR).amax(2), (0, 1), value=-FAR))
    boxes = [(low[axis][:, :-1, None], high[axis][:, :-1, None]) for axis in range(2)]
    others = [(low[axis][:, None, :-1], high[axis][:, None, :-1]) for axis in range(2)]
    number = torch.arange(count, device=places.device)
    between = _gap(boxes, others) - (number[:, None] == number).to(places.dtype)
    wide = NEAR_TILES + _BOUNDING + 1
    between, near = F.pad(between, (0, wide), value=HUGE).topk(wide, 2, largest=False)
    near = near.clamp_max(count)
    further = near[:, :, NEAR_TILES:-1].flatten(1)
    others = [
        (
            least.gather(1, further).view(*between.shape[:2], _BOUNDING, 1),
            most.gather(1, further).view(*between.shape[:2], _BOUNDING, 1),
        )
        for least, most in zip(low, high, strict=True)
    ]
    points = [(axis[:, :, None], axis[:, :, None]) for axis in own]
    bound = torch.minimum(_gap(points, others).amin(2), between[..., -1:])
    every = torch.cat([row, torch.zeros_like(row[:, :1]) + _number(places.shape[1])], 1)
    index = near[:, :, :NEAR_TILES].flatten(1)[..., None].expand(-1, -1, rows)
    return Tiles(row, every.gather(1, index).view(*between.shape[:2], NEAR_TILES * rows), bound)


def _sorted_into_tiles(places: Tensor, rows: int, tiles: int) -> Tensor:
    """(B, T, R) the tokens of each tile, N for none."""
    batch, tokens = places.shape[:2]
    size = tiles * rows
    bands = (tokens + size - 1) // size
    order = F.pad(places[..., 0].argsort(dim=1, stable=True), (0, bands * size - tokens), value=-1)
    order = torch.where(order < 0, _number(tokens), order).view(batch * bands, size)
    numbers = order.view(batch, bands * size)
    across = F.pad(places[..., 1], (0, 1), value=FAR).gather(1, numbers).view(batch * bands, size)
    return order.gather(1, across.argsort(dim=1, stable=True)).view(batch, bands * tiles, rows)


def _number(tokens: int) -> Tensor:
    """A size as a tensor: as a number to fill with, it would become that of the traced image."""
    return torch.scalar_tensor(tokens, dtype=torch.int64)


Box = list[tuple[Tensor, Tensor]]  # least and largest coordinates of boxes, for both axes


def _gap(boxes: Box, others: Box) -> Tensor:
    """(...) how far boxes are at least apart."""
    down, right = (
        torch.maximum(low - high, other_low - other_high).clamp_min(0)
        for (low, other_high), (other_low, high) in zip(others, boxes, strict=True)
    )
    return (down * down + right * right).sqrt()
