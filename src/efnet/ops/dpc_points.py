"""Distances of equation 1 (EFNet, arXiv 2501.10958) between tokens, each with a bound of its error.

By plain differences a distance is known to a relative error; a matrix multiplication measures many at once,
to an error that grows with the norms.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from efnet.ops.dpc_arithmetic import exponential, ordered_sum, square_root

ROUNDED = 2.0**-20
"""Bound of the relative error of a float32 distance whose square was known, and of sums of such."""

_TINY = 1e-30
"""Keeps quotients finite."""

_UNDERFLOW = 1e-18
"""More than what squares below the smallest float32 number add to a distance."""

_LARGEST = 2.0**50
"""Coordinates up to this have float32 squares with room to spare; larger ones are scaled."""

_MOST_SCALED = 450
"""Exponent of the largest unit: the smallest float32 number, divided by it, still has a float64 square."""

_DENSE = 0.5
"""From this share of tokens to be compared, all are measured in one rectangle."""

_CHUNK_BYTES = {"cpu": 1 << 19}
"""Differences looked at together: what stays in a core's cache."""

_OTHER_CHUNK_BYTES = 64 << 20


class Points:
    """The tokens of a batch, numbered 0 to B * N - 1; the number B * N stands for none.

    Args:
        features: (B, N, C) floating point.
        positions: (B, N, P) floating point, or None.
        spatial_weight: weight of the spatial distance.

    Attributes:
        unit: what features and distances are divided by, a power of two: 1, unless squares of what is given
            would overflow in float32. Scaled coordinates are float64, so scaling is exact.
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
        self.absolute = _UNDERFLOW * (1 + spatial_weight)
        """What underflow adds to that."""

    def numbers(self) -> Tensor:
        """(B, N) the tokens' numbers."""
        return torch.arange(self.none, device=self.device).view(self.batch, self.tokens)

    def apart(self, rows: Tensor, columns: Tensor, exact: bool = False) -> Tensor:
        """Distances by plain differences, to which equal tokens are equally far.

        Args:
            rows: (m,) tokens.
            columns: (m, c) the tokens each is compared with; for none the result means nothing.
            exact: float64.

        Returns:
            (m, c) float32, or float64 if `exact`.
        """
        columns = columns.clamp_max(self.none - 1)
        out = self.values.new_empty(columns.shape, dtype=torch.float64 if exact else torch.float32)
        wide = exact or self.values.dtype == torch.float64
        size = (8 if wide else 4) * self.channels * max(1, columns.shape[1])
        step = max(1, _CHUNK_BYTES.get(self.device.type, _OTHER_CHUNK_BYTES) // size)
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
            return torch.linalg.vector_norm(difference, dim=-1)
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

        Args:
            norms: sum of the norms of a row and of any column.
            nearest: the least square found; of what is farther the error is smaller.
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
        """What rounding coordinates to float32 adds to the error of a spatial distance."""
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
    if math.isfinite(largest) and not _is_capturing(values):
        return values, largest
    values = values.where(values.isfinite().all(-1, keepdim=True), 0)
    return values, _largest(values)


def _largest(values: Tensor) -> float:
    """The largest magnitude; not finite if any is not; 0 in a CUDA graph, which cannot wait for a number."""
    if _is_capturing(values):
        return 0.0
    low, high = values.aminmax()
    return max(-float(low), float(high))


def _is_capturing(values: Tensor) -> bool:
    return values.is_cuda and torch.cuda.is_current_stream_capturing()


def _unit(largest: float) -> float:
    """A power of two that makes numbers up to `largest` about one, or 1 where that is not needed."""
    if not _LARGEST < largest < math.inf:
        return 1.0
    return 2.0 ** min(math.frexp(largest)[1], _MOST_SCALED)


def _at_least_float32(values: Tensor) -> Tensor:
    if not values.is_floating_point():
        return values.double()
    return values if values.dtype == torch.float64 else values.float()
