"""Neighbours off the grid, for exported programs: tokens in tiles, a tile against the tiles nearest to it.

Tokens are sorted into bands by their first coordinate and within a band by the second one, so that every
tile holds as many. A token is at least as far from every token of a tile as from the box around them: what is
nearer than the nearest box that was not looked at, nothing there can undercut.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.ops.dpc_loop import HUGE, Table, partner
from efnet.ops.tokens import sample_offsets

_TILE = 64
"""Tokens of a tile."""

_TILES = 9
"""Tiles that a tile is compared with, itself among them."""

REACHED = _TILES * _TILE
"""How many tokens one is compared with: no more neighbours than that are found here."""

_BAND = 8
"""Tiles of a band, where the number of tokens is not known beforehand."""

_FAR = 2.0**40
"""Coordinate of what is nowhere: its square is finite."""

_SAFE = 1 - 2.0**-16
"""Keeps rounding on the safe side of a bound."""


class Found(NamedTuple):
    """The nearest few of each token among those of the tiles near it.

    Attributes:
        distance: (B, N, k), nearest first; huge where there were fewer.
        token: (B, N, k) int64.
        bound: (B, N) no token of another tile is nearer.
    """

    distance: Tensor
    token: Tensor
    bound: Tensor


def nearest_in_tiles(table: Table, k: int) -> Found:
    """Look for neighbours near each token.

    Args:
        table: with places in the plane (B, N, 2).
        k: how many; at most `REACHED`.
    """
    assert table.places is not None
    batch, tokens = table.values.shape[:2]
    members = _tiles(table.places)  # (B, T, R)
    count = members.shape[1]
    places = _rows(table.places, members)
    gap = _gaps(places, members < tokens)  # (B, T, R, T + 1)
    near, bound = _nearest_tiles(gap)
    nowhere = torch.zeros_like(members[:, :1]) + _number(tokens)
    index = near + sample_offsets(batch, count + 1, near.device)[..., None]
    columns = torch.cat([members, nowhere], 1).flatten(0, 1).index_select(0, index.flatten())
    columns = columns.view(batch, count, REACHED)

    apart = partner(_rows(table.values, members)) @ _rows(table.values, columns).transpose(2, 3)
    apart = apart.abs().sqrt() + _spatial(places, _rows(table.places, columns))
    apart = apart + (columns >= tokens).float()[:, :, None] * HUGE
    found = apart.topk(k, 3, largest=False)
    token = columns.gather(2, found.indices.flatten(2)).view(batch, count, _TILE, k).clamp_max(tokens - 1)

    # Back from tiles to tokens: what only fills tiles comes last.
    back = members.flatten(1).argsort(dim=1, stable=True)[:, :tokens]
    back = (back + sample_offsets(batch, count * _TILE, back.device)).flatten()

    def by_token(values: Tensor, width: int) -> Tensor:
        flat = values.reshape(batch * count * _TILE, width)
        return flat.index_select(0, back).view(batch, tokens, width)

    return Found(by_token(found.values, k), by_token(token, k), by_token(bound, 1).squeeze(2))


def _tiles(places: Tensor) -> Tensor:
    """(B, T, R) the tokens of each tile, N for none."""
    batch, tokens = places.shape[:2]
    # As many bands as tiles in a band make a tile of a wide image about square.
    tiles = max(1, round(math.sqrt(tokens / _TILE))) if isinstance(tokens, int) else _BAND
    size = tiles * _TILE
    bands = (tokens + size - 1) // size
    order = F.pad(places[..., 0].argsort(dim=1, stable=True), (0, bands * size - tokens), value=-1)
    order = torch.where(order < 0, _number(tokens), order).view(batch * bands, size)
    numbers = order.view(batch, bands * size)
    across = F.pad(places[..., 1], (0, 1), value=_FAR).gather(1, numbers).view(batch * bands, size)
    return order.gather(1, across.argsort(dim=1, stable=True)).view(batch, bands * tiles, _TILE)


def _number(tokens: int) -> Tensor:
    """A size as a tensor: as a number to fill with it would become that of the traced image."""
    return torch.scalar_tensor(tokens, dtype=torch.int64)


def _rows(values: Tensor, tokens: Tensor) -> Tensor:
    """(B, T, n, c) rows of values (B, N, c) by number (B, T, n), the last one where there is none."""
    batch, total, width = values.shape
    number = tokens.clamp_max(total - 1) + sample_offsets(batch, total, tokens.device)[..., None]
    return values.flatten(0, 1).index_select(0, number.flatten()).view(*tokens.shape, width)


def _gaps(places: Tensor, there: Tensor) -> Tensor:
    """(B, T, R, T + 1) from each token to the box around the tokens of each tile; the last one is empty."""
    absent = ~there[..., None]
    low = F.pad(places.masked_fill(absent, _FAR).amin(2), (0, 0, 0, 1), value=_FAR)
    high = F.pad(places.masked_fill(absent, -_FAR).amax(2), (0, 0, 0, 1), value=-_FAR)
    own = places[:, :, :, None]
    beyond = torch.maximum(low[:, None, None] - own, own - high[:, None, None]).clamp_min(0)
    return beyond.square().sum(-1).sqrt().masked_fill(absent, HUGE)


def _nearest_tiles(gap: Tensor) -> tuple[Tensor, Tensor]:
    """The tiles (B, T, t) that each is compared with, T for none, and what bounds the others (B, T, R)."""
    count = gap.shape[1]
    # Where there are fewer tiles than are looked at.
    between = F.pad(gap.amin(2), (0, _TILES), value=HUGE)
    near = between.topk(_TILES, 2, largest=False).indices.clamp_max(count)
    looked_at = torch.zeros_like(between).scatter(2, near, HUGE)[:, :, : count + 1]
    return near, (gap + looked_at[:, :, None]).amin(3) * _SAFE


def _spatial(rows: Tensor, columns: Tensor) -> Tensor:
    """(B, T, R, S) distances between places (B, T, R, 2) and (B, T, S, 2)."""
    down = (rows[..., 0, None] - columns[:, :, None, :, 0]).square()
    return (down + (rows[..., 1, None] - columns[:, :, None, :, 1]).square()).sqrt()
