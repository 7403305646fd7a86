"""Equations 1-3 of EFNet (arXiv 2501.10958) as intervals: what float32 distances decide for certain.

A scan compares each of R tokens with S others: the cells of a grid within a radius, or the nearest few. Every
distance D of a row is within D * relative + error of the true one, and every token that a row is not compared
with is at least `bound` away. Densities, separations and scores follow as lower and upper bounds; only tokens
whose bounds leave the set of centres, or their own centre, open have to be measured in float64 (`Exact`).

A question in float64 (which are the k nearest tokens, which is the nearest denser token, the nearest centre)
is asked of ever larger sets of candidates until an answer is proved: those the scan names, the best of all
tokens, all tokens. Candidates are compared by plain differences, to which equal tokens are equally far: on
that rests the order of ties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.ops.clustering.distances import ROUNDED, Points, mean_square
from efnet.ops.clustering.neighbors import Eligible, Near, Others, fewest
from efnet.ops.clustering.tiling import Size, disk, shifted, stretch

_BLOCK_BYTES = 1 << 21  # of differences
_ROWS = 4096  # tokens for which candidates are named together
_RADII = (4, 6, 9)  # radii of disks to try on a regular grid, in cells
_SAMPLE = 64  # tokens on which radii are tried
_WIDER = (1.5, 4.0)  # wider disks, in radii, for the tokens that the grid's disk leaves open

_SPARE = 2  # candidates beyond those asked for, against ties and rounding
_ROWS_BYTES = 32 << 20  # of rows against all candidates

SLACK, UNDERFLOW = 1e-12, 1e-300
"""Relative and absolute error of float64 scores; the second covers densities that underflow."""


class Nominees(NamedTuple):
    """Tokens that may answer a question about n tokens."""

    rows: Tensor  # (n,) the tokens asked about
    columns: Tensor  # (n, c) tokens that may answer
    absent: Tensor  # (n, c) where there is none
    floor: Tensor  # (n,) float64, every eligible token that is not here is at least that far


Nomination = Callable[[Tensor, Eligible, int], Iterator[Nominees]]
"""Others that may be among the so many nearest eligible ones of tokens (n,), some tokens at a time."""


class Scan:
    """Approximate distances of every token of a batch to S others.

    `points`: the R = B * N tokens. `columns`: (S, R) the tokens that each is compared with; R: none.
    `distance`: (S, R) float32, to within the errors of `points`; infinite to itself and to none. `bound`:
    (R,) float32, no token outside the columns is nearer. `wider`: further ways to name the nearest, which
    look farther.
    """

    def __init__(
        self, points: Points, columns: Tensor, distance: Tensor, bound: Tensor, *wider: Nomination
    ) -> None:
        self.points, self.columns, self.distance, self.bound = points, columns, distance, bound
        self.nominations: list[Nomination] = [self._held, *wider]

    def low(self, distance: Tensor) -> Tensor:
        """Lower bound of the true distance."""
        return (distance * (1 - self.points.relative) - self.points.absolute).clamp_min(0)

    def high(self, distance: Tensor) -> Tensor:
        """Upper bound of the true distance."""
        return distance * (1 + self.points.relative) + self.points.absolute

    def of_columns(self, values: Tensor) -> Tensor:
        """Values (R,) of the tokens that each is compared with, (S, R); of none, zero."""
        values = F.pad(values, (0, 1))
        return values.index_select(0, self.columns.flatten()).view(self.columns.shape)

    def _held(self, rows: Tensor, eligible: Eligible, count: int) -> Iterator[Nominees]:
        """The nearest few of those compared."""
        for part in torch.split(rows, _ROWS):
            columns = self.columns[:, part].T
            absent = (columns == self.points.none) | ~eligible(part, columns)
            distance = self.distance[:, part].T.masked_fill(absent, torch.inf)
            yield fewest_of(self.points, part, columns, distance, count, self.bound[part].double())


def fewest_of(
    points: Points, rows: Tensor, columns: Tensor, distance: Tensor, count: int, bound: Tensor
) -> Nominees:
    """The nearest few of columns (n, S) by float32 distances; `bound`: no other eligible token is nearer."""
    near = fewest(distance, min(count, distance.shape[1]))
    floor = (near.rest.double() * (1 - points.relative) - points.absolute).clamp_min(0)
    return Nominees(rows, columns.gather(1, near.columns), near.values.isinf(), torch.minimum(floor, bound))


def list_scan(points: Points, near: Near) -> Scan:
    """Every token against the nearest few, in any order."""
    columns, distance, floor = (part[near.rows.argsort()] for part in near[1:])
    return Scan(points, columns.T, distance.T, floor)


class Lattice:
    """The tokens as cells of a regular grid.

    `points`: the tokens, with positions in the plane. `size`: (h, w) of the grid.
    """

    def __init__(self, points: Points, size: Size) -> None:
        assert points.places is not None
        self.points = points
        self.size = size
        self._least, self._short = stretch(points.places.view(points.batch, -1, 2), size)

    def bound(self, radius: int) -> Tensor:
        """Scalar float64: no token beyond a disk is nearer."""
        shortest = self._least * (disk(radius, self.size).gap * (1 - 2**-40)) - self._short * (1 + 2**-20)
        return (self.points.spatial_weight * shortest * (1 - 2**-22)).clamp_min(0)

    def columns(self, radius: int, rows: Tensor) -> Tensor:
        """(offsets, n) of tokens (n,): the offsets of the half plane first, then their negatives."""
        return shifted(disk(radius, self.size).all, self.size, rows, self.points.none)

    def within(self, radius: int, rows: Tensor, eligible: Eligible, count: int) -> Iterator[Nominees]:
        """The nearest few within a disk."""
        for part in torch.split(rows, _ROWS):
            columns = self.columns(radius, part).T
            present = (columns != self.points.none) & eligible(part, columns)
            distance = self.points.apart_where(present, part, columns)
            yield fewest_of(self.points, part, columns, distance, count, self.bound(radius))

    def scan(self, radius: int) -> Scan:
        """Every token against the cells of a disk, by plain differences."""
        points, width = self.points, self.size[1]
        values, places = points.values, points.places
        assert places is not None
        shifts = [row * width + column for row, column in disk(radius, self.size).half]
        half = len(shifts)
        distance = values.new_empty(2 * half, points.none, dtype=torch.float32)
        size = values.element_size() * points.channels
        step = points.step(_BLOCK_BYTES, size)
        buffer = values.new_empty(min(step, points.none), points.channels)
        norm = values.new_empty(len(buffer))
        for first in range(0, points.none, step):
            for number, shift in enumerate(shifts):
                last = min(first + step, points.none - shift)
                if last <= first:
                    continue
                out = buffer[: last - first]
                torch.sub(values[first + shift : last + shift], values[first:last], out=out)
                torch.linalg.vector_norm(out, dim=1, out=norm[: len(out)])
                distance[number, first:last] = norm[: len(out)]
        distance[:half].mul_(1 / points.scale)
        axes = places.T.contiguous()
        for number, shift in enumerate(shifts):
            kept = points.none - shift
            down, right = axes[:, shift:] - axes[:, :kept]
            spatial = down.square_().addcmul_(right, right).sqrt_()
            distance[number, :kept].add_(spatial, alpha=points.spatial_weight)
            # The pair as its other end sees it.
            distance[half + number, shift:] = distance[number, :kept]
        columns = self.columns(radius, points.numbers().flatten())
        distance.masked_fill_(columns == points.none, torch.inf)
        wider = (partial(self.within, round(factor * radius)) for factor in _WIDER)
        return Scan(points, columns, distance, self.bound(radius).float().expand(points.none), *wider)


def grid_scan(points: Points, k: int, grid: Size | None, tolerated: float) -> Scan | None:
    """The scan of a regular grid by the smallest disk that a sample of the tokens finds wide enough.

    `points`: the tokens. `k`: neighbours, the token itself one of them. `grid`: (h, w); None: there is no
    grid. `tolerated`: share of the sample whose k-th neighbour may be farther than what the disk proves.
    """
    if grid is None or points.places is None or points.places.shape[1] != 2:
        return None
    lattice = Lattice(points, grid)
    rows = points.numbers().flatten()[:: max(1, points.none // _SAMPLE)]
    columns = lattice.columns(_RADII[-1], rows).T
    if columns.shape[1] < k:
        return None
    distance = points.apart(rows, columns).masked_fill_(columns == points.none, torch.inf)
    farthest = distance.topk(max(1, k - 1), 1, largest=False).values[:, -1]
    limits = torch.stack([lattice.bound(radius) for radius in _RADII])
    share = (farthest >= limits[:, None]).float().mean(1).tolist()
    for radius, beyond in zip(_RADII, share, strict=True):
        if beyond < tolerated and len(disk(radius, grid).all) >= k:
            return lattice.scan(radius)
    return None


class Bounds(NamedTuple):
    """Lower and upper bounds, (B * N,) float64."""

    low: Tensor
    high: Tensor


def mean_squares(scan: Scan, k: int) -> tuple[Bounds, Tensor]:
    """Mean of the squared distances to the k nearest tokens, itself counted: -log of equation 2.

    `scan`: the distances. `k`: neighbours, the token itself one of them. Returns the bounds, and (B * N,) how
    much farther than its k-th neighbour a token's window reaches.
    """
    slack = ROUNDED + k * 2.0**-23  # squares, and a sum of k of them, in float32
    low, high, margin = torch.zeros_like(scan.bound), torch.zeros_like(scan.bound), scan.bound
    nearest = scan.distance.T.contiguous().topk(k - 1, 1, largest=False).values
    for distance in nearest.unbind(1):
        low += torch.minimum(scan.low(distance), scan.bound).square()
        high += scan.high(distance).square()
        margin = scan.bound - scan.high(distance)
    return _bounds(low * ((1 - slack) / k), high * ((1 + slack) / k)), margin


def separations(scan: Scan, squares: Bounds) -> Bounds:
    """Equation 3, the distance to the nearest denser token, infinite where none is known to be denser."""
    # Rounded to float32, numbers keep their order or become equal: still no denser token is ruled out below,
    # and none is taken for certain that is not. "Certainly" is strict, of equal bounds neither is the denser.
    low, high = (side.float().clamp_max(torch.finfo(torch.float32).max) for side in squares)
    infinite = low.new_tensor(torch.inf)

    # Signs and maxima: where half of the tokens are denser, a mask takes ten times as long on a CPU.
    possible = torch.copysign(infinite, high - scan.of_columns(low)).neg_()  # infinite where low > high
    possible = torch.maximum(possible, scan.distance).amin(0)
    certain = torch.copysign(infinite, scan.of_columns(high).sub_(low))  # infinite where high >= low
    certain = torch.maximum(certain, scan.distance).amin(0)
    return _bounds(torch.minimum(scan.low(possible), scan.bound), scan.high(certain))


def scores(squares: Bounds, separation: Bounds, unit: float) -> Bounds:
    """Density times separation, of distances in some unit."""
    low, high = (
        (square * -(unit**2)).exp() * (apart * unit)
        for square, apart in ((squares.high, separation.low), (squares.low, separation.high))
    )
    low, high = low * (1 - SLACK) - UNDERFLOW * unit, high * (1 + SLACK) + UNDERFLOW * unit
    return Bounds(low.nan_to_num(0.0, torch.inf).clamp_min(0), high.nan_to_num(torch.inf, torch.inf))


def select(score: Bounds, batch: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which tokens are certainly among the `count` of largest score, and which may be: (B, N) each.

    The third is the score (B, 1) to exceed, 0 where all tokens are chosen.
    """
    low, high = score.low.view(batch, -1), score.high.view(batch, -1)
    if count == low.shape[1]:
        chosen = torch.ones_like(low, dtype=torch.bool)
        return chosen, ~chosen, low.new_zeros(batch, 1)
    rival = high.kthvalue(high.shape[1] - count, 1, keepdim=True).values
    least = low.kthvalue(low.shape[1] - count + 1, 1, keepdim=True).values
    chosen = low > rival
    return chosen, ~chosen & ~(high < least), rival


def nearest_centers(scan: Scan, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of every token.

    `scan`: the distances. `centers`: (B * N,) whether a token is a centre. Returns (B * N,) the centre as a
    token number, (B * N,) whether that is certain. Of a centre itself neither means anything.
    """
    distance = torch.maximum(scan.distance, scan.of_columns(torch.where(centers, 0.0, torch.inf)))
    best, column = distance.min(0)
    second = distance.scatter_(0, column[None], torch.inf).amin(0)
    certain = scan.high(best) < torch.minimum(scan.low(second), scan.bound)
    return scan.columns.gather(0, column[None]).squeeze(0), certain


def _bounds(low: Tensor, high: Tensor) -> Bounds:
    """Bounds without NaN: what is not a number is unbounded."""
    return Bounds(low.double().nan_to_num(0.0, torch.inf), high.double().nan_to_num(torch.inf, torch.inf))


Answer = Callable[[Nominees, Tensor], tuple[Tensor, Tensor]]
"""Answers (n,) by nominees and their float64 distances (n, c), and whether they are proved (n,)."""


class Exact:
    """Answers questions about tokens of a batch, by candidates of growing number.

    `points`: the tokens. `scan`: what has been compared. `k`: neighbours that questions ask for at most.
    `among`: (B, S) the tokens that are eligible for an answer, all of them, and about which nothing is asked;
    None: any.
    """

    def __init__(self, points: Points, scan: Scan, k: int, among: Tensor | None = None) -> None:
        self.points = points
        self.scan = scan
        self.count = k + _SPARE
        self.restricted = among is not None
        self.among = points.numbers() if among is None else among
        self._others: dict[int, Others] = {}

    def ask(self, tokens: Tensor, eligible: Eligible, answer: Answer, out: Tensor) -> Tensor:
        """Write the answer for each of `tokens` into `out`, (B * N,)."""
        for stage in (*self.scan.nominations, self._of_sample, self._everything):
            left = []
            for nominees in stage(tokens, eligible, self.count):
                # By plain differences in float64, of those that are present.
                rows, columns, absent, _ = nominees
                distance = self.points.apart_where(~absent, rows, columns, exact=True)
                columns = columns.clamp_max(self.points.none - 1)
                value, proved = answer(nominees._replace(columns=columns), distance)
                out[rows] = torch.where(proved, value, out[rows])
                left.append(rows[~proved])
            tokens = torch.cat(left) if left else tokens
            if not len(tokens):
                break
        return out

    def _of_sample(self, tokens: Tensor, eligible: Eligible, count: int) -> Iterator[Nominees]:
        """The nearest few of all tokens."""
        points = self.points
        for sample in range(points.batch):
            own = tokens[tokens // points.tokens == sample]
            if not len(own):
                continue
            if sample not in self._others:
                self._others[sample] = Others(points, self.among[sample])
            step = max(1, _ROWS_BYTES // (4 * self.among.shape[1]))
            asked = None if self.restricted else eligible
            found = self._others[sample].nearest(own, count, step, False, asked)
            for rows, (columns, floor, distance) in zip(torch.split(own, step), found, strict=True):
                yield Nominees(rows, columns, distance.isinf(), floor.double())

    def _everything(self, tokens: Tensor, eligible: Eligible, count: int) -> Iterator[Nominees]:
        """All eligible tokens of the sample: what no error bound can tell apart."""
        for rows in torch.split(tokens, max(1, _ROWS_BYTES // (8 * self.among.shape[1]))):
            columns = self.among[rows // self.points.tokens]
            floor = torch.full((len(rows),), torch.inf, dtype=torch.float64, device=rows.device)
            yield Nominees(rows, columns, ~eligible(rows, columns), floor)

    def mean_squares(self, tokens: Tensor, k: int, squares: Bounds) -> None:
        """Close the bounds of the mean squared distance (equation 2) of `tokens`, in place."""

        def others(rows: Tensor, columns: Tensor) -> Tensor:
            return columns != rows[:, None]

        def answer(nominees: Nominees, distance: Tensor) -> tuple[Tensor, Tensor]:
            nearest = distance.topk(min(k - 1, distance.shape[1]), 1, largest=False).values
            proved = nearest[:, -1] <= nominees.floor if k > 1 else nominees.floor >= 0
            return mean_square(nearest, k), proved

        values = self.ask(tokens, others, answer, squares.low.clone())
        squares.low[tokens] = values[tokens]
        squares.high[tokens] = values[tokens]

    def separations(self, tokens: Tensor, k: int, squares: Bounds) -> Tensor:
        """Equation 3 for `tokens`, whose mean squares are exact, (n,); infinite where nothing is denser."""

        def possibly_denser(rows: Tensor, columns: Tensor) -> Tensor:
            own, least = squares.high[rows, None], squares.low[columns.clamp_max(len(squares.low) - 1)]
            return (least < own) | ((least == own) & (columns < rows[:, None]))

        def answer(nominees: Nominees, distance: Tensor) -> tuple[Tensor, Tensor]:
            rows, index, _, floor = nominees
            # What may be denser, and is nearer than all that certainly are, needs its own density.
            certain = squares.high[index] < squares.low[rows, None]
            limit = distance.masked_fill(~certain, torch.inf).amin(1, keepdim=True)
            unclear = ~certain & (squares.high[index] != squares.low[index])
            unclear &= distance.isfinite() & (distance <= limit)
            self.mean_squares(torch.unique(index[unclear]), k, squares)
            nearest = distance.masked_fill(~possibly_denser(rows, index), torch.inf).amin(1)
            return nearest, nearest <= floor

        return self.ask(tokens, possibly_denser, answer, torch.zeros_like(squares.low))[tokens]

    def nearest_centers(self, tokens: Tensor, centers: Tensor) -> Tensor:
        """The nearest centre of `tokens`, as token numbers (n,); of equally near ones the first.

        `tokens`: (n,). `centers`: (B * N,) whether a token is a centre.
        """

        def is_center(rows: Tensor, columns: Tensor) -> Tensor:
            return centers[columns.clamp_max(len(centers) - 1)]

        def answer(nominees: Nominees, distance: Tensor) -> tuple[Tensor, Tensor]:
            nearest = distance.amin(1)
            first = nominees.columns.masked_fill(distance > nearest[:, None], len(centers)).amin(1)
            return first, (nearest < nominees.floor) | nominees.floor.isinf()

        return self.ask(tokens, is_center, answer, tokens.new_zeros(len(centers)))[tokens]
