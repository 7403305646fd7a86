"""The nearest few of a token by distances known roughly, to within a bound of their error, as compiled loops.

EFNet (arXiv 2501.10958), equations 1 and 2. On a regular grid each pair of cells within a radius is measured
once, in float32, in the order in which the features lie in memory; where positions rule nothing out, a matrix
product measures all pairs. Importing this module needs numba.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from efnet.ops.dpc_kernels import compiled, insert, is_eligible

_ROUNDED = 2.0**-20
"""Bound of the relative error of a float32 distance whose square was known."""

_UNDERFLOW = 1e-18
"""More than what squares below the smallest float32 number add to a distance."""


@compiled(fast=True)
def grid_distances(
    values: Any, places: Any, weight: float, shifts: Any, first: int, last: int, out: Any
) -> int:
    """Distances of the tokens of a regular grid to those a fixed shift further on, in float32.

    Args:
        values: (N, C) float32 features.
        places: (N, 2) float64 positions.
        weight: of the spatial distance.
        shifts: (S,) int64, positive.
        first: token to begin with,
        last: and the one to stop before.
        out: (S, N) float32, filled where both tokens exist.

    Returns:
        0.
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
    grid: Any, half: Any, rough: Any, channels: int, weight: float, bound: float,
    rows: Any, first: int, last: int, key: Any, own_key: Any, tokens: Any, distance: Any, floor: Any,
) -> int:  # fmt: skip
    """The nearest eligible tokens of some cells of a regular grid, found by distances in float32.

    Args:
        grid: (2,) its rows and columns.
        half: (S, 2) int64 offsets (rows, columns) of one half plane, each later in the grid.
        rough: (S, N) float32 their distances, as of `grid_distances`.
        channels: of the features.
        weight: of the spatial distance.
        bound: no token at any other offset is nearer.
        rows: (n,) the tokens asked about, of which those from `first` to before `last` here.
        first: as said.
        last: as said.
        key: (N,) float64 and
        own_key: (N,) float64, as of `dpc_kernels.nearest`.
        tokens: (N, count), of `rows` filled; N: none.
        distance: (N, count) float64, of `rows` filled, to within float32; infinite: none.
        floor: (N,) float64, of `rows` filled: what is not among the few is at least that far.

    Returns:
        0.
    """
    # C + 2 roundings of a sum, halved by the root, and those of the rest; twice as many.
    relative = (channels + 24) * 2.0**-24
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
        for slot in range(count):
            tokens[i, slot] = few_tokens[0, slot]
            distance[i, slot] = few[0, slot]
        floor[i] = min(bound, few[0, count] * (1 - relative) - _UNDERFLOW * (1 + weight))
    return 0


@compiled()
def nearest_by_products(
    rough: Any, error: Any, among: Any, rows: Any, first: int, last: int, key: Any, own_key: Any,
    tokens: Any, distance: Any, floor: Any,
) -> int:  # fmt: skip
    """The nearest eligible tokens of some tokens, found by products.

    Args:
        rough: (N, N) float32 squared distances.
        error: (N,) bound of the absolute error of a row.
        among: (S,) tokens that hold all that are eligible.
        rows: (n,) the tokens asked about, of which those from `first` to before `last` here.
        first: as said.
        last: as said.
        key: (N,) float64 and
        own_key: (N,) float64, as of `dpc_kernels.nearest`.
        tokens: (N, count), of `rows` filled; N: none.
        distance: (N, count) float64, of `rows` filled, to within that error; infinite: none.
        floor: (N,) float64, of `rows` filled: what is not among the few is at least that far.

    Returns:
        0.
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
        for slot in range(count):
            tokens[i, slot] = few_tokens[0, slot]
            distance[i, slot] = math.sqrt(max(0.0, few[0, slot]))
        floor[i] = math.sqrt(max(0.0, few[0, count] - error[i])) * (1 - _ROUNDED)
    return 0
