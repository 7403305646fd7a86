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
    """The nearest few of each token: of those in its window, where windows prove most, or of all."""
    tiles = _suitable_tiles(points, k, count)
    return nearest_of_all(points, count) if tiles is None else nearest_in_windows(points, tiles, count)


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


def nearest_of_all(points: Points, count: int) -> Near:
    """The nearest few of all tokens among all of their sample; `count`: how many, none for what it lacks."""
    few = min(count, points.tokens - 1)
    columns = points.numbers().new_full((points.none, count), points.none)
    floor = torch.full((points.none,), torch.inf, device=points.device)
    step = points.step(_ROW_BYTES, 4 * points.tokens)
    for tokens in points.numbers() if few else ():
        found = Others(points, tokens).nearest(tokens, few, step, repeated=True)
        for rows, (near, least, _) in zip(torch.split(tokens, step), found, strict=True):
            columns[rows, :few], floor[rows] = near, least
    return Near.measured(points, points.numbers().flatten(), columns, floor)


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

    def nearest(
        self, rows: Tensor, count: int, step: int, repeated: bool, eligible: Eligible | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Columns (m, count), floors (m,) and distances (m, count) of `rows`, `step` of them at a time.

        A token and none are infinitely far. Without positions distances are squares. `repeated`: all parts
        have the same size for every image of this size; oneDNN keeps a kernel for each size.
        """
        points = self.points
        for part in torch.split(rows, step):
            partners = points.partners(part)
            same = repeated or len(part) == step
            distance = linear(partners, self.table) if same else partners @ self.table.T
            if self.complete:
                distance.scatter_(1, (part % points.tokens)[:, None], torch.inf)
            norms = points.table[part, -2].sqrt() + self.norm
            if points.places is not None:
                error = points.product_error(norms, distance.amin(1))
                distance.clamp_min_(0).sqrt_()
                points.add_spatial(distance, self.columns, part[:, None])
            if eligible is not None:
                distance.masked_fill_(~eligible(part, self.columns[None]), torch.inf)
            near = fewest(distance, min(count, len(self.columns)))
            rest = near.rest
            if points.places is None:
                error, rest = points.product_error(norms, rest), rest.clamp_min(0).sqrt()
            floor = (rest * (1 - ROUNDED) - error).nan_to_num(torch.inf, torch.inf).clamp_min(0)
            yield self.columns[near.columns], floor, near.values
