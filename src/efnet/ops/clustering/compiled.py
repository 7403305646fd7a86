"""The clustering on a CPU by compiled loops, where numba is installed: the same result with fewer distances.

Matrix products have to compare tokens in rectangles; a loop compares a token with those that its position
does not rule out, and no more. Rough distances to many tokens, where cheap, come first (`Lattice`,
`Products`); what they do not prove, a search from cell to cell does. Where positions rule out too few of many
tokens, products are faster: then `cluster` returns None.
"""

from __future__ import annotations

import importlib
import math
import os
import pickle
import warnings
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from efnet.core.threads import share_out
from efnet.ops.clustering.bounds import SLACK, UNDERFLOW, Bounds, select
from efnet.ops.clustering.distances import Points, exponential, mean_square
from efnet.ops.clustering.tiling import Size, disk, stretch
from efnet.ops.linear import linear

Numbers = NDArray[np.int64]
Distances = NDArray[np.float64]
_IN_A_CELL = 4  # tokens of a cell on average
_LARGEST_RADIUS = 6  # largest disk on a regular grid, in cells; a wider one compares more than a search
_ROWS = 128  # tokens that a thread takes at a time
_MANY_ROWS = 1024  # the same of quick work; on a regular grid, what stays in a cache
_SAMPLE = 64  # tokens on which the number of candidates is estimated
_FEW = 1536  # up to so many tokens loops are faster, however many they compare
_SPARE = 6  # tokens kept beyond the neighbours where products have found them
_WORTH = 1 / 8  # matrix products are faster if a larger share of tokens has to be measured
_TOLERATED = 0.03  # share of tokens whose neighbours may lie beyond a disk on a regular grid
_SMALLEST = 1e-150  # the square of anything smaller underflows

_FARTHEST = float(np.finfo(np.float64).max) / 2  # no distance is larger


@lru_cache(maxsize=1)
def kernels() -> ModuleType | None:
    """The compiled loops; None without numba."""
    try:
        return importlib.import_module("efnet.ops.clustering.kernels")
    except ImportError:
        return None


class Found(NamedTuple):
    """The nearest eligible tokens of some tokens, as `kernels` fills them; one row for every token."""

    tokens: Numbers
    distance: Distances
    floor: Distances


class Cells(NamedTuple):
    """Tokens sorted into cells, as `kernels.nearest` takes them."""

    starts: Numbers
    order: Numbers
    spots: Distances


class Search:
    """Searches among the tokens of one sample.

    `loops`: the compiled loops. `values`: (N, C) float32 features. `places`: (N, 2) float64 finite positions.
    `weight`: of the spatial distance; 0: all tokens are in one cell. `rough`: the loop that finds tokens by
    rough distances, what it needs, and rows of a part. `spare`: how many more tokens a search keeps than it
    is asked for, against ties and rounding.
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
        self.rough: tuple[Any, tuple[Any, ...], int] | None = None
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

    def run(self, loop: Any, size: int, step: int, *arguments: Any) -> int:
        """Sum what a loop returns for the parts of `range(size)`, on as many threads as PyTorch uses."""
        return sum(share_out(lambda first, last: loop(first, last, *arguments), size, step))

    def nearest(
        self, rows: Numbers, out: Found, proved: int, cells: Cells | None = None,
        key: Distances | None = None, own_key: Distances | None = None, enough: Distances | None = None,
    ) -> int:  # fmt: skip
        """Find the nearest few of some tokens, as `kernels.nearest`; returns how many were measured.

        `rows`: tokens asked about; their rows of `out` are filled. `out`: from `found`. `proved`: so many of
        the nearest have to be certain. `cells`: tokens that hold all eligible ones; None: all. `key`: which
        tokens are eligible, with `own_key`; None: all. `own_key`: (N,). `enough`: (N,) a search ends when all
        that it has not seen is at least that far.
        """
        cells = self.cells if cells is None else cells
        key = np.zeros(self.size) if key is None else key
        own_key = np.full(self.size, -1.0) if own_key is None else own_key
        enough = np.full(self.size, np.inf) if enough is None else enough
        if self.rough is not None:
            loop, needed, step = self.rough
            about = (self.values, self.places, self.weight, cells.order, rows, key, own_key)
            self.run(loop, len(rows), step, *needed, *about, *out)
            done = (out.distance[rows, proved - 1] < out.floor[rows]) | (enough[rows] <= out.floor[rows])
            rows = rows[~done]
        return self.run(
            self.loops.nearest, len(rows), _ROWS, self.values, self.places, self.weight, self.within,
            self.shape, self.side, *cells, rows, key, own_key, proved, enough, *out,
        )  # fmt: skip

    def first_eligible(self, near: Found, key: Distances, own_key: Distances) -> tuple[Numbers, Distances]:
        """The first eligible ones (N,) among the nearest few of all tokens, and their distances (N,)."""
        tokens, distance = np.empty(self.size, np.int64), np.empty(self.size)
        self.run(self.loops.first_eligible, self.size, _MANY_ROWS, *near, key, own_key, tokens, distance)
        return tokens, distance

    def compare_on_grid(self, grid: Size, farthest: float) -> None:
        """Measure pairs roughly in the smallest disk beyond which nothing is as near as `farthest`."""
        least, short = (float(part) for part in stretch(torch.from_numpy(self.places)[None], grid))
        for radius in range(1, _LARGEST_RADIUS + 1):
            cells = disk(radius, grid)
            bound = self.weight * (least * cells.gap * (1 - 1e-9) - short * (1 + 1e-6))
            if bound > farthest:
                break
        else:
            return
        # The nearest first: few of the others get among the nearest.
        half = np.array(sorted(cells.half, key=lambda offset: math.hypot(*offset)), np.int64)
        shifts, rough = half @ np.array([grid[1], 1]), np.empty((len(half), self.size), np.float32)
        about = (self.values, self.places, self.weight)
        self.run(self.loops.grid_distances, self.size, _MANY_ROWS, *about, shifts, rough)
        self.rough = (self.loops.nearest_on_grid, (np.array(grid), half, rough, bound), _MANY_ROWS)

    def compare_all(self, points: Points, number: int) -> None:
        """Measure all pairs of sample `number` of `points` roughly by one matrix product."""
        tokens = points.numbers()[number]
        table = points.table[tokens[0] : tokens[-1] + 1]
        rough, norms = linear(points.partners(tokens), table).numpy(), table[:, -2].sqrt()
        error = points.square_error(norms + norms.amax()).double().numpy()
        self.rough, self.spare = (self.loops.nearest_by_products, (rough, error), _ROWS), _SPARE


def _side(extent: Distances, tokens: int) -> float:
    """Side of square cells that hold `_IN_A_CELL` of N tokens spread evenly over a rectangle or a line."""
    area = float(extent[0] * extent[1])
    longest = float(extent.max())
    # No more cells along a line than tokens, however thin the rectangle.
    side = max(math.sqrt(area * _IN_A_CELL / tokens), longest * _IN_A_CELL / tokens)
    return side if side > 0 else 1.0


def available() -> bool:
    """Whether there are compiled loops: numba is installed, and `EFNET_NATIVE=0` does not forbid them."""
    forbidden = os.environ.get("EFNET_NATIVE") == "0" or _forget.cache_info().currsize > 0
    return not forbidden and kernels() is not None


def cluster(points: Points, count: int, k: int, grid: Size | None) -> tuple[Tensor, Tensor] | None:
    """Assignment (B, N) and centres (B, M) of a clustering; None where matrix products are to find them.

    `points`: the tokens. `count`: M. `k`: neighbours that make the density, the token itself one of them; at
    most N. `grid`: (h, w), if the tokens are the cells of a regular grid.
    """
    planar = points.places is None or points.places.shape[1] == 2
    if points.device.type != "cpu" or points.values.dtype != torch.float32 or k < 2 or not planar:
        return None
    if points.places is None and points.tokens > _FEW:
        return None
    loops = kernels() if available() else None
    if loops is None:
        return None
    try:
        return _by_loops(loops, points, count, k, grid)
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        # The loops touch no file: the disk is full, or a file of numba's cache is damaged.
        _forget(f"{type(error).__name__}: {error}")
        return None


@lru_cache(maxsize=1)
def _forget(reason: str) -> None:
    """Warn once, and use no compiled loops from now on: `available` sees that this was called."""
    warnings.warn(
        f"clustering goes on without compiled loops: numba's cache cannot be used ({reason}); "
        "delete its folder (NUMBA_CACHE_DIR) or make room",
        stacklevel=2,
    )


def _by_loops(
    loops: ModuleType, points: Points, count: int, k: int, grid: Size | None
) -> tuple[Tensor, Tensor] | None:
    samples = []
    for number in range(points.batch):
        search = _search(loops, points, number)
        near = None if search is None else _neighbors(search, k, grid)
        if search is None or near is None:
            return None
        centers = _centers(search, near, count, k)
        samples.append((torch.from_numpy(_assign(search, near, centers)), torch.from_numpy(centers)))
    assignment, centers_of = zip(*samples, strict=True)
    return torch.stack(assignment), torch.stack(centers_of)


def _search(loops: ModuleType, points: Points, number: int) -> Search | None:
    """The tokens of a sample; None if a position is not finite, or an area would not be one."""
    part = slice(number * points.tokens, (number + 1) * points.tokens)
    values = points.values[part].detach().contiguous().numpy()
    if points.places is None:
        search = Search(loops, values, np.zeros((points.tokens, 2)), 0.0)
        search.compare_all(points, number)
        return search
    places = np.ascontiguousarray(points.places[part].detach().numpy(), np.float64)
    extent = np.ptp(places.T.copy(), 1).max() if np.isfinite(places).all() else np.inf
    if not (extent == 0 or _SMALLEST < extent < 1 / _SMALLEST):
        return None
    return Search(loops, values, places, points.spatial_weight)


def _neighbors(search: Search, k: int, grid: Size | None) -> Found | None:
    """The nearest few of all tokens; None where too many would have to be measured."""
    out = search.found(min(k - 1 + search.spare, search.size - 1))
    if search.rough is None and search.size > _SAMPLE:
        rows = search.cells.order[:: search.size // _SAMPLE].copy()
        measured = search.nearest(rows, out, k - 1)
        if search.size > _FEW and measured > _WORTH * search.size * len(rows):
            return None
        if grid is not None:
            farthest = float(np.quantile(out.distance[rows, k - 2], 1 - _TOLERATED))
            search.compare_on_grid(grid, farthest)
    search.nearest(search.cells.order, out, k - 1)
    return out


def _centers(search: Search, near: Found, count: int, k: int) -> Numbers:
    """The M tokens of largest density times separation (equations 2 and 3), ascending."""
    key = -mean_square(torch.from_numpy(near.distance[:, : k - 1]), k).numpy()
    nearest, apart = search.first_eligible(near, key, key)
    apart = np.minimum(apart, _FARTHEST)
    # A rough score decides most tokens; the others get the one that is rounded alike everywhere.
    rough = np.exp(key) * apart
    low = np.maximum(rough * (1 - SLACK) - UNDERFLOW, 0)
    high = np.where(nearest < search.size, rough * (1 + SLACK) + UNDERFLOW, np.inf)
    # The densest token, than which none is denser, is always a centre.
    densest = int(key.argmax())
    low[densest] = high[densest] = np.inf
    rough_scores = Bounds(torch.from_numpy(low), torch.from_numpy(high))
    chosen, open_, rival = (part[0].numpy() for part in select(rough_scores, 1, count))
    candidates = np.flatnonzero(open_)
    density = np.zeros(search.size)
    density[candidates] = exponential(torch.from_numpy(key[candidates])).numpy()
    known = np.flatnonzero(open_ & np.isfinite(high))
    low[known] = density[known] * apart[known]
    asked = np.flatnonzero(open_ & np.isinf(high) & np.isfinite(low))
    if len(asked):
        enough = np.full(search.size, np.inf)
        if rival > 0:
            # What is that far from all denser ones is a centre, however far they are.
            enough[asked] = rival * (1 + 1e-12) / np.maximum(density[asked], 1 / _FARTHEST)
        denser = search.found(1 + search.spare)
        search.nearest(asked, denser, 1, key=key, own_key=key, enough=enough)
        least = np.minimum(denser.distance[asked, 0], denser.floor[asked])
        low[asked] = density[asked] * np.minimum(least, _FARTHEST)
    best = candidates[np.argsort(-low[candidates], kind="stable")[: count - int(chosen.sum())]]
    return np.sort(np.concatenate([np.flatnonzero(chosen), best]))


def _assign(search: Search, near: Found, centers: Numbers) -> Numbers:
    """(N,) position in `centers` of every token's nearest centre, of equally near ones the first."""
    is_center = np.zeros(search.size)
    is_center[centers] = 1.0
    half = np.full(search.size, 0.5)
    nearest, _ = search.first_eligible(near, is_center, half)
    nearest[centers] = centers
    asked = np.flatnonzero(nearest == search.size)
    if len(asked):
        exact = search.found(1 + search.spare)
        search.nearest(asked, exact, 1, search.cells_of(centers), is_center, half)
        nearest[asked] = exact.tokens[asked, 0]
    number = np.empty(search.size, np.int64)
    number[centers] = np.arange(len(centers))
    return number[nearest]
