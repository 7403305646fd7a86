"""Distances between tokens (EFNet, arXiv 2501.10958, equation 1): fast ones with bounds, and deciding ones.

Fast distances are float32, by plain differences (known to a relative error) or by a matrix product (known to
an error that grows with the norms). They may be rounded in any way; their bounds cover it.

Deciding distances are float64 and the same to the last bit on every processor. Libraries differ there: a
vectorised sum has as many partial sums as the vector is wide, a fused multiply-add rounds once instead of
twice, and the `exp` and float64 `sqrt` of MKL are sometimes wrong in the last bit. So they are made of single
additions, subtractions, multiplications, divisions and correctly rounded square roots, which IEEE 754 defines
exactly, in a fixed order. The compiled loops (`kernels`) add in the same order; the exponential of the score
has this one implementation.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

LANES = 32
"""Partial sums of a sum over channels; a power of two. More are faster in loops, fewer save operators."""

_LOG2_E = 1.44269504088896338700
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
"""ln 2 as a number of few bits, whose products with whole numbers are exact, and the rest."""

_TERMS = 14  # terms of the series of e^r, |r| <= ln 2 / 2: the next one is below 2^-57
_LEAST = -746.0  # e to this power, and to any lower one, rounds to zero


def ordered_sum(terms: Tensor) -> Tensor:
    """Sum over the last axis in one order; `terms` is overwritten.

    Term c belongs to lane c mod 32. The terms of a lane are added in order. Then lanes 16 to 31 are
    added to lanes 0 to 15, lanes 8 to 15 to lanes 0 to 7, and so on.

    `terms`: (..., C) float64, at least one. Returns (...).
    """
    lanes = terms[..., :LANES]
    for block in torch.split(terms[..., LANES:], LANES, -1):
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

    `distance`: (m, k - 1) float64, ascending. `k`: 1 or more. Returns (m,): squares added from the nearest to
    the farthest, times the float64 number 1 / k.
    """
    total = distance.new_zeros(len(distance))
    for column in distance.unbind(1):
        total += column * column
    return total * (1 / k)


def exponential(values: Tensor) -> Tensor:
    """E to the power of float64 `values`, none positive; to within one unit in the last place."""
    values = values.clamp_min(_LEAST)
    whole = (values * _LOG2_E).round()
    rest = values - whole * _LN2_HIGH - whole * _LN2_LOW
    power = torch.ones_like(rest)
    for term in range(_TERMS - 1, 0, -1):
        power = power * rest / term + 1
    # In two steps, because no normal number has the factor 2^-1074: only the second one may round.
    first = (whole * 0.5).floor()
    return power * _power_of_two(first) * _power_of_two(whole - first)


def _power_of_two(exponent: Tensor) -> Tensor:
    """2 to the power of whole float64 numbers from -1022 to 1023, by its bits."""
    return ((exponent.long() + 1023) << 52).view(torch.float64)


ROUNDED = 2.0**-20
"""Bound of the relative error of a float32 distance whose square was known, and of sums of such."""

_TINY = 1e-30  # keeps quotients finite
UNDERFLOW = 1e-18  # more than what squares below the smallest float32 number add to a distance
_LARGEST = 2.0**50  # coordinates up to this have float32 squares with room to spare; larger ones are scaled

_MOST_SCALED = 450
"""Exponent of the largest unit: the smallest float32 number, divided by it, still has a float64 square."""

_DENSE = 0.5  # from this share of tokens to be compared, all are measured in one rectangle
_CHUNK_BYTES = 1 << 20  # differences looked at together: what stays in the cache of a core


class Points:
    """The tokens of a batch, numbered 0 to B * N - 1; the number B * N stands for none.

    `features`: (B, N, C) floating point. `positions`: (B, N, P) floating point, or None. `spatial_weight`:
    weight of the spatial distance. `unit`: what features and distances are divided by, a power of two: 1,
    unless squares of what is given would overflow in float32. Scaled coordinates are float64, so scaling is
    exact.
    """

    def __init__(self, features: Tensor, positions: Tensor | None, spatial_weight: float) -> None:
        self.batch, self.tokens, self.channels = features.shape
        self.none = self.batch * self.tokens
        self.device = features.device
        self.scale = math.sqrt(self.channels)
        self.values, largest = _numbers(_at_least_float32(features).flatten(0, 1))
        self.places = None if positions is None else _at_least_float32(positions).flatten(0, 1)
        extent = 0.0 if self.places is None else _largest(self.places)
        place_unit = _unit(extent)
        self.unit = _unit(max(largest, spatial_weight * extent))
        self.spatial_weight = spatial_weight / self.unit * place_unit
        if self.unit != 1:
            self.values = self.values.double() / self.unit
        if self.places is not None and place_unit != 1:
            self.places = self.places.double() / place_unit
        self.relative = (self.channels + 24) * 2.0**-25
        """Bound of the relative error of distances by differences: C + 2 roundings, halved by the root."""
        self.absolute = UNDERFLOW * (1 + spatial_weight)
        """Bound of the error that underflow adds."""

    def numbers(self) -> Tensor:
        """(B, N) the tokens' numbers."""
        return torch.arange(self.none, device=self.device).view(self.batch, self.tokens)

    def step(self, block: int, size: int) -> int:
        """Rows of `size` bytes to take at a time: on a CPU what `block` bytes of its cache hold."""
        return max(1, (block if self.device.type == "cpu" else 128 * block) // size)

    def apart(self, rows: Tensor, columns: Tensor, exact: bool = False) -> Tensor:
        """Distances by plain differences, to which equal tokens are equally far.

        `rows`: (m,) tokens. `columns`: (m, c) the tokens each is compared with; for none the result means
        nothing. `exact`: float64. Returns (m, c) float32, or float64 if `exact`.
        """
        columns = columns.clamp_max(self.none - 1)
        out = self.values.new_empty(columns.shape, dtype=torch.float64 if exact else torch.float32)
        wide = exact or self.values.dtype == torch.float64
        size = (8 if wide else 4) * self.channels * max(1, columns.shape[1])
        step = self.step(_CHUNK_BYTES, size)
        for first in range(0, len(rows), step):
            own, others = rows[first : first + step], columns[first : first + step]
            distance = self._norms(self.values, own, others, exact).mul_(1 / self.scale)
            if self.places is not None:
                # Not `add_` with `alpha`, which rounds once where the processor can.
                distance.add_(self._norms(self.places, own, others, exact).mul_(self.spatial_weight))
            out[first : first + step] = distance
        return out

    def apart_where(self, present: Tensor, rows: Tensor, columns: Tensor, exact: bool = False) -> Tensor:
        """As `apart`, (m, c), infinite where not `present` (m, c)."""
        if present.float().mean() >= _DENSE:
            return self.apart(rows, columns, exact).masked_fill_(~present, torch.inf)
        row, slot = present.nonzero().unbind(1)
        near = self.apart(rows[row], columns[row, slot][:, None], exact).squeeze(1)
        distance = near.new_full(columns.shape, torch.inf)
        distance[row, slot] = near
        return distance

    def scores(self, squares: Tensor, separation: Tensor) -> Tensor:
        """Density times separation in float64: exp(-mean square) * distance, equations 2 and 3."""
        return exponential(squares * -(self.unit**2)) * (separation * self.unit)

    @staticmethod
    def _norms(values: Tensor, rows: Tensor, columns: Tensor, exact: bool) -> Tensor:
        """(m, c) norms of differences."""
        others = values.index_select(0, columns.flatten())
        own = values.index_select(0, rows)[:, None]
        if exact:
            others, own = others.double(), own.double()
        difference = others.view(*columns.shape, -1).sub_(own)
        if not exact:
            norms: Tensor = torch.linalg.vector_norm(difference, dim=-1)
            return norms
        return square_root(ordered_sum(difference.mul_(difference)))

    @cached_property
    def table(self) -> Tensor:
        """(B * N + 1, C + 2) float32 rows (x, |x|^2, 1), divided by sqrt(C) and about a sample's middle.

        The product with a partner (-2 y, 1, |y|^2) is |x|^2 + |y|^2 - 2 x.y: distances do not change by a
        shift, rounding errors grow with the norm. Of none, the square is infinite.
        """
        table = self.values.new_zeros(self.none + 1, self.channels + 2, dtype=torch.float32)
        centred = table[:-1, :-2].view(self.batch, self.tokens, self.channels)
        values = self.values.view(centred.shape)
        # In float64, so that equal tokens become exact zeros.
        centre = values[:, :: max(1, self.tokens // 64)].double().mean(1, keepdim=True).to(values.dtype)
        if values.dtype == torch.float32:
            torch.sub(values, centre, out=centred)
        else:
            centred.copy_(values - centre)
        centred.mul_(1 / self.scale)
        table[:, -2] = torch.linalg.vector_norm(table, dim=1).square_()
        table[-1, -2] = torch.inf
        table[:, -1] = 1
        return table

    def partners(self, rows: Tensor) -> Tensor:
        """(..., C + 2) rows (-2 x, 1, |x|^2) of tokens (...)."""
        partner = self.table[rows]
        squares = partner[..., -2].clone()
        partner.mul_(-2)
        partner[..., -2] = 1
        partner[..., -1] = squares
        return partner

    def product_error(self, norms: Tensor, nearest: Tensor) -> Tensor:
        """Bound of the error of semantic distances measured by products.

        `norms`: sum of the norms of a row and of any column. `nearest`: the least square found; of what is
        farther the error is smaller.
        """
        error = self.square_error(norms)
        nearest = nearest.clamp_min(0).sqrt_().clamp_min_(_TINY)
        # |sqrt(a) - sqrt(b)| is at most |a - b| / sqrt(a), and at most sqrt(|a - b|).
        return torch.minimum(error / nearest, error.sqrt()) + self._place_error

    def square_error(self, norms: Tensor) -> Tensor:
        """Bound of the error of their squares, for the same `norms`."""
        # Twice C + 2 roundings of products and squares, and some of the centring.
        rounding = (2 * self.channels + 24) * 2.0**-23
        return norms.square() * rounding + _TINY

    @cached_property
    def place(self) -> Tensor:
        """(P, B * N + 1) float32 coordinates, of none zero."""
        assert self.places is not None
        return torch.nn.functional.pad(self.places.float().T, (0, 1))

    @cached_property
    def _place_error(self) -> Tensor:
        """Error that rounding coordinates to float32 adds to a spatial distance."""
        if self.places is None or self.places.dtype != torch.float64:
            return torch.zeros((), device=self.device)
        moved = (self.places - self.places.float()).square().sum(1).sqrt().amax()
        return (2 * self.spatial_weight * moved).float() * (1 + ROUNDED)

    def add_spatial(self, distance: Tensor, columns: Tensor, rows: Tensor) -> None:
        """Add the weighted spatial distance between tokens, whose numbers broadcast to `distance`."""
        if self.places is None:
            return
        total: Tensor | None = None
        for axis in self.place:
            difference = axis[columns] - axis[rows]
            total = difference.square_() if total is None else total.addcmul_(difference, difference)
        if total is not None:
            # By differences, so that the error is relative.
            distance.add_(total.sqrt_(), alpha=self.spatial_weight)


def _numbers(values: Tensor) -> tuple[Tensor, float]:
    """Features (n, C), tokens that hold NaN or infinity as zeros, and the largest magnitude among them."""
    largest = _largest(values)
    if math.isfinite(largest):
        return values, largest
    values = values.where(values.isfinite().all(-1, keepdim=True), 0)
    return values, _largest(values)


def _largest(values: Tensor) -> float:
    """The largest magnitude; not finite if any value is not."""
    return max(-float(values.amin()), float(values.amax()))  # faster than `aminmax`


def _unit(largest: float) -> float:
    """A power of two that makes numbers up to `largest` about one, or 1 where that is not needed."""
    if not _LARGEST < largest < math.inf:
        return 1.0
    return 2.0 ** min(math.frexp(largest)[1], _MOST_SCALED)


def _at_least_float32(values: Tensor) -> Tensor:
    if not values.is_floating_point():
        return values.double()
    return values if values.dtype == torch.float64 else values.float()
