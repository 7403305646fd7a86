"""Searches among the tokens of a sample by compiled loops on several threads.

EFNet (arXiv 2501.10958), equations 1-3. Where distances to many tokens are cheap to have roughly, they come
first (`Lattice`, `Products`); what they do not prove, a search from cell to cell does.
"""

from __future__ import annotations

import importlib
import math
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from efnet.ops.dpc_grid import Disk, Size, disk, stretch
from efnet.ops.dpc_points import Points
from efnet.ops.linear import linear
from efnet.ops.threads import share_out

Numbers = NDArray[np.int64]
Distances = NDArray[np.float64]

_IN_A_CELL = 4
"""Tokens of a cell on average."""

_LARGEST_RADIUS = 6
"""Of a disk on a regular grid, in cells; a wider one compares more than a search."""

_ROWS = 128
"""Tokens that a thread takes at a time."""

_MANY_ROWS = 1024
"""The same of quick work; on a regular grid, what stays in a cache."""


@lru_cache(maxsize=1)
def kernels() -> tuple[ModuleType, ModuleType] | None:
    """The compiled loops (`dpc_kernels`, `dpc_kernels_rough`); None without numba."""
    try:
        names = ("efnet.ops.dpc_kernels", "efnet.ops.dpc_kernels_rough")
        exact, rough = (importlib.import_module(name) for name in names)
    except ImportError:
        return None
    return exact, rough


class Found(NamedTuple):
    """The nearest eligible tokens of some, each array with a row for every token of the sample.

    Attributes:
        tokens: (N, count); N: none.
        distance: (N, count), ascending, of equal ones by number; infinite: none.
        floor: (N,) what is not among them is at least that far.
    """

    tokens: Numbers
    distance: Distances
    floor: Distances


class Cells(NamedTuple):
    """Tokens sorted into cells.

    Attributes:
        starts: (cells + 1,) where in `order` each cell begins.
        order: (S,) tokens.
        spots: (S, 2) their positions.
    """

    starts: Numbers
    order: Numbers
    spots: Distances


class Rough(Protocol):
    """Distances that are known roughly."""

    def nearest(
        self, search: Search, rows: Numbers, cells: Cells, key: Distances, own_key: Distances, out: Found
    ) -> None:
        """As `Search.nearest`, but for what is proved."""


class Search:
    """Searches among the tokens of one sample.

    Args:
        loops: the compiled loops.
        values: (N, C) float32 features.
        places: (N, 2) float64 finite positions.
        weight: of the spatial distance; 0: all tokens are in one cell.

    Attributes:
        rough: distances that are asked first; None: there are none.
        spare: how many more than it is asked for a search should keep, against ties and rounding.
    """

    def __init__(self, loops: ModuleType, values: Any, places: Distances, weight: float) -> None:
        self.loops = loops
        self.values = values
        self.places = places
        self.weight = float(weight)
        self.size = len(values)
        low, high = (np.array([reduce(axis) for axis in places.T.copy()]) for reduce in (np.min, np.max))
        self.side = _side(high - low, self.size) if weight > 0 else math.inf
        self.within = (places - low) * (1 / self.side)
        self.shape = ((high - low) * (1 / self.side)).astype(np.int64) + 1
        inside = self.within.astype(np.int32)
        self._cell = inside[:, 0] * np.int32(self.shape[1]) + inside[:, 1]
        self.rough: Rough | None = None
        self.spare = 0
        self.cells = self.cells_of(np.arange(self.size))

    def cells_of(self, tokens: Numbers) -> Cells:
        """Some tokens, sorted into cells."""
        starts = np.zeros(int(self.shape.prod()) + 1, np.int64)
        order = np.empty(len(tokens), np.int64)
        self.loops.sort_into_cells(self._cell[tokens], starts, order)
        order = tokens[order]
        return Cells(starts, order, self.places[order])

    def found(self, count: int) -> Found:
        """Room for what is found."""
        shape = (self.size, count)
        return Found(np.empty(shape, np.int64), np.empty(shape, np.float64), np.empty(self.size, np.float64))

    def nearest(
        self, rows: Numbers, out: Found, proved: int, cells: Cells | None = None,
        key: Distances | None = None, own_key: Distances | None = None, enough: Distances | None = None,
    ) -> int:  # fmt: skip
        """The nearest few of some tokens, on as many threads as PyTorch uses; returns how many it measured.

        Args:
            rows: tokens asked about.
            out: of them filled.
            proved: so many of the nearest have to be.
            cells: tokens that hold all that are eligible; None: all.
            key: (N,) tokens of a larger one than `own_key` are eligible, or of the same and a smaller number;
                None: all.
            own_key: (N,).
            enough: (N,) a search ends when all that it has not seen is at least that far; None: not before
                what was asked is proved.
        """
        cells = self.cells if cells is None else cells
        key = np.zeros(self.size) if key is None else key
        own_key = np.full(self.size, -1.0) if own_key is None else own_key
        enough = np.full(self.size, np.inf) if enough is None else enough
        if self.rough is not None:
            self.rough.nearest(self, rows, cells, key, own_key, out)
            done = (out.distance[rows, proved - 1] < out.floor[rows]) | (enough[rows] <= out.floor[rows])
            rows = rows[~done]

        def task(first: int, last: int) -> int:
            found: int = self.loops.nearest(
                self.values, self.places, self.weight, self.within, self.shape, self.side, *cells,
                rows, first, last, key, own_key, proved, enough, *out,
            )  # fmt: skip
            return found

        return sum(share_out(task, len(rows), _ROWS))

    def first_eligible(self, near: Found, key: Distances, own_key: Distances) -> tuple[Numbers, Distances]:
        """As `dpc_kernels.first_eligible`, for all tokens: the first ones (N,) and their distances (N,)."""
        tokens, distance = np.empty(self.size, np.int64), np.empty(self.size)

        def task(first: int, last: int) -> int:
            done: int = self.loops.first_eligible(*near, first, last, key, own_key, tokens, distance)
            return done

        share_out(task, self.size, _MANY_ROWS)
        return tokens, distance

    def measure(self, rows: Numbers, first: int, last: int, out: Found) -> None:
        """As `dpc_kernels.measure`."""
        self.loops.measure(self.values, self.places, self.weight, rows, first, last, out.tokens, out.distance)


class Lattice:
    """The tokens as cells of a regular grid, each compared with those within a radius.

    Args:
        loops: `dpc_kernels_rough`.
        search: the tokens.
        grid: (h, w).
        cells: the offsets.
        bound: no token beyond them is nearer.
    """

    def __init__(self, loops: ModuleType, search: Search, grid: Size, cells: Disk, bound: float) -> None:
        self.loops = loops
        self.grid = np.array(grid)
        # The nearest first: of the others few come in.
        self.half = np.array(sorted(cells.half, key=lambda offset: math.hypot(*offset)), np.int64)
        self.bound = bound
        self.rough = np.empty((len(self.half), search.size), np.float32)
        shifts = self.half @ np.array([grid[1], 1])

        def task(first: int, last: int) -> int:
            done: int = self.loops.grid_distances(
                search.values, search.places, search.weight, shifts, first, last, self.rough
            )
            return done

        share_out(task, search.size, _MANY_ROWS)

    def nearest(
        self, search: Search, rows: Numbers, cells: Cells, key: Distances, own_key: Distances, out: Found
    ) -> None:
        """As `dpc_kernels_rough.nearest_on_grid`."""

        def task(first: int, last: int) -> int:
            done: int = self.loops.nearest_on_grid(
                self.grid, self.half, self.rough, search.values.shape[1], search.weight, self.bound,
                rows, first, last, key, own_key, *out,
            )  # fmt: skip
            search.measure(rows, first, last, out)
            return done

        share_out(task, len(rows), _MANY_ROWS)


class Products:
    """All tokens of a sample compared by one matrix product.

    Args:
        loops: `dpc_kernels_rough`.
        points: the tokens of the batch, without positions.
        number: of the sample.
    """

    def __init__(self, loops: ModuleType, points: Points, number: int) -> None:
        self.loops = loops
        tokens = points.numbers()[number]
        table = points.table[tokens[0] : tokens[-1] + 1]
        self.rough = linear(points.partners(tokens), table).numpy()
        norms = table[:, -2].sqrt()
        self.error = points.square_error(norms + norms.amax()).double().numpy()

    def nearest(
        self, search: Search, rows: Numbers, cells: Cells, key: Distances, own_key: Distances, out: Found
    ) -> None:
        """As `dpc_kernels_rough.nearest_by_products`."""

        def task(first: int, last: int) -> int:
            done: int = self.loops.nearest_by_products(
                self.rough, self.error, cells.order, rows, first, last, key, own_key, *out
            )
            search.measure(rows, first, last, out)
            return done

        share_out(task, len(rows), _ROWS)


def _side(extent: Distances, tokens: int) -> float:
    """Side of square cells that hold `_IN_A_CELL` of N tokens spread evenly over a rectangle or a line."""
    area = float(extent[0] * extent[1])
    longest = float(extent.max())
    # No more cells along a line than tokens, however thin the rectangle.
    side = max(math.sqrt(area * _IN_A_CELL / tokens), longest * _IN_A_CELL / tokens)
    return side if side > 0 else 1.0


def lattice(loops: ModuleType, search: Search, grid: Size, farthest: float) -> Lattice | None:
    """The smallest disk beyond which no cell is as near as `farthest`; None where that is no small one."""
    least, short = (float(part) for part in stretch(torch.from_numpy(search.places)[None], grid))
    for radius in range(1, _LARGEST_RADIUS + 1):
        cells = disk(radius, grid)
        bound = search.weight * (least * cells.gap * (1 - 1e-9) - short * (1 + 1e-6))
        if bound > farthest:
            return Lattice(loops, search, grid, cells, bound)
    return None
