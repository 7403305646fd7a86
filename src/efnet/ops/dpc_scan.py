"""Fast distances with a proof of their error: float32 matrix multiplications, block by block.

A block compares R tokens with S others. Every approximate distance D of a row is within
D * 2^-20 + error of the true one, so that what it decides clearly it decides rightly; the rest is left to
`dpc_exact`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from efnet.ops.dpc_tiles import Tiles

RELATIVE = 2.0**-20
"""Bound of the relative rounding error of a float32 distance once its square is known."""

_BLOCK_BYTES = {"cpu": 4 << 20}
"""Size of a block of distances: on a CPU what stays in its cache."""

_OTHER_BLOCK_BYTES = 256 << 20

_WHOLE_BLOCKS = 4
"""Blocks without windows are larger by this factor: their columns are gathered for each anew."""

_KEPT_BYTES = 48 << 20
"""Distances without windows that are kept from one pass to the next."""

_TINY = 1e-30
"""Keeps quotients finite and covers what underflows."""

_TOURNAMENT = 7
"""Up to so many neighbours a tournament is faster than torch.topk."""


class Block(NamedTuple):
    """Approximate distances of t tiles.

    Attributes:
        rows: (t, R) tokens, numbered through the batch; B * N: none.
        columns: (t, S) tokens that they are compared with.
        distance: (t, S, R) float32; infinite to itself and to none.
        error: (t, R) absolute error of a row's distances.
        bound: (t, R) no token outside the columns is nearer.
    """

    rows: Tensor
    columns: Tensor
    distance: Tensor
    error: Tensor
    bound: Tensor

    def low(self, distance: Tensor) -> Tensor:
        """Lower bound of the true distance, (t, R)."""
        return (distance * (1 - RELATIVE) - self.error).clamp_min(0)

    def high(self, distance: Tensor) -> Tensor:
        """Upper bound of the true distance, (t, R)."""
        return distance * (1 + RELATIVE) + self.error


class Points:
    """The tokens of a batch, numbered 0 to B * N - 1, as equation 1 measures them.

    Args:
        features: (B, N, C).
        positions: (B, N, P) or None.
        spatial_weight: weight of the spatial distance.
        precise: multiply in float64, not float32. It costs twice as much and leaves next to nothing open.
    """

    def __init__(
        self, features: Tensor, positions: Tensor | None, spatial_weight: float, precise: bool
    ) -> None:
        self.batch, self.tokens, channels = features.shape
        self.none = self.batch * self.tokens
        self.features = features.flatten(0, 1)
        self.positions = None if positions is None else positions.flatten(0, 1)
        self.spatial_weight = spatial_weight
        self.device = features.device
        self.scale = math.sqrt(channels)
        dtype = torch.float64 if precise else torch.float32
        # A row of the table is (x, |x|^2, 1); its product with a partner (-2 y, 1, |y|^2) is
        # |x|^2 + |y|^2 - 2 x.y. Distances do not change by a shift, rounding errors grow with the norm.
        self.table = features.new_zeros(self.none + 1, channels + 2, dtype=dtype)
        centred = self.table[:-1].view(*features.shape[:2], channels + 2)[..., :-2]
        # In float64, so that equal tokens become exact zeros.
        centre = features[:, :: max(1, self.tokens // 64)].double().mean(1, keepdim=True).to(features.dtype)
        if torch.promote_types(features.dtype, dtype) == dtype:
            centred.copy_(features).sub_(centre)
        else:
            centred.copy_(features - centre)
        centred.mul_(1 / self.scale)
        self.norm = torch.linalg.vector_norm(self.table, dim=1)
        self.table[:, -2] = self.norm.square()
        self.table[-1, -2] = torch.inf
        self.table[:, -1] = 1
        # Twice C + 2 roundings of products and squares, and some of the centring.
        self.rounding = (2 * channels + 24) * torch.finfo(dtype).eps
        self.place: Tensor | None = None
        self.place_error = torch.zeros((), device=self.device)
        if self.positions is not None:
            place = self.positions.float()
            self.place = torch.nn.functional.pad(place.T, (0, 1))
            if self.positions.dtype == torch.float64:
                moved = (self.positions - place).square().sum(1).sqrt().amax()
                self.place_error = (2 * spatial_weight * moved).float() * (1 + RELATIVE)

    def compare(self, rows: Tensor, columns: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Approximate distances of tiles to their windows.

        Args:
            rows: (t, R) tokens.
            columns: (t, S) tokens.
            own: (t, R) column of each row's own token, if it has one.

        Returns:
            distance (t, S, R) and error (t, R), as of `Block`.
        """
        partner = self.table[rows]
        squares = partner[..., -2].clone()
        partner.mul_(-2)
        partner[..., -2] = 1
        partner[..., -1] = squares
        distance = torch.bmm(self.table[columns], partner.mT)
        if own is not None:
            distance.scatter_(1, own[:, None], torch.inf)
        # |sqrt(a) - sqrt(b)| is at most |a - b| / sqrt(a), and at most sqrt(|a - b|).
        norm = self.norm[rows] + self.norm[columns].amax(1, keepdim=True)
        error = norm.square() * self.rounding + _TINY
        nearest = distance.amin(1).clamp_min_(0).sqrt_().clamp_min_(_TINY)
        error = torch.minimum(error / nearest, error.sqrt())
        distance, error = distance.clamp_min_(0).sqrt_().float(), error.float()
        if self.place is not None:
            distance.add_(self._spatial(rows, columns), alpha=self.spatial_weight)
            error = error + self.place_error
        return distance, error

    def _spatial(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(t, S, R) distances of positions; by differences, so that their error is relative."""
        assert self.place is not None
        total = torch.zeros((), device=self.device)
        for axis in self.place:
            difference = axis[columns][..., None] - axis[rows][:, None]
            total = difference.square_() if total.ndim == 0 else total.addcmul_(difference, difference)
        return total.sqrt_()


class WindowScan:
    """Every token against the window of its tile; the distances are kept."""

    def __init__(self, points: Points, tiles: Tiles) -> None:
        self.points = points
        self.tiles = tiles
        shape = (len(tiles.rows), tiles.columns.shape[1], tiles.rows.shape[1])
        self.step = _step(4 * shape[1] * shape[2], points.device)
        self.distance = torch.empty(shape, device=points.device)
        self.error = torch.empty(tiles.rows.shape, device=points.device)
        gathered = points.table.element_size() * shape[1] * (points.table.shape[1] + shape[2])
        for part in self._parts(_step(gathered, points.device)):
            self.distance[part], self.error[part] = points.compare(
                tiles.rows[part], tiles.columns[part], tiles.own[part]
            )

    def _parts(self, step: int) -> list[slice]:
        return [slice(start, start + step) for start in range(0, len(self.tiles.rows), step)]

    def blocks(self) -> Iterator[Block]:
        """All distances, some tiles at a time."""
        for part in self._parts(self.step):
            yield Block(
                self.tiles.rows[part],
                self.tiles.columns[part],
                self.distance[part],
                self.error[part],
                self.tiles.bound[part],
            )


class WholeScan:
    """Every token against all of its sample, or some; but for few tokens every pass measures anew.

    Args:
        points: the tokens.
        columns: (B, S) the tokens of each sample to compare with; None: all, except with themselves.
    """

    def __init__(self, points: Points, columns: Tensor | None = None) -> None:
        self.points = points
        self.columns = columns
        self.kept = columns is None and 4 * points.none * points.tokens <= _KEPT_BYTES
        self._blocks: list[Block] = []

    def blocks(self) -> Iterable[Block]:
        """All distances, some rows of one sample at a time."""
        if self.kept and not self._blocks:
            self._blocks = list(self._compare())
        return self._blocks if self.kept else self._compare()

    def _compare(self) -> Iterator[Block]:
        points = self.points
        tokens = torch.arange(points.tokens, device=points.device)[None]
        for sample in range(points.batch):
            first = sample * points.tokens
            columns = tokens + first if self.columns is None else self.columns[sample, None]
            step = _step(4 * columns.shape[1], points.device, _WHOLE_BLOCKS)
            for start in range(0, points.tokens, step):
                own = tokens[:, start : start + step]
                rows = own + first
                distance, error = points.compare(rows, columns, own if self.columns is None else None)
                yield Block(rows, columns, distance, error, torch.full_like(error, torch.inf))


Scan = WindowScan | WholeScan


def _step(size: int, device: torch.device, factor: int = 1) -> int:
    """How many parts of `size` bytes make a block."""
    return max(1, factor * _BLOCK_BYTES.get(device.type, _OTHER_BLOCK_BYTES) // size)


def smallest(values: Tensor, count: int) -> list[Tensor]:
    """The `count` smallest of the columns of a block, ascending: a tournament of sorted lists.

    Args:
        values: (t, S, R).
        count: 1 or more; what S lacks is infinite.

    Returns:
        `count` tensors (t, R).
    """
    if count > _TOURNAMENT:
        padding = (0, 0, 0, max(0, count - values.shape[1]))
        padded = torch.nn.functional.pad(values, padding, value=torch.inf)
        return list(padded.topk(count, 1, largest=False).values.unbind(1))
    lists = [values]
    while lists[0].shape[1] > 1:
        width = lists[0].shape[1]
        if width % 2:
            lists = [torch.nn.functional.pad(v, (0, 0, 0, 1), value=torch.inf) for v in lists]
        half = (width + 1) // 2
        lists = _merge([v[:, :half] for v in lists], [v[:, half:] for v in lists], count)
    missing = [torch.full_like(lists[0], torch.inf)] * (count - len(lists))
    return [v.squeeze(1) for v in lists + missing]


def _merge(a: list[Tensor], b: list[Tensor], count: int) -> list[Tensor]:
    """First `count` of two ascending lists a and b merged.

    Of rank m in the union is the least of a[m], b[m] and max(a[i], b[j]), i + j = m - 1.
    """
    merged = []
    for rank in range(min(count, 2 * len(a))):
        best = torch.minimum(a[rank], b[rank]) if rank < len(a) else None
        for i in range(max(0, rank - len(b)), min(rank, len(a))):
            larger = torch.maximum(a[i], b[rank - 1 - i])
            best = larger if best is None else torch.minimum(best, larger)
        assert best is not None
        merged.append(best)
    return merged
