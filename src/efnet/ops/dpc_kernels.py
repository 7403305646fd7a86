"""Searches of a clustering as compiled loops: the nearest few of a token, proved by the spatial term.

EFNet (arXiv 2501.10958), equations 1-3. Tokens are sorted into square cells by their positions. A search
looks at ever larger blocks of cells around a token's own, until no token beyond can be nearer; it measures a
candidate's features only where its position alone does not rule it out, and stops half-way where their sum
does. Importing this module needs numba.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

from efnet.ops.dpc_arithmetic import LANES

_F = TypeVar("_F", bound=Callable[..., Any])

_BLOCK = np.uint64(64)
"""Channels summed before looking whether they suffice to rule a candidate out."""


def compiled(fast: bool = False) -> Callable[[_F], _F]:
    """Compile a function at its first call; without the interpreter's lock, kept for the next process.

    What is kept is found by the file that defines the function: after a change here, loops of another file
    that call these (`dpc_kernels_rough`) stay as they were until what is kept is deleted.
    """
    # Sums may be reordered, in the same way for every pair; infinity keeps its meaning.
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"} if fast else False}

    def decorate(function: _F) -> _F:
        try:
            function = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder to keep it in
            function = numba.njit(**options)(function)
        return function

    return decorate


@compiled(fast=True)
def _square(values: Any, i: int, j: int, ceiling: float) -> float:
    """About the squared distance of rows i and j, or a part of it that exceeds `ceiling`."""
    # Of an index without sign the compiler knows that it does not count from the end, and can use vectors.
    first, channels, one = np.uint64(0), np.uint64(values.shape[1]), np.uint64(1)
    own, other = values[i], values[j]
    total = 0.0
    while first < channels:
        last = min(first + _BLOCK, channels)
        part = 0.0
        c = first
        while c < last:
            difference = np.float64(own[c]) - np.float64(other[c])
            part += difference * difference
            c += one
        total += part
        if total > ceiling:
            return total
        first = last
    return total


@compiled()
def _distance(values: Any, places: Any, weight: float, i: int, j: int, lanes: Any) -> float:
    """Equation 1, rounded as by `Points.apart`: the same sums in the same order; `lanes` is scratch."""
    first, channels, width = np.uint64(0), np.uint64(values.shape[1]), np.uint64(LANES)
    own, other = values[i], values[j]
    for lane in range(LANES):
        lanes[lane] = 0.0
    while first + width <= channels:
        for lane in range(LANES):
            c = first + np.uint64(lane)
            difference = np.float64(own[c]) - np.float64(other[c])
            lanes[lane] += difference * difference
        first += width
    for lane in range(channels - first):
        c = first + np.uint64(lane)
        difference = np.float64(own[c]) - np.float64(other[c])
        lanes[lane] += difference * difference
    half = LANES // 2
    while half:
        for lane in range(half):
            lanes[lane] += lanes[lane + half]
        half //= 2
    down, right = places[j, 0] - places[i, 0], places[j, 1] - places[i, 1]
    spatial = math.sqrt(down * down + right * right) * weight
    return math.sqrt(lanes[0]) * (1 / math.sqrt(values.shape[1])) + spatial


@compiled()
def sort_into_cells(cell: Any, starts: Any, order: Any) -> None:
    """Sort tokens by cell.

    Args:
        cell: (N,) the cell of each token.
        starts: (cells + 1,) zeros; filled with where in `order` each cell begins.
        order: (N,), filled with 0 to N - 1, within a cell ascending.
    """
    for token in range(len(cell)):
        starts[cell[token] + 1] += 1
    for number in range(len(starts) - 1):
        starts[number + 1] += starts[number]
    place = starts.copy()
    for token in range(len(cell)):
        order[place[cell[token]]] = token
        place[cell[token]] += 1


@compiled()
def insert(tokens: Any, distance: Any, i: int, token: int, apart: float) -> None:
    """Put a token where it belongs among the few of row i, of which the farthest falls out."""
    slot = tokens.shape[1] - 1
    while slot > 0 and (
        apart < distance[i, slot - 1] or (apart == distance[i, slot - 1] and token < tokens[i, slot - 1])
    ):
        tokens[i, slot] = tokens[i, slot - 1]
        distance[i, slot] = distance[i, slot - 1]
        slot -= 1
    tokens[i, slot] = token
    distance[i, slot] = apart


@compiled()
def is_eligible(key: Any, own_key: float, i: int, j: int) -> bool:
    """Whether j may answer a question about i: of the larger key, or of the same and before it."""
    return j != i and (key[j] > own_key or (key[j] == own_key and j < i))


@compiled()
def first_eligible(
    near_tokens: Any, near_distance: Any, floor: Any, first: int, last: int, key: Any, own_key: Any,
    tokens: Any, distance: Any,
) -> int:  # fmt: skip
    """The first eligible one of each token's nearest few.

    Args:
        near_tokens: (N, count) ascending by distance and number; N: none.
        near_distance: (N, count).
        floor: (N,) what is not among the few is at least that far.
        first: token to begin with,
        last: and the one to stop before.
        key: (N,) float64 and
        own_key: (N,) float64, as of `nearest`.
        tokens: (N,) filled; N: it may be among those that are not among the few.
        distance: (N,) filled; where there is none, the floor.

    Returns:
        0.
    """
    for i in range(first, last):
        tokens[i] = len(tokens)
        distance[i] = floor[i]
        for slot in range(near_tokens.shape[1]):
            j = near_tokens[i, slot]
            if j == len(tokens):
                break
            if is_eligible(key, own_key[i], i, j):
                # As far as the floor another one of a smaller number may be.
                if near_distance[i, slot] < floor[i] or floor[i] == np.inf:
                    tokens[i] = j
                    distance[i] = near_distance[i, slot]
                break
    return 0


@compiled()
def _look(
    values: Any, places: Any, weight: float, farness: float, scale: float, order: Any, spots: Any,
    first: int, last: int, key: Any, own_key: float, i: int, lanes: Any, tokens: Any, distance: Any,
) -> int:  # fmt: skip
    """Compare token i with the tokens `order[first:last]`; returns how many were measured.

    `farness` is a little more than 1 / weight, so that rounding rules nothing out; infinite without a weight.
    """
    measured = 0
    worst = tokens.shape[1] - 1
    limit = distance[i, worst]
    y, x = places[i, 0], places[i, 1]
    farthest = (limit * farness) ** 2
    for slot in range(first, last):
        down, right = spots[slot, 0] - y, spots[slot, 1] - x
        square = down * down + right * right
        if square > farthest:
            continue
        j = order[slot]
        if not is_eligible(key, own_key, i, j):
            continue
        measured += 1
        spatial = weight * math.sqrt(square)
        left = (limit - spatial + 1e-8 * limit) * scale  # what rounding cannot make up for
        ceiling = left * left
        if _square(values, i, j, ceiling) > ceiling:
            continue
        apart = _distance(values, places, weight, i, j, lanes)
        if apart < limit or (apart == limit and j < tokens[i, worst]):
            insert(tokens, distance, i, j, apart)
            limit = distance[i, worst]
            farthest = (limit * farness) ** 2
    return measured


@compiled()
def _half_width(own: float, row: int, reach: float) -> float:
    """How far to either side, in cells, a circle goes in a row of cells; negative: nowhere."""
    above = max(0.0, row - own, own - row - 1)
    return math.sqrt(reach * reach - above * above) if above <= reach else -1.0


@compiled()
def _beyond(cell: Any, shape: Any, outer: int) -> float:
    """How far, in cells, a token at `cell` (2,) is at least from tokens outside the block up to `outer`."""
    gap = np.inf
    for axis in range(2):
        own = int(cell[axis])
        if own - outer > 0:
            gap = min(gap, cell[axis] - (own - outer))
        if own + outer < shape[axis] - 1:
            gap = min(gap, own + outer + 1 - cell[axis])
    return max(0.0, gap - 1e-9)


@compiled()
def nearest(
    values: Any, places: Any, weight: float, cells: Any, shape: Any, side: float,
    starts: Any, order: Any, spots: Any,
    rows: Any, first: int, last: int, key: Any, own_key: Any, proved: int, enough: Any,
    tokens: Any, distance: Any, floor: Any,
) -> int:  # fmt: skip
    """The nearest eligible tokens of some rows of one sample, by distance and then by number.

    Args:
        values: (N, C) float32 features.
        places: (N, 2) float64 positions.
        weight: of the spatial distance.
        cells: (N, 2) float64 positions in cells.
        shape: (2,) cells along each axis.
        side: of a cell, in the unit of positions.
        starts: (cells + 1,) where in `order` each cell begins.
        order: (S,) the tokens to compare with, sorted by cell.
        spots: (S, 2) float64 their positions.
        rows: (n,) the tokens asked about, of which those from `first` to before `last` here.
        first: as said.
        last: as said.
        key: (N,) float64; token j is eligible for token i if its key is larger than `own_key[i]`, or the same
            and j less than i.
        own_key: (N,) float64.
        proved: a search ends when so many of the nearest are certain,
        enough: (N,) or when all that it has not seen is at least that far.
        tokens: (N, count), of `rows` filled; N: none.
        distance: (N, count) float64, of `rows` filled; infinite: none.
        floor: (N,) float64, of `rows` filled: what is not among the few is at least that far.

    Returns:
        how many candidates were measured.
    """
    measured = 0
    scale = math.sqrt(values.shape[1])
    worst = tokens.shape[1] - 1
    farness = (1 + 1e-9) / weight if weight > 0 else np.inf
    lanes = np.empty(LANES)
    for n in range(first, last):
        i = rows[n]
        u, v = cells[i, 0], cells[i, 1]
        for slot in range(tokens.shape[1]):
            tokens[i, slot] = len(values)
            distance[i, slot] = np.inf
        middle_row, middle_column = int(u), int(v)
        # A block of cells up to `outer` away from the middle has been looked at up to `inner`.
        inner, outer = -1, 1
        bound = -1.0
        while bound < np.inf and bound < enough[i] and not distance[i, proved - 1] < bound:
            for turn in range(2 * outer + 1):  # the nearest rows first
                row = middle_row + ((turn + 1) // 2 if turn % 2 else -(turn // 2))
                if not 0 <= row < shape[0]:
                    continue
                reach = distance[i, worst] * farness / side + 1e-9 if weight > 0 else np.inf
                width = _half_width(u, row, reach)
                left = int(max(max(middle_column - outer, 0), v - width))
                right = int(min(min(middle_column + outer, shape[1] - 1), v + width))
                line = row * shape[1]
                new = (turn + 1) // 2 > inner
                ends = (right, right) if new else (middle_column - inner - 1, right)
                begins = (left, right + 1) if new else (left, middle_column + inner + 1)
                for part in range(2):
                    first_cell, last_cell = max(begins[part], left), min(ends[part], right)
                    if first_cell <= last_cell:
                        measured += _look(
                            values, places, weight, farness, scale, order, spots,
                            starts[line + first_cell], starts[line + last_cell + 1],
                            key, own_key[i], i, lanes, tokens, distance,
                        )  # fmt: skip
            gap = _beyond(cells[i], shape, outer)
            bound = weight * side * gap * (1 - 1e-9) if gap < np.inf else np.inf
            inner = outer
            # As far as the farthest of the few, but not from none to all.
            wanted = distance[i, worst] * farness / side if weight > 0 else np.inf
            outer = 2 * outer + 1 if wanted >= 2 * outer else max(outer, int(wanted)) + 1
        floor[i] = min(bound, distance[i, worst])
    return measured


@compiled()
def measure(
    values: Any, places: Any, weight: float, rows: Any, first: int, last: int, tokens: Any, distance: Any
) -> int:
    """Measure what was found roughly, and sort it by distance and number.

    Args:
        values: (N, C) float32 features.
        places: (N, 2) float64 positions.
        weight: of the spatial distance.
        rows: (n,) tokens, of which those from `first` to before `last` here.
        first: as said.
        last: as said.
        tokens: (N, count), of `rows` sorted.
        distance: (N, count) float64, of `rows` filled.

    Returns:
        0.
    """
    lanes = np.empty(LANES)
    found = np.empty(tokens.shape[1], np.int64)
    for n in range(first, last):
        i = rows[n]
        for slot in range(len(found)):
            found[slot] = tokens[i, slot]
            tokens[i, slot] = len(values)
            distance[i, slot] = np.inf
        for j in found:
            if j < len(values):
                insert(tokens, distance, i, j, _distance(values, places, weight, i, j, lanes))
    return 0
