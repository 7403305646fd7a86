"""Equations 1-3 as intervals: what float32 distances decide for certain.

EFNet, arXiv 2501.10958. Densities, separations and scores are kept as lower and upper bounds; only tokens
whose bounds leave the set of centres, or their own centre, open have to be looked at in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from efnet.ops.dpc_points import ROUNDED, Points
from efnet.ops.dpc_scan import Block, Scan
from efnet.ops.dpc_select import smallest

_SLACK = 1e-12
"""Covers the rounding of float64 scores."""

_SHIFT = 2.0**100
"""Makes any difference of two bounded mean squares larger than any distance."""


class Bounds(NamedTuple):
    """Lower and upper bounds, (B * N,) float64."""

    low: Tensor
    high: Tensor


def mean_squares(scan: Scan, points: Points, k: int) -> tuple[Bounds, Tensor]:
    """Mean of the squared distances to the k nearest tokens, itself counted: -log of equation 2.

    Args:
        scan: the distances.
        points: the tokens.
        k: neighbours, the token itself one of them.

    Returns:
        the bounds, and (B * N,) how much farther than its k-th neighbour a token's window reaches.
    """
    low, high, margin = _columns(points, 3)
    slack = ROUNDED + k * 2.0**-23  # squares, and a sum of k of them, in float32
    for block in scan.blocks():
        nearest = smallest(block.distance, k - 1) if k > 1 else []
        total_low = torch.zeros_like(block.error)
        total_high = torch.zeros_like(block.error)
        for distance in nearest:
            total_low += torch.minimum(block.low(distance), block.bound).square()
            total_high += block.high(distance).square()
        rows = block.rows.flatten()
        low[rows] = (total_low * ((1 - slack) / k)).flatten()
        high[rows] = (total_high * ((1 + slack) / k)).flatten()
        margin[rows] = (block.bound - block.high(nearest[-1]) if nearest else block.bound).flatten()
    return _bounds(low, high), margin[:-1]


def share_beyond(scan: Scan, k: int) -> float:
    """Share of the rows of a scan whose k nearest, themselves counted, may lie beyond what it compares."""
    beyond = [
        (block.bound < block.high(smallest(block.distance, max(1, k - 1))[-1]))[block.error.isfinite()]
        for block in scan.blocks()
    ]
    return float(torch.cat(beyond).float().mean())


def separations(scan: Scan, points: Points, squares: Bounds) -> Bounds:
    """Equation 3, the distance to the nearest denser token, infinite where none is known to be denser."""
    low, high = _columns(points, 2)
    # A difference of these keys is positive where the column is not denser than the row.
    possible_column, certain_row = _keys(squares.low, lower=True), _keys(squares.low, lower=True)
    certain_column = _keys(squares.high, lower=False)
    possible_row = certain_column
    # "Certainly" is strict: of equal bounds neither is the denser one.
    certain_row = torch.nextafter(certain_row, torch.full_like(certain_row, -torch.inf))
    for block in scan.blocks():
        rows = block.rows.flatten()
        distance = _unless(block, possible_column, possible_row)
        low[rows] = torch.minimum(block.low(distance), block.bound).flatten()
        distance = _unless(block, certain_column, certain_row)
        high[rows] = block.high(distance).masked_fill(distance >= 2.0**70, torch.inf).flatten()
    return _bounds(low, high)


def _unless(block: Block, column: Tensor, row: Tensor) -> Tensor:
    """(t, R) least distance of a row among columns whose key does not exceed the row's; else huge."""
    penalty = block.at(column) - row[block.rows][:, None]
    return torch.maximum(penalty, block.distance).amin(1)


def _keys(squares: Tensor, lower: bool) -> Tensor:
    """(B * N + 1,) mean squares as float32 keys whose differences are either <= 0 or huge.

    Within 2^-26 of zero and beyond 700 the exponential may not tell densities apart: all one.
    """
    squares = squares.float()
    low, high = squares.new_tensor(0.0), squares.new_tensor(700.0)
    squares = torch.where(squares < 2.0**-26, low if lower else low + 2.0**-26, squares).minimum(high)
    return torch.cat([squares, squares.new_zeros(1)]) * _SHIFT


def scores(squares: Bounds, separation: Bounds) -> Bounds:
    """Density times separation."""
    return Bounds(
        ((-squares.high).exp() * separation.low * (1 - _SLACK)).nan_to_num(0.0, torch.inf),
        ((-squares.low).exp() * separation.high * (1 + _SLACK)).nan_to_num(torch.inf, torch.inf) + 1e-300,
    )


def select(score: Bounds, batch: int, count: int) -> tuple[Tensor, Tensor]:
    """Which tokens are certainly among the `count` of largest score, and which may be: (B, N) each."""
    low, high = score.low.view(batch, -1), score.high.view(batch, -1)
    if count == low.shape[1]:
        return torch.ones_like(low, dtype=torch.bool), torch.zeros_like(low, dtype=torch.bool)
    rival = high.topk(count + 1, 1).values[:, -1:]
    least = low.topk(count, 1).values[:, -1:]
    chosen = low > rival
    return chosen, ~chosen & ~(high < least)


def nearest_centers(scan: Scan, points: Points, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of every token.

    Args:
        scan: the distances.
        points: the tokens.
        centers: (B * N,) whether a token is a centre.

    Returns:
        (B * N,) the centre as a token number, (B * N,) whether that is certain. Of a centre itself
        neither means anything.
    """
    nearest = centers.new_zeros(points.none + 1, dtype=torch.int64)
    certain = centers.new_zeros(points.none + 1)
    barrier = torch.where(centers, 0.0, torch.inf)
    barrier = torch.cat([barrier, barrier.new_full((1,), torch.inf)])
    for block in scan.blocks():
        rows = block.rows.flatten()
        distance = torch.maximum(block.distance, block.at(barrier))
        best, column = distance.min(1)
        second = distance.scatter_(1, column[:, None], torch.inf).amin(1)
        nearest[rows] = block.token(column).flatten()
        certain[rows] = (block.high(best) < torch.minimum(block.low(second), block.bound)).flatten()
    return nearest[:-1], certain[:-1]


def _bounds(low: Tensor, high: Tensor) -> Bounds:
    """Those of all tokens; what is not a number is unbounded."""
    return Bounds(
        low[:-1].double().nan_to_num(0.0, torch.inf), high[:-1].double().nan_to_num(torch.inf, torch.inf)
    )


def _columns(points: Points, count: int) -> Tensor:
    """`count` float32 results for every token and for none."""
    return torch.empty(count, points.none + 1, device=points.device)
