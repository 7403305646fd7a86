"""Which tokens a clustering compares, and their distances: on a grid, in windows, or the nearest few of all.

A scan yields blocks of R tokens and S others each. Every distance D of a row is within D * relative + error
of the true one, and every token that a row is not compared with is at least `bound` away: what that decides
clearly it decides rightly; the rest is left to `dpc_exact`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from efnet.ops import dpc_grid
from efnet.ops.dpc_points import ROUNDED, Points
from efnet.ops.dpc_select import fewest
from efnet.ops.dpc_tiles import Tiles

_BLOCK_BYTES = {"cpu": 2 << 20}
"""Size of a block of distances: on a CPU what stays in its cache."""

_OTHER_BLOCK_BYTES = 256 << 20

_ROWS = 4096
"""Rows named candidates for together."""

_SAMPLE = 64
"""Tokens whose neighbours tell which radius will do."""

_RING = 4
"""How much wider a disk is looked at for the tokens that a grid's disk leaves open."""


class Block(NamedTuple):
    """Approximate distances of t tiles.

    Attributes:
        rows: (t, R) tokens, numbered through the batch; B * N: none.
        columns: (t, S) tokens that all rows of a tile are compared with, or (t, S, R) those of each row.
        distance: (t, S, R) float32; infinite to itself and to none.
        relative: relative error of all distances.
        error: (t, R) absolute error of a row's distances.
        bound: (t, R) no token outside the columns is nearer.
    """

    rows: Tensor
    columns: Tensor
    distance: Tensor
    relative: float
    error: Tensor
    bound: Tensor

    def low(self, distance: Tensor) -> Tensor:
        """Lower bound of the true distance, (t, R)."""
        return (distance * (1 - self.relative) - self.error).clamp_min(0)

    def high(self, distance: Tensor) -> Tensor:
        """Upper bound of the true distance, (t, R)."""
        return distance * (1 + self.relative) + self.error

    def at(self, values: Tensor) -> Tensor:
        """What tokens have, (B * N + 1,), for the columns: (t, S, 1) or (t, S, R)."""
        found = values[self.columns]
        return found if self.columns.ndim == 3 else found[..., None]

    def token(self, place: Tensor) -> Tensor:
        """(t, R) tokens at places (t, R) among the columns."""
        if self.columns.ndim == 2:
            return self.columns.gather(1, place)
        return self.columns.gather(1, place[:, None]).squeeze(1)


class Nominees(NamedTuple):
    """Tokens that may answer a question about n tokens.

    Attributes:
        rows: (n,) the tokens asked about.
        columns: (n, c) tokens that may answer.
        absent: (n, c) where there is none.
        floor: (n,) float64, every eligible token that is not here is at least that far.
    """

    rows: Tensor
    columns: Tensor
    absent: Tensor
    floor: Tensor


class Eligible(Protocol):
    """Of tokens (n,) and others, (n, S) or (1, S): may the others answer? Never the token itself."""

    def __call__(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(n, S)."""


class Nomination(Protocol):
    """Of tokens (n,): others that may be among the `count` nearest eligible ones."""

    def __call__(self, rows: Tensor, eligible: Eligible, count: int) -> Iterator[Nominees]:
        """Some rows at a time."""


class Scan(Protocol):
    """Distances of all tokens."""

    def blocks(self) -> Iterator[Block]:
        """All distances, some tiles at a time."""

    def nominations(self) -> list[Nomination]:
        """Ways to name those that may be among the nearest, by what the scan knows, from cheap to dear."""


def suitable_radius(
    points: Points, size: tuple[int, int], k: int, radii: tuple[int, ...], tolerated: float
) -> int | None:
    """The first radius whose bound exceeds the distance of the k-th neighbour, but for few of a sample.

    Args:
        points: the tokens, cells of a regular grid.
        size: (h, w) of the grid.
        k: neighbours, the token itself one of them.
        radii: in cells, ascending.
        tolerated: share of the sample for which it may not.
    """
    rows = points.numbers().flatten()[:: max(1, points.none // _SAMPLE)]
    widest = dpc_grid.disk(radii[-1], size)
    columns = dpc_grid.columns(widest.all, size, rows, points.none).T
    if columns.shape[1] < k:
        return None
    distance = points.apart(rows, columns).masked_fill_(columns == points.none, torch.inf)
    farthest = distance.topk(max(1, k - 1), 1, largest=False).values[:, -1]
    bounds = torch.stack([grid_bound(points, size, dpc_grid.disk(radius, size)) for radius in radii])
    share = (farthest >= bounds[:, None]).float().mean(1).tolist()
    fitting = (radius for radius, beyond in zip(radii, share, strict=True) if beyond < tolerated)
    return next((radius for radius in fitting if len(dpc_grid.disk(radius, size).all) >= k), None)


def grid_bound(points: Points, size: tuple[int, int], disk: dpc_grid.Disk) -> Tensor:
    """Scalar float64: no token of a regular grid of `size` that lies beyond the disk is nearer."""
    assert points.places is not None
    least, short = dpc_grid.stretch(points.places.view(points.batch, -1, 2), size)
    return (points.spatial_weight * (least * (disk.gap * (1 - 2**-40)) - short * (1 + 2**-20))).clamp_min(0)


class GridScan:
    """The cells of a regular grid, each against those within a radius, by plain differences.

    Args:
        points: the tokens, with positions in the plane.
        size: (h, w) of the grid.
        radius: in cells.
    """

    def __init__(self, points: Points, size: tuple[int, int], radius: int) -> None:
        self.points = points
        self.size = size
        self.radius = radius
        self.disk = dpc_grid.disk(radius, size)
        self.columns = self._columns(self.disk, points.numbers().flatten())
        self.distance = self._measure()

    def _columns(self, disk: dpc_grid.Disk, rows: Tensor) -> Tensor:
        """(offsets, n) for tokens (n,): the offsets of the half plane first, then their negatives."""
        return dpc_grid.columns(disk.all, self.size, rows, self.points.none)

    def _measure(self) -> Tensor:
        """(offsets, B * N) distances, those of the half plane first, then the same of their other ends."""
        points, width = self.points, self.size[1]
        values, places = points.values, points.places
        assert places is not None
        half = len(self.disk.half)
        distance = values.new_empty(2 * half, points.none, dtype=torch.float32)
        size = values.element_size() * points.channels
        step = max(1, _BLOCK_BYTES.get(points.device.type, _OTHER_BLOCK_BYTES) // size)
        buffer = values.new_empty(min(step, points.none), points.channels)
        norm = values.new_empty(len(buffer))
        shifts = [row * width + column for row, column in self.disk.half]
        for first in range(0, points.none, step):
            for number, shift in enumerate(shifts):
                last = min(first + step, points.none - shift)
                if last <= first:
                    continue
                out = buffer[: last - first]
                torch.sub(values[first + shift : last + shift], values[first:last], out=out)
                torch.linalg.vector_norm(out, dim=1, out=norm[: len(out)])
                distance[number, first:last] = norm[: len(out)]
        distance[:half].mul_(1 / points.scale)
        axes = places.T.contiguous()
        for number, shift in enumerate(shifts):
            kept = points.none - shift
            down, right = axes[:, shift:] - axes[:, :kept]
            spatial = down.square_().addcmul_(right, right).sqrt_()
            distance[number, :kept].add_(spatial, alpha=points.spatial_weight)
            distance[half + number, shift:] = distance[number, :kept]
        return distance.masked_fill_(self.columns == points.none, torch.inf)

    def blocks(self) -> Iterator[Block]:
        """All distances."""
        points = self.points
        rows = points.numbers().view(1, -1)
        error = self.distance.new_full(rows.shape, points.absolute)
        bound = (grid_bound(points, self.size, self.disk) * (1 - 2**-22)).float().expand(rows.shape)
        yield Block(rows, self.columns[None], self.distance[None], points.relative, error, bound)

    def nominations(self) -> list[Nomination]:
        """The nearest few by the kept distances, then all within a wider radius."""
        return [self._of_disk, self._of_ring]

    def _of_disk(self, rows: Tensor, eligible: Eligible, count: int) -> Iterator[Nominees]:
        points = self.points
        bound = grid_bound(points, self.size, self.disk)
        for part in torch.split(rows, _ROWS):
            columns = self.columns[:, part].T
            distance = self.distance[:, part].T.masked_fill(~eligible(part, columns), torch.inf)
            near = fewest(distance, min(count, distance.shape[1]))
            floor = (near.rest.double() * (1 - points.relative) - points.absolute).clamp_min(0)
            nearest = columns.gather(1, near.columns)
            yield Nominees(part, nearest, near.values.isinf(), torch.minimum(floor, bound))

    def _of_ring(self, rows: Tensor, eligible: Eligible, count: int) -> Iterator[Nominees]:
        disk = dpc_grid.disk(self.radius + _RING, self.size)
        bound = grid_bound(self.points, self.size, disk)
        for part in torch.split(rows, _ROWS):
            columns = self._columns(disk, part).T
            absent = (columns == self.points.none) | ~eligible(part, columns)
            yield Nominees(part, columns, absent, bound.expand(len(part)))


class WindowScan:
    """Every token against the window of its tile, by products; the distances are kept."""

    def __init__(self, points: Points, tiles: Tiles) -> None:
        self.points = points
        self.tiles = tiles
        shape = (len(tiles.rows), tiles.columns.shape[1], tiles.rows.shape[1])
        self.distance = torch.empty(shape, device=points.device)
        self.error = torch.empty(tiles.rows.shape, device=points.device)
        self.step = _step(4 * shape[1] * shape[2], points.device)
        gathered = 4 * shape[1] * (points.channels + shape[2])
        for part in self._parts(_step(gathered, points.device)):
            self._measure(part)

    def _measure(self, part: slice) -> None:
        points, tiles = self.points, self.tiles
        rows, columns = tiles.rows[part], tiles.columns[part]
        shape = (*columns.shape, -1)
        others = points.table.index_select(0, columns.flatten()).view(shape)
        own = points.table.index_select(0, rows.flatten()).view(*rows.shape, -1)
        # About the middle of the tile, where norms are small: so are the products' rounding errors.
        centre = own[..., :-2].mean(1, keepdim=True)
        norms = []
        for values, tokens in ((others, columns), (own, rows)):
            values[..., :-2].sub_(centre)
            norm = torch.linalg.vector_norm(values[..., :-2], dim=-1)
            norm.masked_fill_(tokens == points.none, torch.inf)
            norms.append(norm)
        others[..., -2] = norms[0].square()
        own[..., :-2].mul_(-2)
        own[..., -2] = 1
        own[..., -1] = norms[1].square()
        distance = self.distance[part]
        torch.bmm(others, own.mT, out=distance)
        distance.scatter_(1, tiles.own[part][:, None], torch.inf)
        farthest = norms[0].masked_fill(columns == points.none, 0).amax(1, keepdim=True)
        self.error[part] = points.product_error(norms[1] + farthest, distance.amin(1))
        distance.clamp_min_(0).sqrt_()
        points.add_spatial(distance, columns[..., None], rows[:, None])

    def _parts(self, step: int) -> list[slice]:
        return [slice(start, start + step) for start in range(0, len(self.tiles.rows), step)]

    def blocks(self) -> Iterator[Block]:
        """All distances, some tiles at a time."""
        tiles = self.tiles
        for part in self._parts(self.step):
            distance, error = self.distance[part], self.error[part]
            yield Block(tiles.rows[part], tiles.columns[part], distance, ROUNDED, error, tiles.bound[part])

    def nominations(self) -> list[Nomination]:
        """The nearest few within the window, by the kept distances."""
        return [self._of_window]

    def _of_window(self, rows: Tensor, eligible: Eligible, count: int) -> Iterator[Nominees]:
        tiles = self.tiles
        width, height = self.distance.shape[1:]
        slots = torch.arange(tiles.rows.numel(), device=rows.device)
        place = slots.new_empty(self.points.none + 1)
        place[tiles.rows.flatten()] = slots
        for part in torch.split(rows, max(1, _OTHER_BLOCK_BYTES // (64 * width))):
            tile, row = place[part] // height, place[part] % height
            columns = tiles.columns[tile]
            distance = self.distance[tile, :, row].masked_fill(~eligible(part, columns), torch.inf)
            near = fewest(distance, min(count, width))
            floor = (near.rest * (1 - ROUNDED) - self.error[tile, row]).clamp_min(0)
            floor = torch.minimum(floor, tiles.bound[tile, row]).double()
            yield Nominees(part, columns.gather(1, near.columns), near.values.isinf(), floor)


class ListScan:
    """Every token against the nearest few of all.

    Args:
        points: the tokens.
        columns: (B * N, c) the few.
        floor: (B * N,) no other token is nearer.
    """

    def __init__(self, points: Points, columns: Tensor, floor: Tensor) -> None:
        self.points = points
        self.columns = columns
        self.floor = floor
        rows = points.numbers().flatten()
        self.distance = points.apart(rows, columns).masked_fill_(columns == points.none, torch.inf)

    def blocks(self) -> Iterator[Block]:
        """All distances."""
        points = self.points
        error = self.distance.new_full((1, points.none), points.absolute)
        rows, columns = points.numbers().view(1, -1), self.columns.T[None]
        yield Block(rows, columns, self.distance.T[None], points.relative, error, self.floor[None])

    def nominations(self) -> list[Nomination]:
        """The few."""
        return [self._of_list]

    def _of_list(self, rows: Tensor, eligible: Eligible, count: int) -> Iterator[Nominees]:
        columns = self.columns[rows]
        absent = (columns == self.points.none) | ~eligible(rows, columns)
        yield Nominees(rows, columns, absent, self.floor[rows].double())


def _step(size: int, device: torch.device) -> int:
    """How many parts of `size` bytes make a block."""
    return max(1, _BLOCK_BYTES.get(device.type, _OTHER_BLOCK_BYTES) // size)
