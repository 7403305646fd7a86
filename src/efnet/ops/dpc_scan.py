"""Which tokens a clustering compares, and how far apart: cells of a grid within a radius, or the nearest few.

Each of R tokens is compared with S others. Every distance D of a row is within D * relative + error of the
true one, and every token that a row is not compared with is at least `bound` away: what that decides
clearly it decides rightly; the rest is left to `dpc_exact`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from efnet.ops import dpc_grid
from efnet.ops.dpc_points import Points
from efnet.ops.dpc_select import fewest

_BLOCK_BYTES = {"cpu": 1 << 21}
"""Size of a block of distances: on a CPU what stays in its cache."""

_OTHER_BLOCK_BYTES = 256 << 20

_ROWS = 4096
"""Rows named candidates for together."""

_SAMPLE = 64
"""Tokens whose neighbours tell which radius will do."""

_WIDER = (1.5, 4.0)
"""Disks, in radii, that are looked at for the tokens that a grid's disk leaves open."""


class Block(NamedTuple):
    """Approximate distances of R tokens.

    Attributes:
        rows: (R,) tokens, numbered through the batch.
        columns: (S, R) the tokens that each is compared with; B * N: none.
        distance: (S, R) float32; infinite to itself and to none.
        relative: relative error of all distances.
        error: (R,) absolute error of a row's distances.
        bound: (R,) no token outside the columns is nearer.
    """

    rows: Tensor
    columns: Tensor
    distance: Tensor
    relative: float
    error: Tensor
    bound: Tensor

    def low(self, distance: Tensor) -> Tensor:
        """Lower bound of the true distance, (R,)."""
        return (distance * (1 - self.relative) - self.error).clamp_min(0)

    def high(self, distance: Tensor) -> Tensor:
        """Upper bound of the true distance, (R,)."""
        return distance * (1 + self.relative) + self.error


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


class Near(NamedTuple):
    """The nearest few of n tokens.

    Attributes:
        rows: (n,) the tokens.
        columns: (n, c) the few; B * N: none.
        distance: (n, c) float32 by plain differences; infinite to none.
        floor: (n,) float32, no other token is nearer.
    """

    rows: Tensor
    columns: Tensor
    distance: Tensor
    floor: Tensor

    @classmethod
    def measured(cls, points: Points, rows: Tensor, columns: Tensor, floor: Tensor) -> Near:
        """The few with their distances."""
        distance = points.apart(rows, columns).masked_fill_(columns == points.none, torch.inf)
        return cls(rows, columns, distance, floor)

    def unproved(self, points: Points, k: int) -> Tensor:
        """(n,) whether the k nearest tokens, the token itself counted, may be others than these."""
        farthest = self.distance.topk(max(1, k - 1), 1, largest=False).values[:, -1]
        return ~(farthest * (1 + points.relative) + points.absolute <= self.floor)


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

    def block(self) -> Block:
        """All distances."""

    def nominations(self) -> list[Nomination]:
        """Ways to name those that may be among the nearest, by what the scan knows, from cheap to dear."""


class Lattice:
    """The tokens as cells of a regular grid.

    Args:
        points: the tokens, with positions in the plane.
        size: (h, w) of the grid.
    """

    def __init__(self, points: Points, size: dpc_grid.Size) -> None:
        assert points.places is not None
        self.points = points
        self.size = size
        self._least, self._short = dpc_grid.stretch(points.places.view(points.batch, -1, 2), size)

    def disk(self, radius: int) -> dpc_grid.Disk:
        """Offsets within a radius in cells."""
        return dpc_grid.disk(radius, self.size)

    def bound(self, disk: dpc_grid.Disk) -> Tensor:
        """Scalar float64: no token beyond the disk is nearer."""
        shortest = self._least * (disk.gap * (1 - 2**-40)) - self._short * (1 + 2**-20)
        return (self.points.spatial_weight * shortest).clamp_min(0)

    def columns(self, disk: dpc_grid.Disk, rows: Tensor) -> Tensor:
        """(offsets, n) for tokens (n,): the offsets of the half plane first, then their negatives."""
        return dpc_grid.columns(disk.all, self.size, rows, self.points.none)


def suitable_radius(lattice: Lattice, k: int, radii: tuple[int, ...], tolerated: float) -> int | None:
    """The first radius whose bound exceeds the distance of the k-th neighbour, but for few of a sample.

    Args:
        lattice: the tokens.
        k: neighbours, the token itself one of them.
        radii: in cells, ascending.
        tolerated: share of the sample for which it may not.
    """
    points = lattice.points
    rows = points.numbers().flatten()[:: max(1, points.none // _SAMPLE)]
    columns = lattice.columns(lattice.disk(radii[-1]), rows).T
    if columns.shape[1] < k:
        return None
    distance = points.apart(rows, columns).masked_fill_(columns == points.none, torch.inf)
    farthest = distance.topk(max(1, k - 1), 1, largest=False).values[:, -1]
    bounds = torch.stack([lattice.bound(lattice.disk(radius)) for radius in radii])
    share = (farthest >= bounds[:, None]).float().mean(1).tolist()
    fitting = (radius for radius, beyond in zip(radii, share, strict=True) if beyond < tolerated)
    return next((radius for radius in fitting if len(lattice.disk(radius).all) >= k), None)


class GridScan:
    """The cells of a regular grid, each against those within a radius, by plain differences.

    Args:
        lattice: the tokens.
        radius: in cells.
    """

    def __init__(self, lattice: Lattice, radius: int) -> None:
        self.points = lattice.points
        self.lattice = lattice
        self.radius = radius
        self.disk = lattice.disk(radius)
        self.columns = lattice.columns(self.disk, self.points.numbers().flatten())
        self.bound = lattice.bound(self.disk)
        self.distance = self._measure()

    def _measure(self) -> Tensor:
        """(offsets, B * N) distances, those of the half plane first, then the same of their other ends."""
        points, width = self.points, self.lattice.size[1]
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

    def block(self) -> Block:
        """All distances."""
        points = self.points
        rows = points.numbers().flatten()
        error = self.distance.new_full(rows.shape, points.absolute)
        bound = (self.bound * (1 - 2**-22)).float().expand(rows.shape)
        return Block(rows, self.columns, self.distance, points.relative, error, bound)

    def nominations(self) -> list[Nomination]:
        """The nearest few by the kept distances, then those within wider radii."""
        return [
            self._of_disk,
            *(partial(self._of_wider, self.lattice.disk(round(w * self.radius))) for w in _WIDER),
        ]

    def _of_disk(self, rows: Tensor, eligible: Eligible, count: int) -> Iterator[Nominees]:
        for part in torch.split(rows, _ROWS):
            columns = self.columns[:, part].T
            distance = self.distance[:, part].T.masked_fill(~eligible(part, columns), torch.inf)
            yield self._fewest(part, columns, distance, count, self.bound)

    def _of_wider(
        self, disk: dpc_grid.Disk, rows: Tensor, eligible: Eligible, count: int
    ) -> Iterator[Nominees]:
        bound = self.lattice.bound(disk)
        for part in torch.split(rows, _ROWS):
            columns = self.lattice.columns(disk, part).T
            absent = (columns == self.points.none) | ~eligible(part, columns)
            distance = self.points.apart_where(~absent, part, columns)
            yield self._fewest(part, columns, distance, count, bound)

    def _fewest(self, rows: Tensor, columns: Tensor, distance: Tensor, count: int, bound: Tensor) -> Nominees:
        points = self.points
        near = fewest(distance, min(count, distance.shape[1]))
        floor = (near.rest.double() * (1 - points.relative) - points.absolute).clamp_min(0)
        nearest = columns.gather(1, near.columns)
        return Nominees(rows, nearest, near.values.isinf(), torch.minimum(floor, bound))


class ListScan:
    """Every token against the nearest few.

    Args:
        points: the tokens.
        near: the few of all of them, in any order.
    """

    def __init__(self, points: Points, near: Near) -> None:
        self.points = points
        order = near.rows.argsort()
        self.columns, self.distance, self.floor = (part[order] for part in near[1:])

    def block(self) -> Block:
        """All distances."""
        points = self.points
        error = self.distance.new_full((points.none,), points.absolute)
        rows, columns = points.numbers().flatten(), self.columns.T
        return Block(rows, columns, self.distance.T, points.relative, error, self.floor)

    def nominations(self) -> list[Nomination]:
        """The few."""
        return [self._of_list]

    def _of_list(self, rows: Tensor, eligible: Eligible, count: int) -> Iterator[Nominees]:
        columns = self.columns[rows]
        absent = (columns == self.points.none) | ~eligible(rows, columns)
        yield Nominees(rows, columns, absent, self.floor[rows].double())
