"""Searches of a clustering as compiled loops: the nearest few tokens of each one, proved.

Tokens are sorted into square cells by their positions. A search looks at ever larger blocks of cells around a
token's own, until no token beyond can be nearer; it measures a candidate's features only where its position
alone does not rule it out, and stops half-way where their sum does. Rough distances, on a regular grid or by
a matrix product, spare most searches. Importing this module needs numba.

Loops share these arguments: `values` (N, C) float32 features; `places` (N, 2) float64 positions; `weight` of
the spatial distance; `rows` (n,) the tokens asked about, of which a call takes those from `first` to before
`last`; `among` (S,) tokens that hold all eligible ones; `key` and `own_key` (N,) float64: token j is eligible
for token i if its key is larger than `own_key[i]`, or the same and j less than i. They fill, for these rows,
`tokens` (N, count) the nearest by distance and then by number, N for none; `distance` (N, count) float64,
infinite for none; `floor` (N,): every other eligible token is at least that far.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped, unused-ignore]
from numba.core import cgutils, types
from numba.extending import intrinsic

from efnet.ops.clustering.distances import LANES, ROUNDED, UNDERFLOW

_F = TypeVar("_F", bound=Callable[..., Any])
_BLOCK = np.uint64(64)  # channels summed before looking whether they suffice to rule a candidate out


def compiled(fast: bool = False) -> Callable[[_F], _F]:
    """Compile a function at its first call, without the interpreter's lock; numba caches it on disk."""
    # `fast`: sums may be reordered and fused, which only what bounds may be; infinity keeps its meaning.
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


@intrinsic
def _sum_of_squares(_: Any, own: Any, other: Any) -> Any:
    """Sum the squared differences of contiguous float32 rows, in the order of `distances.ordered_sum`.

    The lanes are one vector: a loop over an array of lanes stores and loads it for every block of channels.
    """
    floats, doubles = (ir.VectorType(kind(), LANES) for kind in (ir.FloatType, ir.DoubleType))
    zero = ir.Constant(ir.IntType(32), 0)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = [
            context.make_array(kind)(context, builder, row)
            for kind, row in zip(signature.args, arguments, strict=True)
        ]
        channels = builder.extract_value(rows[0].shape, 0)
        total = cgutils.alloca_once(builder, doubles)  # type: ignore[no-untyped-call, unused-ignore]
        builder.store(ir.Constant(doubles, [0.0] * LANES), total)

        def add(pointers: list[Any], lanes: Any, kind: Any) -> None:
            """Add squared differences to the number or vector at `lanes`."""
            x, y = (builder.fpext(builder.load(pointer, align=4), kind) for pointer in pointers)
            difference = builder.fsub(x, y)
            square = builder.fmul(difference, difference)
            builder.store(builder.fadd(builder.load(lanes), square), lanes)

        blocks = builder.udiv(channels, channels.type(LANES))
        vectors = [builder.bitcast(row.data, floats.as_pointer()) for row in rows]
        with cgutils.for_range(builder, blocks) as loop:
            add([builder.gep(vector, [loop.index]) for vector in vectors], total, doubles)
        # The rest goes to single lanes, through memory: a copy, so that the loop above can use registers.
        lanes = cgutils.alloca_once(builder, doubles)  # type: ignore[no-untyped-call, unused-ignore]
        builder.store(builder.load(total), lanes)
        lane = builder.bitcast(lanes, ir.DoubleType().as_pointer())
        first = builder.mul(blocks, channels.type(LANES))
        with cgutils.for_range(builder, builder.sub(channels, first)) as loop:
            index = builder.add(first, loop.index)
            pointers = [builder.gep(row.data, [index]) for row in rows]
            add(pointers, builder.gep(lane, [loop.index]), ir.DoubleType())
        folded, half = builder.load(lanes), LANES // 2
        while half:
            lower, upper = (
                ir.Constant(ir.VectorType(zero.type, half), list(range(first, first + half)))
                for first in (0, half)
            )
            folded = builder.fadd(*(builder.shuffle_vector(folded, folded, part) for part in (lower, upper)))
            half //= 2
        return builder.extract_element(folded, zero)

    return types.float64(own, other), build


@compiled()
def _distance(values: Any, places: Any, weight: float, i: int, j: int) -> float:
    """Equation 1, rounded as by `Points.apart`: the same sums in the same order."""
    down, right = places[j, 0] - places[i, 0], places[j, 1] - places[i, 1]
    spatial = math.sqrt(down * down + right * right) * weight
    square: float = _sum_of_squares(values[i], values[j])  # type: ignore[call-arg, unused-ignore]
    return math.sqrt(square) * (1 / math.sqrt(values.shape[1])) + spatial


@compiled()
def sort_into_cells(cell: Any, starts: Any, order: Any) -> None:
    """Sort tokens by `cell` (N,): fill `starts` (cells + 1,), zeros, and `order` (N,), stable."""
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
    """Put a token in its place among the few of row i; the farthest falls out."""
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
    """Whether j may answer a question about i: its key is larger, or the same and j before i."""
    return j != i and (key[j] > own_key or (key[j] == own_key and j < i))


@compiled()
def first_eligible(
    first: int, last: int, near_tokens: Any, near_distance: Any, floor: Any, key: Any, own_key: Any,
    tokens: Any, distance: Any,
) -> int:  # fmt: skip
    """The first eligible one among the nearest few (N, count) of each token from `first` to before `last`.

    Fills `tokens` (N,), N where it may not be among the few, and `distance` (N,), then the floor. Returns 0.
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
    first: int, last: int, key: Any, own_key: float, i: int, exact: bool,
    rival: float, tokens: Any, distance: Any,
) -> tuple[int, float]:  # fmt: skip
    """Compare token i with the tokens `order[first:last]`; returns how many were measured, and the rival.

    Distances are rough unless `exact`. `rival`: the least distance of those turned away so far.
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
        semantic = _square(values, i, j, ceiling)
        if semantic > ceiling:
            continue
        apart = _distance(values, places, weight, i, j) if exact else math.sqrt(semantic) / scale + spatial
        if apart < limit or (apart == limit and j < tokens[i, worst]):
            rival = min(rival, limit)
            insert(tokens, distance, i, j, apart)
            limit = distance[i, worst]
            farthest = (limit * farness) ** 2
        else:
            rival = min(rival, apart)
    return measured, rival


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
def _measure(
    values: Any, places: Any, weight: float, rows: Any, first: int, last: int, tokens: Any, distance: Any
) -> None:
    """Measure what was found roughly, and sort it by distance and number."""
    found = np.empty(tokens.shape[1], np.int64)
    for n in range(first, last):
        i = rows[n]
        for slot in range(len(found)):
            found[slot] = tokens[i, slot]
            tokens[i, slot] = len(values)
            distance[i, slot] = np.inf
        for j in found:
            if j < len(values):
                insert(tokens, distance, i, j, _distance(values, places, weight, i, j))


@compiled()
def nearest(
    first: int, last: int, values: Any, places: Any, weight: float, cells: Any, shape: Any, side: float,
    starts: Any, order: Any, spots: Any, rows: Any, key: Any, own_key: Any, proved: int, enough: Any,
    tokens: Any, distance: Any, floor: Any,
) -> int:  # fmt: skip
    """The nearest eligible tokens, searched for in cells.

    Other arguments: see the module. `cells`: (N, 2) float64 positions in cells. `shape`: (2,) cells along
    each axis. `side`: of a cell, in the unit of positions. `starts`: (cells + 1,) where in `order` each cell
    begins. `order`: (S,) the tokens to compare with, sorted by cell. `spots`: (S, 2) float64 their positions.
    `proved`: a search ends when so many of the nearest are certain, `enough`: (N,) or when all that it has
    not seen is at least that far. Returns how many candidates were measured.
    """
    measured = 0
    scale = math.sqrt(values.shape[1])
    worst = tokens.shape[1] - 1
    farness = (1 + 1e-9) / weight if weight > 0 else np.inf
    # Rough distances come first. Where one that was turned away is as near as one that was kept, but for
    # rounding, a second search measures as what decides is measured.
    exact = False
    n = first
    while n < last:
        i = rows[n]
        u, v = cells[i, 0], cells[i, 1]
        for slot in range(tokens.shape[1]):
            tokens[i, slot] = len(values)
            distance[i, slot] = np.inf
        rival = np.inf
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
                        compared, rival = _look(
                            values, places, weight, farness, scale, order, spots,
                            starts[line + first_cell], starts[line + last_cell + 1],
                            key, own_key[i], i, exact, rival, tokens, distance,
                        )  # fmt: skip
                        measured += compared
            gap = _beyond(cells[i], shape, outer)
            bound = weight * side * gap * (1 - 1e-9) if gap < np.inf else np.inf
            inner = outer
            # As far as the farthest of the few, but not from none to all.
            wanted = distance[i, worst] * farness / side if weight > 0 else np.inf
            outer = 2 * outer + 1 if wanted >= 2 * outer else max(outer, int(wanted)) + 1
        floor[i] = bound
        exact = not exact and rival < np.inf and rival <= distance[i, worst] * (1 + 5e-10)
        if not exact:
            n += 1
    _measure(values, places, weight, rows, first, last, tokens, distance)
    for n in range(first, last):
        floor[rows[n]] = min(floor[rows[n]], distance[rows[n], worst])
    return measured


@compiled(fast=True)
def grid_distances(
    first: int, last: int, values: Any, places: Any, weight: float, shifts: Any, out: Any
) -> int:
    """Float32 distances of tokens of a regular grid to those `shifts` (S,) further on.

    Each pair is measured once, in the order of memory. Fills `out` (S, N) where both exist. Returns 0.
    """
    scale = np.float32(1 / math.sqrt(values.shape[1]))
    for n in range(len(shifts)):
        for i in range(first, min(last, len(values) - shifts[n])):
            j = i + shifts[n]
            total = np.float32(0)
            for c in range(values.shape[1]):
                difference = values[i, c] - values[j, c]
                total += difference * difference
            down, right = places[i, 0] - places[j, 0], places[i, 1] - places[j, 1]
            spatial = np.float32(weight * math.sqrt(down * down + right * right))
            out[n, i] = np.sqrt(total) * scale + spatial
    return 0


@compiled()
def nearest_on_grid(
    first: int, last: int, grid: Any, half: Any, rough: Any, bound: float,
    values: Any, places: Any, weight: float, among: Any, rows: Any, key: Any, own_key: Any,
    tokens: Any, distance: Any, floor: Any,
) -> int:  # fmt: skip
    """The nearest eligible tokens by `grid_distances`, then measured.

    Other arguments: see the module. `grid`: (2,) its rows and columns. `half`: (S, 2) int64 offsets (rows,
    columns) of one half plane, each later in the grid. `rough`: (S, N) float32 their distances. `bound`: no
    token at any other offset is nearer. Returns 0.
    """
    # C + 2 roundings of a sum, halved by the root, and those of the rest; twice as many.
    relative = (values.shape[1] + 24) * 2.0**-24
    count = tokens.shape[1]
    few_tokens = np.empty((1, count + 1), np.int64)
    few = np.empty((1, count + 1), np.float64)
    for number in range(first, last):
        i = rows[number]
        few_tokens[0] = len(tokens)
        few[0] = np.inf
        row, column = i // grid[1], i % grid[1]
        for n in range(len(half)):
            down, right = half[n, 0], half[n, 1]
            step = down * grid[1] + right
            if row + down < grid[0] and 0 <= column + right < grid[1]:
                apart = np.float64(rough[n, i])
                if apart < few[0, count] and is_eligible(key, own_key[i], i, i + step):
                    insert(few_tokens, few, 0, i + step, apart)
            if row >= down and 0 <= column - right < grid[1]:
                apart = np.float64(rough[n, i - step])
                if apart < few[0, count] and is_eligible(key, own_key[i], i, i - step):
                    insert(few_tokens, few, 0, i - step, apart)
        tokens[i] = few_tokens[0, :count]  # their distances are measured below
        floor[i] = min(bound, few[0, count] * (1 - relative) - UNDERFLOW * (1 + weight))
    _measure(values, places, weight, rows, first, last, tokens, distance)
    return 0


@compiled()
def nearest_by_products(
    first: int, last: int, rough: Any, error: Any,
    values: Any, places: Any, weight: float, among: Any, rows: Any, key: Any, own_key: Any,
    tokens: Any, distance: Any, floor: Any,
) -> int:  # fmt: skip
    """The nearest eligible tokens by a matrix product, then measured.

    Other arguments: see the module. `rough`: (N, N) float32 squared distances. `error`: (N,) bound of the
    absolute error of a row. Returns 0.
    """
    count = tokens.shape[1]
    few_tokens = np.empty((1, count + 1), np.int64)
    few = np.empty((1, count + 1), np.float64)
    for number in range(first, last):
        i = rows[number]
        few_tokens[0] = len(tokens)
        few[0] = np.inf
        limit = np.float32(np.inf)
        for j in among:
            if rough[i, j] < limit and is_eligible(key, own_key[i], i, j):
                insert(few_tokens, few, 0, j, np.float64(rough[i, j]))
                limit = np.float32(few[0, count])
        tokens[i] = few_tokens[0, :count]  # their distances are measured below
        floor[i] = math.sqrt(max(0.0, few[0, count] - error[i])) * (1 - ROUNDED)
    _measure(values, places, weight, rows, first, last, tokens, distance)
    return 0
