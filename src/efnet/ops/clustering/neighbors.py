"""The nearest few of every token, by float32 matrix products, and a proof of how far all others are.

Where positions bound the search, tokens are compared within the windows of `tiling`. What those do not prove,
and everything where positions bound nothing, is compared with all tokens, a block of rows at a time: N^2 C
multiplications, but never N^2 numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.ops.clustering.distances import ROUNDED, Points
from efnet.ops.clustering.tiling import NEAR_TILES, Tiles, tile
from efnet.ops.linear import linear

_BLOCK_BYTES = 1 << 21  # of distances
_ROW_BYTES = 4 << 20  # of rows against all columns
_REACHES = (1.9, 2.5, 3.6, 7.0)  # sides of tiles to try, in token spacings, times the weight
_LEAST_SIDE = 5  # a tile at least, in token spacings
_GROUPS = (16, 8)  # numbers of columns of which only the least is looked at first
_SAMPLED = 12  # a tiling is tried on every twelfth tile first


Eligible = Callable[[Tensor, Tensor], Tensor]
"""Whether others (n, S) or (1, S) may answer a question about tokens (n,): (n, S). Never the token itself."""


class Few(NamedTuple):
    """The smallest of each row."""

    values: Tensor  # (m, c)
    columns: Tensor  # (m, c) int64, where they are
    rest: Tensor  # (m,) all others are at least that; infinite where there are none


def fewest(values: Tensor, count: int) -> Few:
    """The `count` smallest of each row of `values` (m, S), ascending; `count`: 1 to S.

    The c smallest of a row are in the c groups of columns of smallest minimum.
    """
    rows, width = values.shape
    wanted = min(count + 1, width)
    # Of no use where the groups are hardly more than the few.
    group = next((group for group in _GROUPS if width % group == 0 and 2 * wanted * group <= width), 1)
    grouped = values.view(rows, group, width // group)
    least = grouped.amin(1).topk(wanted, 1, largest=False).indices
    near = grouped.gather(2, least[:, None].expand(-1, group, -1)).flatten(1).topk(wanted, 1, largest=False)
    columns = near.indices // wanted * (width // group) + least.gather(1, near.indices % wanted)
    rest = near.values[:, count] if wanted > count else values.new_full((rows,), torch.inf)
    return Few(near.values[:, :count], columns[:, :count], rest)


class Near(NamedTuple):
    """The nearest few of n tokens."""

    rows: Tensor  # (n,) the tokens
    columns: Tensor  # (n, c) the few; B * N: none
    distance: Tensor  # (n, c) float32 by plain differences; infinite to none
    floor: Tensor  # (n,) float32, no other token is nearer

    @classmethod
    def measured(cls, points: Points, rows: Tensor, columns: Tensor, floor: Tensor) -> Near:
        """The few with their distances."""
        distance = points.apart(rows, columns).masked_fill_(columns == points.none, torch.inf)
        return cls(rows, columns, distance, floor)

    def unproved(self, points: Points, k: int) -> Tensor:
        """(n,) whether the k nearest tokens, the token itself counted, may be others than these."""
        farthest = self.distance.topk(max(1, k - 1), 1, largest=False).values[:, -1]
        return ~(farthest * (1 + points.relative) + points.absolute <= self.floor)


def nearest(points: Points, k: int, count: int) -> Near:
    """The nearest few of each token: those of its window where they are proved enough, else of all."""
    tiles = _suitable_tiles(points, k, count)
    if tiles is None:
        return nearest_of_all(points, count)
    near = nearest_in_windows(points, tiles, count)
    unproved = near.unproved(points, k)
    left = near.rows[unproved].sort().values
    if not len(left):
        return near
    parts = zip(near, nearest_of_all(points, count, left), strict=True)
    return Near(*(torch.cat([part[~unproved], whole]) for part, whole in parts))


def _suitable_tiles(points: Points, k: int, count: int) -> Tiles | None:
    """The tiling with fewest distances to measure, by a sample of its tiles; None: compare all with all."""
    if points.places is None or points.places.shape[1] != 2 or not points.places.isfinite().all():
        return None
    best, least = None, float(points.tokens)
    for reach in _REACHES:
        size = round(max(_LEAST_SIDE, reach / points.spatial_weight) ** 2)
        width = NEAR_TILES * size
        if 2 * width >= points.tokens or width >= least:
            break
        if width < count:
            continue
        tiles = spatial_tiles(points, size)
        some = nearest_in_windows(points, Tiles(*(part[::_SAMPLED] for part in tiles)), count)
        share = float(some.unproved(points, k).float().mean())
        if width + 2 * share * points.tokens < least:
            best, least = tiles, width + 2 * share * points.tokens
    return best


def spatial_tiles(points: Points, size: int) -> Tiles:
    """The T tiles of all samples, of about `size` tokens each, which have the numbers of the batch."""
    assert points.places is not None
    tokens = points.tokens
    tiles = max(1, round(math.sqrt(tokens / size)))
    bands = math.ceil(tokens / (tiles * size))
    rows = math.ceil(tokens / (tiles * bands))
    found = tile(points.places.double().view(points.batch, tokens, 2), rows, tiles)
    first = points.numbers()[:, :1, None]
    row, column = (
        torch.where(part < tokens, part + first, points.none).flatten(0, 1)
        for part in (found.rows, found.columns)
    )
    return Tiles(row, column, (found.bound * (points.spatial_weight * (1 - ROUNDED))).float().flatten(0, 1))


def nearest_in_windows(points: Points, tiles: Tiles, count: int) -> Near:
    """The nearest few, at most the columns of a window, of the rows of some or all tiles."""
    size = 4 * tiles.rows.shape[1] * tiles.columns.shape[1]
    if points.device.type != "cpu":  # where the columns' features are gathered for all tiles together
        size += 4 * tiles.columns.shape[1] * points.channels
    step = points.step(_BLOCK_BYTES, size)
    largest = points.table[:-1, -2].amax().sqrt()
    parts = [
        _nearest_in_tiles(points, Tiles(*(part[first : first + step] for part in tiles)), count, largest)
        for first in range(0, len(tiles.rows), step)
    ]
    rows, columns, floor = (torch.cat(part) for part in zip(*parts, strict=True))
    present = (rows < points.none).nonzero().squeeze(1)
    return Near.measured(points, rows[present], columns[present], floor[present])


def _nearest_in_tiles(
    points: Points, tiles: Tiles, count: int, largest: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (n,), the few (n, count) and floors (n,) of some tiles."""
    rows, columns = tiles.rows, tiles.columns
    distance = _squares(points, rows, columns)
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # to the token itself
    error = points.product_error(points.table[rows, -2].sqrt() + largest, distance.amin(2))
    distance.clamp_min_(0).sqrt_()
    points.add_spatial(distance, columns[:, None], rows[..., None])
    near = fewest(distance.flatten(0, 1), count)
    floor = (near.rest * (1 - ROUNDED) - error.flatten()).clamp_min(0)
    found = columns.gather(1, near.columns.reshape(len(rows), -1)).view(-1, count)
    found = found.masked_fill(near.values.isinf(), points.none)
    return rows.flatten(), found, torch.minimum(floor, tiles.bound.flatten())


def _squares(points: Points, rows: Tensor, columns: Tensor) -> Tensor:
    """(t, R, S) squares of semantic distances, by products."""
    partners = points.partners(rows)
    if points.device.type != "cpu":
        others = points.table.index_select(0, columns.flatten()).view(*columns.shape, -1)
        return torch.bmm(partners, others.mT)
    # One tile after the other: what is gathered for it is still in the cache when it is multiplied.
    tiles = zip(partners, columns, strict=True)
    return torch.stack([linear(own, points.table.index_select(0, few)) for own, few in tiles])


def nearest_of_all(points: Points, count: int, rows: Tensor | None = None) -> Near:
    """The nearest few of tokens among all of their sample.

    `points`: the tokens of the batch. `count`: how many; what a sample lacks is none. `rows`: (n,) the tokens
    asked about, ascending; None: all.
    """
    few = min(count, points.tokens - 1)
    parts = []
    for tokens in points.numbers().unbind(0):
        own = tokens if rows is None else rows[(rows >= tokens[0]) & (rows <= tokens[-1])]
        if few == 0:
            parts.append((own[:, None][:, :0], torch.full(own.shape, torch.inf, device=own.device)))
        elif len(own):
            step = points.step(_ROW_BYTES, 4 * len(tokens))
            found = Others(points, tokens).nearest(own, few, step, repeated=rows is None)
            columns, floors, _ = (torch.cat(part) for part in zip(*found, strict=True))
            parts.append((columns, floors))
    columns, floor = (torch.cat(part) for part in zip(*parts, strict=True))
    columns = F.pad(columns, (0, count - few), value=points.none)
    return Near.measured(points, points.numbers().flatten() if rows is None else rows, columns, floor)


class Others:
    """Tokens to compare others with, by products.

    `columns`: (S,) tokens of one sample: all in order, or some that are compared with none of their own.
    """

    def __init__(self, points: Points, columns: Tensor) -> None:
        self.points = points
        self.columns = columns
        self.complete = len(columns) == points.tokens
        first = int(columns[0])
        self.table = points.table[first : first + len(columns)] if self.complete else points.table[columns]
        self.norm = self.table[:, -2].amax().sqrt()

    def distances(self, rows: Tensor, repeated: bool = False) -> tuple[Tensor, Tensor]:
        """Distances (m, S) of tokens (m,), infinite to themselves and to none, and their error (m,).

        Without positions they are squares, and the error is the tokens' norms, as `floor` expects.

        `rows`: the tokens. `repeated`: m is the same for every image of this size; oneDNN keeps a kernel for
        each m.
        """
        points = self.points
        partners = points.partners(rows)
        distance = linear(partners, self.table) if repeated else partners @ self.table.T
        if self.complete:
            distance.scatter_(1, (rows % points.tokens)[:, None], torch.inf)
        own = points.table[rows, -2].sqrt()
        if points.places is None:
            return distance, own
        error = points.product_error(own + self.norm, distance.amin(1))
        distance.clamp_min_(0).sqrt_()
        points.add_spatial(distance, self.columns, rows[:, None])
        return distance, error

    def nearest(
        self, rows: Tensor, count: int, step: int, repeated: bool, eligible: Eligible | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Columns (m, count), floors (m,) and distances (m, count) of `rows`, `step` of them at a time."""
        for part in torch.split(rows, step):
            distance, error = self.distances(part, repeated or len(part) == step)
            if eligible is not None:
                distance.masked_fill_(~eligible(part, self.columns[None]), torch.inf)
            near = fewest(distance, min(count, len(self.columns)))
            yield self.columns[near.columns], self._floor(near, error), near.values

    def _floor(self, near: Few, error: Tensor) -> Tensor:
        """(m,) float32, tokens not among the few `near` are at least that far; `error` from `distances`."""
        if self.points.places is not None:
            return (near.rest * (1 - ROUNDED) - error).clamp_min(0)
        error = self.points.product_error(error + self.norm, near.rest)
        floor = near.rest.clamp_min(0).sqrt() * (1 - ROUNDED) - error
        return floor.nan_to_num(torch.inf, torch.inf).clamp_min(0)
