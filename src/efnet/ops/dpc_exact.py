"""Equations 1-3 in float64 for the few tokens that bounds leave open.

EFNet, arXiv 2501.10958. A question (which are the k nearest tokens, which is the nearest denser token, the
nearest centre) is asked of ever larger sets of candidates until an answer is proved: the best of a token's
window, the best of all tokens, all tokens. Candidates are compared by plain differences, to which equal
tokens are equally far: on that rests the order of ties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from efnet.ops.dpc_bounds import Bounds
from efnet.ops.dpc_scan import RELATIVE, Points, Scan, WindowScan

_WINDOW_CANDIDATES = 4
_SAMPLE_CANDIDATES = 8
_CHUNK_BYTES = 16 << 20


class Candidates(NamedTuple):
    """Tokens that may answer a question about n tokens.

    Attributes:
        tokens: (n, c) token numbers.
        distance: (n, c) float64, by plain differences; infinite where there is no candidate.
        floor: (n,) float64, every token that is eligible and not a candidate is at least that far.
    """

    tokens: Tensor
    distance: Tensor
    floor: Tensor


Eligible = Callable[[Tensor, Tensor], Tensor]
"""Of tokens (n,) and others, (n, S) or (1, S): may the others answer? Never the token itself."""

Answer = Callable[[Tensor, Candidates], tuple[Tensor, Tensor]]
"""Of tokens (n,) and their candidates: answers (n,) and whether they are proved (n,)."""


class Exact:
    """Answers questions about tokens of a batch, by candidates of growing number.

    Args:
        scan: the tokens; of windows, also their distances.
        k: neighbours that questions ask for at most.
        among: (B, S) the only tokens that are eligible for an answer; None: all.
    """

    def __init__(self, scan: Scan, k: int, among: Tensor | None = None) -> None:
        self.points = scan.points
        self.window = scan if isinstance(scan, WindowScan) else None
        self.k = k
        self.among = among
        self._others: dict[int, _Others] = {}
        self._place: Tensor | None = None

    def ask(self, tokens: Tensor, eligible: Eligible, answer: Answer, out: Tensor) -> Tensor:
        """Write the answer for each of `tokens` into `out`, (B * N,)."""
        stages = [self._of_sample, self._everything]
        if self.window is not None:
            stages.insert(0, self._of_window)
        for stage in stages:
            left = []
            for part, candidates in stage(tokens, eligible):
                value, proved = answer(part, candidates)
                out[part] = torch.where(proved, value, out[part])
                left.append(part[~proved])
            tokens = torch.cat(left) if left else tokens
            if not len(tokens):
                break
        return out

    def _of_window(self, tokens: Tensor, eligible: Eligible) -> Iterator[tuple[Tensor, Candidates]]:
        """The nearest few within the window, by its kept distances."""
        window = self.window
        assert window is not None
        if self._place is None:
            slots = torch.arange(window.tiles.rows.numel(), device=tokens.device)
            self._place = slots.new_empty(self.points.none + 1)
            self._place[window.tiles.rows.flatten()] = slots
        count = min(_WINDOW_CANDIDATES + self.k, window.distance.shape[1])
        for part in self._chunks(tokens, count):
            tile, row = self._place[part] // window.error.shape[1], self._place[part] % window.error.shape[1]
            columns = window.tiles.columns[tile]
            distance = window.distance[tile, :, row]
            distance = distance.masked_fill(~eligible(part, columns), torch.inf)
            near, place = distance.topk(count, 1, largest=False)
            floor = (near[:, -1] * (1 - RELATIVE) - window.error[tile, row]).clamp_min(0)
            floor = torch.minimum(floor, window.tiles.bound[tile, row]).double()
            yield part, self._measure(part, columns.gather(1, place), near.isinf(), floor)

    def _of_sample(self, tokens: Tensor, eligible: Eligible) -> Iterator[tuple[Tensor, Candidates]]:
        """The nearest few of all tokens, by float64 matrix multiplication."""
        points = self.points
        for sample in range(points.batch):
            first = sample * points.tokens
            own = tokens[(tokens >= first) & (tokens < first + points.tokens)]
            if not len(own):
                continue
            if sample not in self._others:
                self._others[sample] = _Others(points, sample, self.among)
            others = self._others[sample]
            columns = others.columns
            count = min(_SAMPLE_CANDIDATES + self.k, len(columns))
            for part in self._chunks(own, len(columns) // points.features.shape[1] + 1):
                distance, error = others.distances(part)
                distance.masked_fill_(~eligible(part, columns[None]), torch.inf)
                near, place = distance.topk(count, 1, largest=False)
                floor = (near[:, -1] * (1 - RELATIVE**2) - error).clamp_min(0)
                floor = floor if count < len(columns) else torch.full_like(floor, torch.inf)
                yield part, self._measure(part, columns[place], near.isinf(), floor)

    def _everything(self, tokens: Tensor, eligible: Eligible) -> Iterator[tuple[Tensor, Candidates]]:
        """All tokens of the sample: what no error bound can tell apart."""
        points = self.points
        order = torch.arange(points.tokens, device=tokens.device)
        for part in self._chunks(tokens, points.tokens):
            columns = part[:, None] // points.tokens * points.tokens + order
            absent = ~eligible(part, columns)
            floor = torch.full((len(part),), torch.inf, dtype=torch.float64, device=tokens.device)
            yield part, self._measure(part, columns, absent, floor)

    def _measure(self, tokens: Tensor, index: Tensor, absent: Tensor, floor: Tensor) -> Candidates:
        """Distances of tokens (n,) to candidates (n, c) by plain differences in float64."""
        points = self.points
        index = index.clamp_max(points.none - 1)
        distance = points.features[index].double().sub_(points.features[tokens, None].double())
        distance = distance.square_().sum(-1).sqrt_().div_(points.scale)
        if points.positions is not None:
            y, z = points.positions[tokens, None].double(), points.positions[index].double()
            distance.add_((y - z).square_().sum(-1).sqrt_(), alpha=points.spatial_weight)
        return Candidates(index, distance.masked_fill_(absent, torch.inf), floor)

    def _chunks(self, tokens: Tensor, candidates: int) -> tuple[Tensor, ...]:
        """Tokens in parts whose candidates' features fill a bounded memory."""
        size = 8 * candidates * self.points.features.shape[1]
        return torch.split(tokens, max(1, _CHUNK_BYTES // size)) if len(tokens) else ()


class _Others:
    """Tokens in float64, for distances by matrix multiplication."""

    def __init__(self, points: Points, sample: int, among: Tensor | None) -> None:
        self.points = points
        first = sample * points.tokens
        if points.table.dtype == torch.float64:
            self.all = points.table[:-1, :-2]
        else:
            features = points.features.double()
            centre = features[first : first + points.tokens].mean(0)
            self.all = (features - centre) / points.scale
        if among is None:
            self.columns = torch.arange(first, first + points.tokens, device=points.device)
            self.features = self.all[first : first + points.tokens]
        else:
            self.columns = among[sample]
            self.features = self.all[self.columns]
        self.squares = self.features.square().sum(1)

    def distances(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """(n, S) distances of tokens (n,), and (n,) their error; to itself infinite."""
        points = self.points
        x = self.all[part]
        own = x.square().sum(1, keepdim=True)
        distance = torch.addmm(own + self.squares, x, self.features.T, alpha=-2)
        distance.masked_fill_(part[:, None] == self.columns, torch.inf)
        nearest = distance.amin(1).clamp_min(0).sqrt()
        error = (own[:, 0].sqrt() + self.squares.amax().sqrt()).square()
        error = error * ((4 * x.shape[1] + 64) * torch.finfo(torch.float64).eps) + 1e-290
        error = torch.minimum(error / nearest.clamp_min(1e-290), error.sqrt())
        distance.clamp_min_(0).sqrt_()
        if points.positions is not None:
            places = points.positions[self.columns].double()
            spatial = torch.zeros_like(distance)
            for y, z in zip(points.positions[part].double().unbind(1), places.unbind(1), strict=True):
                spatial += (y[:, None] - z).square_()
            distance.add_(spatial.sqrt_(), alpha=points.spatial_weight)
        return distance, error


def mean_squares(exact: Exact, tokens: Tensor, k: int, squares: Bounds) -> None:
    """Close the bounds of the mean squared distance (equation 2) of `tokens`, in place."""

    def others(rows: Tensor, columns: Tensor) -> Tensor:
        return columns != rows[:, None]

    def answer(rows: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor]:
        nearest = candidates.distance.topk(min(k - 1, candidates.distance.shape[1]), 1, largest=False).values
        itself = nearest.new_zeros(len(nearest), 1)
        nearest = torch.cat([itself, nearest], 1)
        # Sorted, so that equal sets of distances add up to bit-equal densities.
        return nearest.square().mean(1), nearest[:, -1] <= candidates.floor

    values = exact.ask(tokens, others, answer, squares.low.clone())
    squares.low[tokens] = values[tokens]
    squares.high[tokens] = values[tokens]


def separations(exact: Exact, tokens: Tensor, k: int, squares: Bounds) -> Tensor:
    """Equation 3 for `tokens`, whose mean squares are exact, (n,); infinite where nothing is denser."""

    def possibly_denser(rows: Tensor, columns: Tensor) -> Tensor:
        density = (-squares.high[rows, None]).exp()
        highest = (-squares.low[columns.clamp_max(len(squares.low) - 1)]).exp()
        return (highest > density) | ((highest == density) & (columns < rows[:, None]))

    def answer(rows: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor]:
        index, distance = candidates.tokens, candidates.distance
        # What may be denser, and is nearer than all that certainly are, needs its own density.
        certain = (-squares.high[index]).exp() > (-squares.low[rows, None]).exp()
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

    Args:
        exact: the distances.
        tokens: (n,).
        centers: (B * N,) whether a token is a centre.
    """

    def is_center(rows: Tensor, columns: Tensor) -> Tensor:
        return centers[columns.clamp_max(len(centers) - 1)].expand(len(rows), -1)

    def answer(rows: Tensor, candidates: Candidates) -> tuple[Tensor, Tensor]:
        nearest = candidates.distance.amin(1)
        first = candidates.tokens.masked_fill(candidates.distance > nearest[:, None], len(centers)).amin(1)
        return first, (nearest < candidates.floor) | candidates.floor.isinf()

    out = tokens.new_zeros(len(centers))
    return exact.ask(tokens, is_center, answer, out)[tokens]
