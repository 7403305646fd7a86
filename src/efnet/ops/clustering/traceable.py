"""Clustering by plain float32 operators, for recorded programs: exports, CUDA graphs, traces.

An exported program takes any batch and any number of tokens. Each of its three searches (neighbours, nearest
denser token, nearest centre) first looks at a `Window` of tokens near each one, whose bound proves most
answers; what is left open is compared with all tokens, a block of rows at a time, in a loop that can be
exported: how many turns it takes depends on the data. No N x N matrix exists. Where nothing may depend on the
data, a CUDA graph compares all tokens with all, in the same blocks, and a program in `static_form` up to
`_MOST` open tokens: a trained EFNet has some hundred. More would keep what their windows found.

Tokens are found by products, about the mean of a sample's features; densities are measured by differences,
since a product knows little of a distance near zero. Tokens are ranked by the mean square, as in `dpc_knn`;
equal mean squares, scores and distances are ordered by index after that rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from efnet.core.compat import is_static, while_loop
from efnet.ops.clustering.tiling import HUGE, NEAR_TILES, least_stretch, tile
from efnet.ops.tokens import sample_offsets

_LARGEST, _UNIT = 2.0**40, 2.0**90  # larger coordinates are divided by the second: squares would overflow

_ROWS = 128  # rows compared with all tokens of their sample in one turn of the loop
_FIXED_ROWS = 2048  # the same where the number of turns is fixed
_MOST = 1024  # open tokens that one search of a static program compares with all
_CELLS, _HALO = 8, 4  # side of a tile on a grid, and how far its window goes beyond it on each side, in cells
_TILE = 64  # tokens of a tile off the grid
_BAND = 8  # tiles of a band, where the number of tokens is a symbol
_NONE = 2**62  # larger than any cell's number
_SAFE = 1 - 2.0**-16  # keeps rounding on the safe side of a bound


class Table(NamedTuple):
    """The tokens of a batch, ready to be compared."""

    # (B, N, C + 2) rows (x, |x|^2, 1), x about the sample's mean and divided by sqrt(C): the product with a
    # partner (-2 y, 1, |y|^2) is the squared distance
    values: Tensor
    places: Tensor | None  # (B, N, P) weighted positions, or None
    unit: Tensor  # (B, 1) what all distances are divided by, a power of two: 1 unless squares would overflow

    @classmethod
    def of(cls, features: Tensor, positions: Tensor | None, spatial_weight: float) -> Self:
        """From features (B, N, C) and positions (B, N, P); tokens that hold NaN or infinity are zeros."""
        features = features.float()
        finite = (features.abs() <= torch.finfo(torch.float32).max).all(-1, keepdim=True)
        features = torch.where(finite, features, 0.0)
        places = None if positions is None or spatial_weight == 0 else positions.float() * spatial_weight
        largest = features.abs().amax(2).amax(1, keepdim=True)
        if places is not None:
            largest = torch.maximum(largest, places.abs().amax(2).amax(1, keepdim=True))
        unit = torch.where(largest > _LARGEST, _UNIT, torch.ones_like(largest))
        features = features / unit[..., None]
        centred = (features - features.mean(1, keepdim=True)) / math.sqrt(features.shape[2])
        return cls(_augmented(centred), None if places is None else places / unit[..., None], unit)


def _augmented(values: Tensor) -> Tensor:
    """Rows (x, |x|^2, 1)."""
    return torch.cat([values, values.square().sum(-1, keepdim=True), torch.ones_like(values[..., :1])], -1)


def _partner(rows: Tensor) -> Tensor:
    """Rows (-2 x, 1, |x|^2) for rows (x, |x|^2, 1)."""
    return torch.cat([-2 * rows[..., :-2], rows[..., -1:], rows[..., -2:-1]], -1)


def _distances(rows: Tensor, columns: Tensor, row_places: Tensor | None, places: Tensor | None) -> Tensor:
    """(m, n) distances of equation 1 between rows (m, C + 2) and columns (n, C + 2) of tables."""
    # Rounding may leave a zero negative.
    distance = (_partner(rows) @ columns.T).abs().sqrt()
    return distance if row_places is None or places is None else distance + _spatial(row_places, places)


def _spatial(rows: Tensor, columns: Tensor) -> Tensor:
    """(..., R, S) distances between places (..., R, P) and (..., S, P), by differences."""
    total = (rows[..., 0, None] - columns[..., None, :, 0]).square()
    for axis in range(1, rows.shape[-1]):
        total = total + (rows[..., axis, None] - columns[..., None, :, axis]).square()
    return total.sqrt()


@dataclass(frozen=True)
class Window:
    """T tiles of R tokens, each token compared with the S tokens of its tile's window."""

    distance: Tensor  # (B, T, R, S)
    row: Tensor  # (B, T, R) the tokens of a tile, N for none
    column: Tensor  # (B, T, S) the tokens of a window, N for none
    place: Tensor  # (B, N) where in T * R a token is
    bound: Tensor  # (B, N) no token outside its window is nearer

    @classmethod
    def of_tokens(cls, distance: Tensor, token: Tensor) -> Self:
        """One tile for each token, whose window is its k nearest tokens (B, N, k) at these distances."""
        number = torch.arange(token.shape[1], device=token.device).expand(token.shape[:2])
        return cls(distance[:, :, None], number[..., None], token, number, distance.amax(2))

    def nearest(self, k: int) -> list[Tensor]:
        """Distances and numbers (B, N, k) of the nearest; what a window lacks is farther than any bound."""
        near = self.distance.topk(k, 3, largest=False)
        return [by_token(near.values, self.place), by_token(self._tokens(near.indices), self.place)]

    def nearest_denser(self, rank: Tensor) -> Tensor:
        """(B, N) distance to the nearest token of lower rank (B, N) in the window; huge: there is none."""
        ranks = torch.cat([rank, torch.full_like(rank[:, :1], 2.0**24)], 1)
        theirs, own = (_taken(ranks, number) for number in (self.column, self.row))
        apart = _masked_by_rank(self.distance, theirs[:, :, None], own[..., None]).amin(3)
        return by_token(apart[..., None], self.place)[..., 0]

    def nearest_allowed(self, barred: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and number (B, N) of the nearest token that is not `barred` (B, N) by a huge number."""
        penalty = torch.cat([barred, torch.full_like(barred[:, :1], HUGE)], 1)
        distance, index = (self.distance + _taken(penalty, self.column)[:, :, None]).min(3)
        token = self._tokens(index[..., None])
        return by_token(distance[..., None], self.place)[..., 0], by_token(token, self.place)[..., 0]

    def _tokens(self, index: Tensor) -> Tensor:
        """Numbers (B, T, R, c) of tokens by place in the window; none becomes the last token."""
        found = self.column.gather(2, index.flatten(2)).view(index.shape)
        return found.clamp_max(self.place.shape[1] - 1)


def by_token(values: Tensor, place: Tensor) -> Tensor:
    """Values of tiles (B, T, R, c) as values of tokens (B, N, c), which are at `place` (B, N) in T * R."""
    batch, tiles, rows, width = values.shape
    flat = values.reshape(batch * tiles * rows, width)
    number = place + sample_offsets(batch, tiles * rows, place.device)
    return flat.index_select(0, number.flatten()).view(batch, place.shape[1], width)


def _taken(values: Tensor, number: Tensor) -> Tensor:
    """Values (B, N + 1) by number (B, T, S)."""
    return values.gather(1, number.flatten(1)).view(number.shape)


def _rows(values: Tensor, number: Tensor) -> Tensor:
    """Rows of values (B, N, c) by number (B, T, S): (B, T, S, c)."""
    batch, total, width = values.shape
    flat = number + sample_offsets(batch, total, number.device)[..., None]
    return values.flatten(0, 1).index_select(0, flat.flatten()).view(*number.shape, width)


def _products(table: Table, row: Tensor, column: Tensor) -> Tensor:
    """(B, T, R, S) semantic distances between tokens by number, farther than any bound where one is none."""
    none = torch.zeros_like(table.values[:, :1])
    none[..., -2:] = torch.tensor([HUGE, 1.0], device=none.device)
    values = torch.cat([table.values, none], 1)
    return (_partner(_rows(values, row)) @ _rows(values, column).transpose(2, 3)).abs().sqrt()


def window_on_grid(table: Table, grid: tuple[int, int]) -> Window:
    """Tiles of cells of a regular grid (h, w), each compared with the cells around it.

    With positions y = a + A (row, column), cells an offset o apart are at least ||o|| times the smallest
    singular value of A apart (EFNet, arXiv 2501.10958, equation 1): that bounds what is beyond a window.
    """
    assert table.places is not None
    height, width = grid
    batch, device = table.values.shape[0], table.values.device
    down, across = (height + _CELLS - 1) // _CELLS, (width + _CELLS - 1) // _CELLS
    side = torch.arange(_CELLS + 2 * _HALO, device=device) - _HALO
    row = (torch.arange(down, device=device) * _CELLS)[:, None, None, None] + side[:, None]
    column = (torch.arange(across, device=device) * _CELLS)[:, None, None] + side
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    cells = (row * width + column).masked_fill(~inside, _NONE).clamp_max(height * width)
    cells = cells.flatten(0, 1).flatten(1).repeat(batch, 1, 1)  # (B, T, S)
    inner = torch.arange(_CELLS, device=device) + _HALO
    own = cells[:, :, (inner[:, None] * (_CELLS + 2 * _HALO) + inner).flatten()]
    y, x = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    place = (y // _CELLS * across + x // _CELLS) * _CELLS**2 + y % _CELLS * _CELLS + x % _CELLS
    place = place.flatten().repeat(batch, 1)
    # How a weighted position changes from row to row and from column to column: the same for all tiles.
    first, last_row, last_column = (table.places[0, at] for at in (0, (height - 1) * width, width - 1))
    ends = ((last_row, height), (last_column, width))
    steps = [(last - first) / torch.scalar_tensor(count - 1) for last, count in ends]
    offset = (side - torch.arange(_CELLS, device=device)[:, None]).float()  # (CELLS, CELLS + 2 HALO)
    moved = offset[:, None, :, None, None] * steps[0] + offset[None, :, None, :, None] * steps[1]
    spatial = moved.square().sum(-1).sqrt().flatten(2).flatten(0, 1)  # (R, S)
    bound = _beyond(*steps).flatten()[place % _CELLS**2]
    return Window(_products(table, own, cells) + spatial, own, cells, place, bound)


def _beyond(down: Tensor, right: Tensor) -> Tensor:
    """(CELLS, CELLS) cells outside the window of a tile's cell are at least so far from it."""
    least = least_stretch(down, right, 2.0**-20).clamp_min(0).sqrt()
    cell = torch.arange(_CELLS, device=down.device)
    gap = torch.minimum(cell, _CELLS - 1 - cell) + _HALO + 1
    return torch.minimum(gap[:, None], gap).float() * least * _SAFE


def window_off_grid(table: Table) -> Window:
    """Tiles of tokens anywhere in the plane, each compared with the tiles nearest to it (`tiling.tile`)."""
    assert table.places is not None
    tokens = table.values.shape[1]
    # As many bands as tiles in a band make a tile of a wide image about square.
    band = max(1, round(math.sqrt(tokens / _TILE))) if isinstance(tokens, int) else _BAND
    row, column, bound = tile(table.places, _TILE, band)
    places = torch.cat([table.places, table.places[:, -1:]], 1)
    distance = _products(table, row, column) + _spatial(_rows(places, row), _rows(places, column))
    # Empty places come last.
    place = row.flatten(1).argsort(dim=1, stable=True)[:, :tokens]
    return Window(distance, row, column, place, by_token(bound[..., None] * _SAFE, place)[..., 0])


def cluster(
    features: Tensor, num_clusters: int, k: int, positions: Tensor | None, spatial_weight: float,
    grid: tuple[int, int] | None = None, fixed: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Equations 1-3 of EFNet (arXiv 2501.10958); arguments and result as of `dpc_knn`.

    `fixed`: compare all tokens with all, so that only values depend on the data.
    """
    if isinstance(features.shape[1], int):  # a comparison with a symbol would become a guard
        k = min(k, features.shape[1])
    table = Table.of(features, positions, spatial_weight)
    window = None if fixed else _window(table, k, grid)
    fixed = fixed or (window is None and is_static())
    distance, token = _neighbors(table, window, k, fixed)
    squares = _mean_square(distance)
    order = squares.argsort(dim=1, stable=True)
    number = torch.arange(squares.shape[1], device=squares.device).expand_as(order)
    rank = torch.zeros_like(order).scatter(1, order, number).float()
    window = window or Window.of_tokens(distance, token)
    delta = _separation(table, window, squares, rank, num_clusters, fixed)
    # A stable sort, not top-k: of equal scores the first wins.
    order = _scores(table, squares, rank, delta).argsort(dim=1, descending=True, stable=True)
    centers = order[:, :num_clusters].sort(1).values
    return _assign(table, window, centers, fixed), centers


def _window(table: Table, k: int, grid: tuple[int, int] | None) -> Window | None:
    if table.places is None:
        return None
    if grid is not None and k <= (_CELLS + 2 * _HALO) ** 2:
        return window_on_grid(table, grid)
    return window_off_grid(table) if table.places.shape[2] == 2 and k <= NEAR_TILES * _TILE else None


def _neighbors(table: Table, window: Window | None, k: int, fixed: bool = False) -> tuple[Tensor, Tensor]:
    """Distances and numbers (B, N, k) of the nearest tokens, found by products, measured by differences."""
    batch, tokens = table.values.shape[:2]
    if window is None:
        start = table.values.new_zeros(batch, tokens, k)
        known, open_ = [start, start.long()], torch.ones_like(start[..., 0])
    else:
        known = window.nearest(k)
        open_ = (known[0][..., -1] > window.bound).float()

    def nearest(apart: Tensor, rows: Tensor, sample: Tensor) -> list[Tensor]:
        return list(apart.topk(k, 1, largest=False))

    _, token = _answer(table, table, None if fixed else open_, known, nearest)

    def apart(values: Tensor) -> Tensor:
        return (_rows(values, token) - values[:, :, None]).square().sum(-1).sqrt()

    distance = apart(table.values[..., :-2])
    return distance if table.places is None else distance + apart(table.places), token


def _mean_square(distance: Tensor) -> Tensor:
    """(B, N) from distances (B, N, k): squares added one by one, from the nearest to the farthest."""
    total = torch.zeros_like(distance[..., 0])
    for apart in distance.sort(2).values.unbind(2):
        total = total + apart * apart
    return total * (1 / distance.shape[2])


def _masked_by_rank(distance: Tensor, ranks: Tensor, own: Tensor) -> Tensor:
    """Distances to denser tokens, huge ones to others; ranks are whole numbers that broadcast."""
    return torch.maximum(distance, (ranks + 0.5) * HUGE - own * HUGE)


def _scores(table: Table, squares: Tensor, rank: Tensor, separation: Tensor) -> Tensor:
    """(B, N) density times separation; the densest token, always a centre, has the largest."""
    density = (-squares * table.unit * table.unit).exp()
    return torch.where(rank == 0, 2.0**20 * HUGE, density * separation)


def _separation(
    table: Table, window: Window, squares: Tensor, rank: Tensor, num_clusters: int, fixed: bool
) -> Tensor:
    """(B, N) equation 3; of tokens that are centres for sure perhaps a lower bound of it."""
    delta = window.nearest_denser(rank)
    unsure = (delta > window.bound) & (rank > 0)
    low = torch.where(unsure, window.bound, delta)
    # Where all unsure ones are centres even so, nothing depends on how far they are.
    order = _scores(table, squares, rank, low).argsort(dim=1, descending=True, stable=True)
    beyond = torch.arange(rank.shape[1], device=rank.device) >= num_clusters
    missed = (unsure.gather(1, order) & beyond).any(1, keepdim=True)
    open_ = (unsure & missed).float()

    def denser(apart: Tensor, rows: Tensor, sample: Tensor) -> list[Tensor]:
        ranks = rank.index_select(0, sample)[0]
        return [_masked_by_rank(apart, ranks, ranks[rows][:, None]).amin(1)]

    return _answer(table, table, None if fixed else open_, [low], denser)[0]


def _assign(table: Table, window: Window, centers: Tensor, fixed: bool) -> Tensor:
    """(B, N) places of the nearest of `centers` (B, M)."""
    batch, tokens = table.values.shape[:2]
    number = torch.arange(centers.shape[1], device=centers.device).expand_as(centers)
    of_token = centers.new_full((batch, tokens), -1).scatter(1, centers, number)
    distance, token = window.nearest_allowed((of_token < 0).float() * HUGE)
    assignment = torch.where(of_token < 0, of_token.gather(1, token).clamp_min(0), of_token)
    open_ = ((distance > window.bound) & (of_token < 0)).float()
    index = centers[..., None]
    places = table.places
    chosen = Table(
        table.values.gather(1, index.expand(-1, -1, table.values.shape[2])),
        None if places is None else places.gather(1, index.expand(-1, -1, places.shape[2])),
        table.unit,
    )

    def center(apart: Tensor, rows: Tensor, sample: Tensor) -> list[Tensor]:
        return [apart.argmin(1)]

    found = _answer(table, chosen, None if fixed else open_, [assignment], center)[0]
    return torch.where(of_token < 0, found, of_token)


def _answer(
    table: Table, columns: Table, open_: Tensor | None, known: list[Tensor],
    ask: Callable[[Tensor, Tensor, Tensor], list[Tensor]],
) -> list[Tensor]:  # fmt: skip
    """Answers `known` (B, N, ...), with the rows of open tokens found anew among all columns.

    `table`: rows. `columns`: the tokens they are compared with. `open_`: (B, N) float32 0 or 1; None: all are
    open, and the number of turns is fixed. `known`: tensors (B, N, ...). `ask`: given distances (m, n), the
    tokens (m,) and the sample (1,), the new rows (m, ...).
    """

    def answers(rows: Tensor, sample: Tensor) -> list[Tensor]:
        own, others = table.values.index_select(0, sample)[0], columns.values.index_select(0, sample)[0]
        places = None if table.places is None else table.places.index_select(0, sample)[0][rows]
        other_places = None if columns.places is None else columns.places.index_select(0, sample)[0]
        return ask(_distances(own[rows], others, places, other_places), rows, sample)

    batch, tokens = table.values.shape[:2]
    if open_ is None:
        parts = torch.split(torch.arange(tokens, device=table.values.device), _FIXED_ROWS)
        samples = torch.split(torch.arange(batch, device=table.values.device), 1)
        found = [answers(rows, sample) for sample in samples for rows in parts]
        answers_of = zip(*found, strict=True)
        return [torch.cat(rows).view(like.shape) for rows, like in zip(answers_of, known, strict=True)]

    if is_static() and batch == 1:
        # Where fewer are open, closed ones fill up, whichever: their answers stay the same.
        rows = open_[0].topk(min(_MOST, tokens)).indices
        new = zip(known, answers(rows, torch.zeros_like(rows[:1])), strict=True)
        return [v.flatten(0, 1).index_put((rows,), a).view(v.shape) for v, a in new]

    # The open tokens of each sample come first; a block belongs to one sample.
    order = open_.argsort(dim=1, descending=True, stable=True)
    turns = (open_.sum(1).long() + (_ROWS - 1)) // _ROWS
    ends = turns.cumsum(0)
    step = torch.arange(_ROWS, device=open_.device)

    def more(turn: Tensor, *values: Tensor) -> Tensor:
        return turn < ends.amax(0)

    def body(turn: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        sample = (ends <= turn).sum().view(1)
        first = (turn - (ends - turns).index_select(0, sample)) * _ROWS
        # The last block is filled with closed tokens, or the last one again; their answers are the same.
        rows = order.index_select(0, sample)[0][(first + step).clamp_max(order.shape[1] - 1)]
        number = rows + sample * order.shape[1]
        new = answers(rows, sample)
        return (turn + 1, *(v.index_put((number,), a) for v, a in zip(values, new, strict=True)))

    start = torch.zeros((), dtype=torch.int64, device=open_.device)
    _, *flat = while_loop(more, body, (start, *(values.flatten(0, 1) for values in known)))
    return [value.view(shape.shape) for value, shape in zip(flat, known, strict=True)]
