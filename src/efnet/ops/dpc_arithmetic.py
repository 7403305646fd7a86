"""Float64 arithmetic that every processor, library and number of threads rounds alike.

Comparisons decide a clustering, so two machines agree only if the numbers they compare agree to the last bit.
Libraries differ there: a vectorised sum has as many partial sums as the vector is wide, a fused multiply-add
rounds once instead of twice, and the `exp` and float64 `sqrt` of MKL are sometimes wrong in the last bit.
Everything here is made of single additions, subtractions, multiplications, divisions and correctly rounded
square roots, which IEEE 754 defines exactly, in a fixed order. The compiled loops (`dpc_kernels`) add in the
same order; the exponential has this one implementation.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LANES = 32
"""Partial sums of a sum over channels; a power of two. More are faster in loops, fewer save operators."""

_LOG2_E = 1.44269504088896338700
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
"""ln 2 as a number of few bits, whose products with whole numbers are exact, and the rest."""

_POLYNOMIAL = (
    4.13813679705723846039e-08, -1.65339022054652515390e-06, 6.61375632143793436117e-05,
    -2.77777777770155933842e-03, 1.66666666666666019037e-01,
)  # fmt: skip
"""Of r (e^r + 1) / (e^r - 1) = 2 + r^2 (...), highest power first; from FreeBSD's `e_exp.c`."""

_LEAST = -746.0
"""e to this power, and to any lower one, rounds to zero."""


def ordered_sum(terms: Tensor) -> Tensor:
    """Sum over the last axis in one order; `terms` is overwritten.

    Term c belongs to lane c mod 32. The terms of a lane are added in order. Then lanes 16 to 31 are
    added to lanes 0 to 15, lanes 8 to 15 to lanes 0 to 7, and so on.

    Args:
        terms: (..., C) float64, at least one.

    Returns:
        (...).
    """
    lanes = terms[..., :LANES]
    for block in terms[..., LANES:].split(LANES, -1) if terms.shape[-1] > LANES else ():
        lanes[..., : block.shape[-1]].add_(block)
    half = LANES // 2
    while half:
        upper = lanes[..., half:]
        lanes = lanes[..., :half]
        lanes[..., : upper.shape[-1]].add_(upper)
        half //= 2
    return lanes[..., 0]


def square_root(values: Tensor) -> Tensor:
    """Correctly rounded square roots of float64 `values`."""
    # On a CPU PyTorch calls MKL, whose root is off by a last bit in one of a hundred numbers.
    return torch.from_numpy(np.sqrt(values.numpy())) if values.device.type == "cpu" else values.sqrt()


def mean_square(distance: Tensor, k: int) -> Tensor:
    """Mean squared distance to the k nearest tokens, the token itself counted at distance zero.

    Args:
        distance: (m, k - 1) float64, ascending.
        k: 1 or more.

    Returns:
        (m,): squares added from the nearest to the farthest, times the float64 number 1 / k.
    """
    total = distance.new_zeros(len(distance))
    for column in distance.unbind(1):
        total += column * column
    return total * (1 / k)


def exponential(values: Tensor) -> Tensor:
    """E to the power of float64 `values`, none positive; to within one unit in the last place."""
    values = values.clamp_min(_LEAST)
    whole = (values * _LOG2_E).round()
    high, low = values - whole * _LN2_HIGH, whole * _LN2_LOW
    rest = high - low
    square = rest * rest
    correction = torch.zeros_like(rest)
    for factor in _POLYNOMIAL:
        correction = (correction + factor) * square
    correction = rest - correction
    power = 1 - ((low - rest * correction / (2 - correction)) - high)
    # In two steps, because 2^-1074 is no factor of a normal number: only the second one may round.
    first = (whole * 0.5).floor()
    return power * _power_of_two(first) * _power_of_two(whole - first)


def _power_of_two(exponent: Tensor) -> Tensor:
    """2 to the power of whole float64 numbers from -1022 to 1023, by its bits."""
    return ((exponent.long() + 1023) << 52).view(torch.float64)
