"""Equations 1-3 as intervals: what float32 distances decide for certain.

EFNet, arXiv 2501.10958. Densities, separations and scores are kept as lower and upper bounds; only tokens
whose bounds leave the set of centres, or their own centre, open have to be looked at in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.ops.dpc_points import ROUNDED
from efnet.ops.dpc_scan import Scan
from efnet.ops.dpc_select import smallest

_SLACK = 1e-12
"""Covers the rounding of float64 scores."""

_UNDERFLOW = 1e-300
"""More than what rounding changes scores whose density is hardly a float64 number any more."""


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
    # Rounded to float32, numbers keep their order or become equal: still no denser token is ruled out below,
    # and none is taken for certain that is not. "Certainly" is strict, of equal bounds neither is the denser.
    column_low, column_high = (F.pad(side.float(), (0, 1), value=torch.inf) for side in squares)
    block = scan.block()
    row_low, row_high = column_low[block.rows], column_high[block.rows]
    possible = block.distance.masked_fill(column_low[block.columns] > row_high, torch.inf).amin(0)
    certain = block.distance.masked_fill(column_high[block.columns] >= row_low, torch.inf).amin(0)
    return _bounds(torch.minimum(block.low(possible), block.bound), block.high(certain))


def scores(squares: Bounds, separation: Bounds, unit: float) -> Bounds:
    """Density times separation, of distances in some unit."""
    low = (squares.high * -(unit**2)).exp() * (separation.low * unit) * (1 - _SLACK) - _UNDERFLOW * unit
    high = (squares.low * -(unit**2)).exp() * (separation.high * unit) * (1 + _SLACK) + _UNDERFLOW * unit
    return Bounds(low.nan_to_num(0.0, torch.inf).clamp_min(0), high.nan_to_num(torch.inf, torch.inf))


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
