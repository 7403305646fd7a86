"""Tokens that are the cells of a regular grid: neighbours by shifts, and a proof of how far the others are.

With positions y = a + A (row, column), tokens an offset o apart are ||A o|| apart, at least
||o|| times the smallest singular value of A (EFNet, arXiv 2501.10958, equation 1 and section II-C).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

Size = tuple[int, int]


class Disk(NamedTuple):
    """Offsets (rows, columns) within a radius.

    Attributes:
        half: those of one half plane.
        all: those, then their negatives.
        gap: every offset beyond the disk is at least that long.
    """

    half: list[tuple[int, int]]
    all: list[tuple[int, int]]
    gap: float


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


def columns(offsets: list[tuple[int, int]], size: Size, tokens: Tensor, none: int) -> Tensor:
    """(offsets, n) the token at each offset from each of `tokens` (n,); `none` where there is none."""
    height, width = size
    shift = torch.tensor(offsets, device=tokens.device).view(-1, 2, 1)
    inside = tokens % (height * width)
    row, column = inside // width, inside % width
    found = tokens + (shift[:, 0] * width + shift[:, 1])
    lacking = (row < -shift[:, 0]) | (row >= height - shift[:, 0])
    lacking |= (column < -shift[:, 1]) | (column >= width - shift[:, 1])
    return found.masked_fill_(lacking, none)


def stretch(positions: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """How far apart neighbouring cells are at least.

    Args:
        positions: (B, h * w, 2).
        size: (h, w).

    Returns:
        scalars, float64: smallest singular value of the A that fits best at the corners, and by how much
        the distance of two positions may fall short of ||A o||.
    """
    height, width = size
    y = positions.double().view(-1, height, width, 2)
    origin = y[:, :1, :1]
    down = (y[:, -1:, :1] - origin) / max(1, height - 1)
    right = (y[:, :1, -1:] - origin) / max(1, width - 1)
    row = torch.arange(height, device=y.device)[:, None, None]
    column = torch.arange(width, device=y.device)[:, None]
    short = 2 * (y - origin - row * down - column * right).square().sum(-1).sqrt().amax()
    a, b, c = (down * down).sum(-1), (down * right).sum(-1), (right * right).sum(-1)
    if height == 1:
        least = c
    elif width == 1:
        least = a
    else:
        # Of [[a, b], [b, c]]; rounding takes no more than 2^-40 of the larger eigenvalue.
        middle, spread = (a + c) / 2, (((a - c) / 2).square() + b.square()).sqrt()
        least = middle - spread - (middle + spread) * 2.0**-40
    return least.amin().clamp_min(0).sqrt(), short
