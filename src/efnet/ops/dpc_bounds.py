"""Equations 1-3 as intervals: what float32 distances decide for certain.

EFNet, arXiv 2501.10958. Densities, separations and scores are kept as lower and upper bounds; only tokens
whose bounds leave the set of centres, or their own centre, open have to be looked at in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from efnet.ops.dpc_points import ROUNDED
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


def mean_squares(scan: Scan, k: int) -> tuple[Bounds, Tensor]:
    """Mean of the squared distances to the k nearest tokens, itself counted: -log of equation 2.

    Args:
        scan: the distances.
        k: neighbours, the token itself one of them.

    Returns:
        the bounds, and (B * N,) how much farther than its k-th neighbour a token's window reaches.
    """
    block = scan.block()
    slack = ROUNDED + k * 2.0**-23  # squares, and a sum of k of them, in float32
    low = torch.zeros_like(block.error)
    high = torch.zeros_like(block.error)
    margin = block.bound
    for distance in smallest(block.distance, k - 1) if k > 1 else []:
        low += torch.minimum(block.low(distance), block.bound).square()
        high += block.high(distance).square()
        margin = block.bound - block.high(distance)
    return _bounds(low * ((1 - slack) / k), high * ((1 + slack) / k)), margin


def separations(scan: Scan, squares: Bounds) -> Bounds:
    """Equation 3, the distance to the nearest denser token, infinite where none is known to be denser."""
    # A difference of these keys is positive where the column is not denser than the row.
    possible_column, certain_row = _keys(squares.low, lower=True), _keys(squares.low, lower=True)
    certain_column = _keys(squares.high, lower=False)
    possible_row = certain_column
    # "Certainly" is strict: of equal bounds neither is the denser one.
    certain_row = torch.nextafter(certain_row, torch.full_like(certain_row, -torch.inf))
    block = scan.block()
    distance = _unless(block, possible_column, possible_row)
    low = torch.minimum(block.low(distance), block.bound)
    distance = _unless(block, certain_column, certain_row)
    return _bounds(low, block.high(distance).masked_fill(distance >= 2.0**70, torch.inf))


def _unless(block: Block, column: Tensor, row: Tensor) -> Tensor:
    """(R,) least distance of a row among columns whose key does not exceed the row's; else huge."""
    penalty = column[block.columns] - row[block.rows]
    return torch.maximum(penalty, block.distance).amin(0)


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


def nearest_centers(scan: Scan, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of every token.

    Args:
        scan: the distances.
        centers: (B * N,) whether a token is a centre.

    Returns:
        (B * N,) the centre as a token number, (B * N,) whether that is certain. Of a centre itself
        neither means anything.
    """
    block = scan.block()
    barrier = torch.where(centers, 0.0, torch.inf)
    barrier = torch.cat([barrier, barrier.new_full((1,), torch.inf)])
    distance = torch.maximum(block.distance, barrier[block.columns])
    best, column = distance.min(0)
    second = distance.scatter_(0, column[None], torch.inf).amin(0)
    certain = block.high(best) < torch.minimum(block.low(second), block.bound)
    return block.columns.gather(0, column[None]).squeeze(0), certain


def _bounds(low: Tensor, high: Tensor) -> Bounds:
    """What is not a number is unbounded."""
    return Bounds(low.double().nan_to_num(0.0, torch.inf), high.double().nan_to_num(torch.inf, torch.inf))
