"""The clustering on a CPU by compiled loops, where numba is installed: the same, with fewer distances.

EFNet (arXiv 2501.10958), equations 1-3. Matrix products have to compare tokens in rectangles; a loop compares
a token with those that its position does not rule out, and no more. Where positions rule out too few of many
tokens, products are the faster: then `cluster` does nothing.
"""

from __future__ import annotations

import os
import pickle
import warnings
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from efnet.ops.dpc_arithmetic import mean_square
from efnet.ops.dpc_grid import Size
from efnet.ops.dpc_points import Points
from efnet.ops.dpc_search import Distances, Found, Numbers, Products, Search, kernels, lattice

_SAMPLE = 64
"""Tokens that tell how many candidates a search measures."""

_FEW = 1536
"""Up to so many tokens loops are the faster, however many they have to compare."""

_SPARE = 6
"""Tokens kept beyond the neighbours where products have found them."""

_WORTH = 1 / 8
"""Share of tokens to be measured from which on matrix products are the faster."""

_TOLERATED = 0.03
"""Share of tokens whose neighbours may lie beyond a disk on a regular grid."""

_SMALLEST = 1e-150
"""Of less the square is no number any more."""

_FARTHEST = float(np.finfo(np.float64).max)
"""No distance is larger."""


def available() -> bool:
    """Whether there are compiled loops: numba is installed, and `EFNET_NATIVE=0` does not forbid them."""
    forbidden = os.environ.get("EFNET_NATIVE") == "0" or _forget.cache_info().currsize > 0
    return not forbidden and kernels() is not None


def cluster(points: Points, count: int, k: int, grid: Size | None) -> tuple[Tensor, Tensor] | None:
    """Assignment (B, N) and centres (B, M) of a clustering; None where matrix products are to find them.

    Args:
        points: the tokens.
        count: M.
        k: neighbours that make the density, the token itself one of them; at most N.
        grid: (h, w), if the tokens are the cells of a regular grid.
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
        # The loops touch no file: a full disk, or a damaged one of those that numba keeps.
        _forget(f"{type(error).__name__}: {error}")
        return None


@lru_cache(maxsize=1)
def _forget(reason: str) -> None:
    """Go on without compiled loops, and say so once: what is remembered is that it was called."""
    warnings.warn(
        f"clustering goes on without compiled loops: numba's cache cannot be used ({reason}); "
        "delete its folder (NUMBA_CACHE_DIR) or make room",
        stacklevel=2,
    )


def _by_loops(
    loops: tuple[ModuleType, ModuleType], points: Points, count: int, k: int, grid: Size | None
) -> tuple[Tensor, Tensor] | None:
    samples = []
    for number in range(points.batch):
        search = _search(loops, points, number)
        near = None if search is None else _neighbors(loops[1], search, k, grid)
        if search is None or near is None:
            return None
        centers = _centers(points, search, near, count, k)
        samples.append((torch.from_numpy(_assign(search, near, centers)), torch.from_numpy(centers)))
    assignment, centers_of = zip(*samples, strict=True)
    return torch.stack(assignment), torch.stack(centers_of)


def _search(loops: tuple[ModuleType, ModuleType], points: Points, number: int) -> Search | None:
    """The tokens of a sample; None if a position is no number, or an area would not be one."""
    part = slice(number * points.tokens, (number + 1) * points.tokens)
    values = points.values[part].detach().contiguous().numpy()
    if points.places is None:
        search = Search(loops[0], values, np.zeros((points.tokens, 2)), 0.0)
        search.rough = Products(loops[1], points, number)
        search.spare = _SPARE
        return search
    places = np.ascontiguousarray(points.places[part].detach().numpy(), np.float64)
    extent = np.ptp(places, 0).max() if np.isfinite(places).all() else np.inf
    if not (extent == 0 or _SMALLEST < extent < 1 / _SMALLEST):
        return None
    return Search(loops[0], values, places, points.spatial_weight)


def _neighbors(loops: ModuleType, search: Search, k: int, grid: Size | None) -> Found | None:
    """The nearest few of all tokens; None where too many would have to be measured."""
    out = search.found(min(k - 1 + search.spare, search.size - 1))
    if search.rough is None and search.size > _SAMPLE:
        rows = search.cells.order[:: search.size // _SAMPLE].copy()
        measured = search.nearest(rows, out, k - 1)
        if search.size > _FEW and measured > _WORTH * search.size * len(rows):
            return None
        if grid is not None:
            farthest = float(np.quantile(out.distance[rows, k - 2], 1 - _TOLERATED))
            search.rough = lattice(loops, search, grid, farthest)
    search.nearest(search.cells.order, out, k - 1)
    return out


def _centers(points: Points, search: Search, near: Found, count: int, k: int) -> Numbers:
    """The M tokens of largest density times separation (equations 2 and 3), ascending."""
    squares = mean_square(torch.from_numpy(near.distance[:, : k - 1]), k)
    key = -squares.numpy()

    def score(tokens: Numbers, separation: Distances) -> Distances:
        finite = np.minimum(separation, _FARTHEST)
        return points.scores(squares[torch.from_numpy(tokens)], torch.from_numpy(finite)).numpy()

    nearest, apart = search.first_eligible(near, key, key)
    low = score(np.arange(search.size), apart)
    high = np.where(nearest < search.size, low, np.inf)
    # The densest token, than which none is denser, is always a centre.
    densest = int(key.argmax())
    low[densest] = high[densest] = np.inf
    chosen, open_, rival = _select(low, high, count)
    asked = np.flatnonzero(open_ & np.isinf(high))
    if len(asked):
        enough = np.full(search.size, np.inf)
        if rival > 0:
            # What is that far from all denser ones is a centre, however far they are.
            density = score(asked, np.ones(len(asked)))
            enough[asked] = rival * (1 + 1e-12) / np.maximum(density, 1 / _FARTHEST)
        denser = search.found(1 + search.spare)
        search.nearest(asked, denser, 1, key=key, own_key=key, enough=enough)
        low[asked] = score(asked, np.minimum(denser.distance[asked, 0], denser.floor[asked]))
    candidates = np.flatnonzero(open_)
    best = candidates[np.argsort(-low[candidates], kind="stable")[: count - int(chosen.sum())]]
    return np.sort(np.concatenate([np.flatnonzero(chosen), best]))


def _select(
    low: Distances, high: Distances, count: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], float]:
    """Which tokens are certainly among those of largest score, which may be; and the score to exceed."""
    if count == len(low):
        return np.ones(count, bool), np.zeros(count, bool), 0.0
    rival = -float(np.partition(-high, count)[count])
    least = -float(np.partition(-low, count - 1)[count - 1])
    chosen = low > rival
    return chosen, ~chosen & ~(high < least), rival


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
