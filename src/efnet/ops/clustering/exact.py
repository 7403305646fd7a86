"""Equations 1-3 in float64 for the few tokens that bounds leave open.

EFNet, arXiv 2501.10958. A question (which are the k nearest tokens, which is the nearest denser token, the
nearest centre) is asked of ever larger sets of candidates until an answer is proved: those the scan names,
the best of all tokens, all tokens. Candidates are compared by plain differences, to which equal tokens are
equally far: on that rests the order of ties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from efnet.ops.clustering.bounds import Bounds, Nominees, Scan, fewest_of
from efnet.ops.clustering.distances import Points, mean_square
from efnet.ops.clustering.neighbors import Eligible, Others

_SPARE = 2  # candidates beyond those asked for, against ties and rounding
_FEW = 4  # up to so many tokens differences cost less than to make the products' tables

_ROWS_BYTES = 32 << 20


class Candidates(NamedTuple):
    """Tokens that may answer a question about n tokens."""

    tokens: Tensor  # (n, c) token numbers
    distance: Tensor  # (n, c) float64, by plain differences; infinite where there is no candidate
    floor: Tensor  # (n,) float64, every token that is eligible and not a candidate is at least that far


Answer = Callable[[Tensor, Candidates], tuple[Tensor, Tensor]]
"""Answers (n,) for tokens (n,) and their candidates, and whether they are proved (n,)."""


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
                candidates = self._measure(nominees)
                value, proved = answer(nominees.rows, candidates)
                out[nominees.rows] = torch.where(proved, value, out[nominees.rows])
                left.append(nominees.rows[~proved])
            tokens = torch.cat(left) if left else tokens
            if not len(tokens):
                break
        return out

    def _of_sample(self, tokens: Tensor, eligible: Eligible, count: int) -> Iterator[Nominees]:
        """The nearest few of all tokens."""
        points = self.points
        for sample in range(points.batch):
            first = sample * points.tokens
            own = tokens[(tokens >= first) & (tokens < first + points.tokens)]
            if not len(own):
                continue
            if len(own) <= _FEW:
                # Often hardly any is eligible: few are denser than a peak.
                every = self.among[sample][None].expand(len(own), -1)
                distance = points.apart_where(eligible(own, every), own, every)
                yield fewest_of(points, own, every, distance, count)
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
        points = self.points
        size = 8 * self.among.shape[1]
        for rows in torch.split(tokens, max(1, _ROWS_BYTES // size)):
            columns = self.among[rows // points.tokens]
            floor = torch.full((len(rows),), torch.inf, dtype=torch.float64, device=rows.device)
            yield Nominees(rows, columns, ~eligible(rows, columns), floor)

    def _measure(self, nominees: Nominees) -> Candidates:
        """Distances by plain differences in float64, of those that are present."""
        rows, columns, absent, floor = nominees
        distance = self.points.apart_where(~absent, rows, columns, exact=True)
        return Candidates(columns.clamp_max(self.points.none - 1), distance, floor)


def mean_squares(exact: Exact, tokens: Tensor, k: int, squares: Bounds) -> None:
    """Close the bounds of the mean squared distance (equation 2) of `tokens`, in place."""

    def others(rows: Tensor, columns: Tensor) -> Tensor:
        return columns != rows[:, None]

    def answer(rows: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor]:
        nearest = candidates.distance.topk(min(k - 1, candidates.distance.shape[1]), 1, largest=False).values
        proved = nearest[:, -1] <= candidates.floor if k > 1 else candidates.floor >= 0
        return mean_square(nearest, k), proved

    values = exact.ask(tokens, others, answer, squares.low.clone())
    squares.low[tokens] = values[tokens]
    squares.high[tokens] = values[tokens]


def separations(exact: Exact, tokens: Tensor, k: int, squares: Bounds) -> Tensor:
    """Equation 3 for `tokens`, whose mean squares are exact, (n,); infinite where nothing is denser."""

    def possibly_denser(rows: Tensor, columns: Tensor) -> Tensor:
        own, least = squares.high[rows, None], squares.low[columns.clamp_max(len(squares.low) - 1)]
        return (least < own) | ((least == own) & (columns < rows[:, None]))

    def answer(rows: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor]:
        index, distance = candidates.tokens, candidates.distance
        # What may be denser, and is nearer than all that certainly are, needs its own density.
        certain = squares.high[index] < squares.low[rows, None]
        limit = distance.masked_fill(~certain, torch.inf).amin(1, keepdim=True)
        unclear = ~certain & (squares.high[index] != squares.low[index])
        unclear &= distance.isfinite() & (distance <= limit)
        mean_squares(exact, torch.unique(index[unclear]), k, squares)
        nearest = distance.masked_fill(~possibly_denser(rows, index), torch.inf).amin(1)
        return nearest, nearest <= candidates.floor

    out = exact.ask(tokens, possibly_denser, answer, torch.zeros_like(squares.low))
    return out[tokens]


def nearest_centers(exact: Exact, tokens: Tensor, centers: Tensor) -> Tensor:
    """The nearest centre of `tokens`, as token numbers (n,); of equally near ones the first.

    `exact`: the distances. `tokens`: (n,). `centers`: (B * N,) whether a token is a centre.
    """

    def is_center(rows: Tensor, columns: Tensor) -> Tensor:
        return centers[columns.clamp_max(len(centers) - 1)]

    def answer(rows: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor]:
        nearest = candidates.distance.amin(1)
        first = candidates.tokens.masked_fill(candidates.distance > nearest[:, None], len(centers)).amin(1)
        return first, (nearest < candidates.floor) | candidates.floor.isinf()

    out = tokens.new_zeros(len(centers))
    return exact.ask(tokens, is_center, answer, out)[tokens]
