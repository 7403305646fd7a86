"""The nearest few of every token within the window of its tile, by float32 matrix multiplications.

What `dpc_tiles` says about tokens beyond a window proves for most rows that no other token is nearer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from efnet.ops.dpc_points import ROUNDED, Points
from efnet.ops.dpc_scan import Near
from efnet.ops.dpc_select import fewest
from efnet.ops.dpc_tiles import Tiles
from efnet.ops.linear import linear

_BLOCK_BYTES = {"cpu": 1 << 21}
"""Size of a block of distances: on a CPU what stays in its cache."""

_OTHER_BLOCK_BYTES = 256 << 20


def nearest_in_windows(points: Points, tiles: Tiles, count: int) -> Near:
    """The nearest few of the rows of `tiles`.

    Args:
        points: the tokens, with positions in the plane.
        tiles: some or all of the tiling of `points`.
        count: how many; at most the columns of a window.
    """
    size = 4 * tiles.rows.shape[1] * tiles.columns.shape[1]
    if points.device.type != "cpu":  # where the columns' features are gathered for all tiles together
        size += 4 * tiles.columns.shape[1] * points.channels
    step = max(1, _BLOCK_BYTES.get(points.device.type, _OTHER_BLOCK_BYTES) // size)
    largest = points.table[:-1, -2].amax().sqrt()
    parts = [
        _nearest(points, Tiles(*(part[first : first + step] for part in tiles)), count, largest)
        for first in range(0, len(tiles.rows), step)
    ]
    rows, columns, floor = (torch.cat(part) for part in zip(*parts, strict=True))
    present = (rows < points.none).nonzero().squeeze(1)
    return Near.measured(points, rows[present], columns[present], floor[present])


def _nearest(points: Points, tiles: Tiles, count: int, largest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (n,), the few (n, count) and floors (n,) of some tiles."""
    rows, columns = tiles.rows, tiles.columns
    distance = _squares(points, rows, columns)
    distance.scatter_(2, tiles.own[..., None], torch.inf)
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
