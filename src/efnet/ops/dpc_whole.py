"""The nearest few of all tokens, by float32 matrix multiplications in blocks that stay in a cache.

Without a spatial term nothing bounds where a token's neighbours are: N^2 C multiplications, half of them
where the symmetry of distances is used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from efnet.ops.dpc_points import ROUNDED, Points
from efnet.ops.dpc_scan import Near
from efnet.ops.dpc_select import Few, fewest, padded_width
from efnet.ops.linear import linear

_ROW_BYTES = {"cpu": 4 << 20}
"""Size of a block of rows against all columns."""

_OTHER_ROW_BYTES = 1 << 30

_SIDE = 1024
"""Tokens of a block where symmetry is used."""

_GROUP = 64
"""Tokens of which only the least distance is kept at first."""

_SYMMETRIC_FROM = 4 * _SIDE
"""Tokens from which on half of the products are more than what using their symmetry costs."""


def nearest_of_all(points: Points, count: int, rows: Tensor | None = None) -> Near:
    """The nearest few of tokens among all of their sample.

    Args:
        points: the tokens of the batch.
        count: how many; what a sample lacks is none.
        rows: (n,) the tokens asked about, ascending; None: all.
    """
    symmetric = points.places is None and points.device.type == "cpu" and points.tokens >= _SYMMETRIC_FROM
    few = min(count, points.tokens - 1)
    parts = []
    for tokens in points.numbers().unbind(0):
        own = tokens if rows is None else rows[(rows >= tokens[0]) & (rows <= tokens[-1])]
        if few == 0:
            parts.append((own[:, None][:, :0], torch.full(own.shape, torch.inf, device=own.device)))
        elif symmetric and rows is None:
            parts.append(_by_halves(points, tokens, few))
        elif len(own):
            parts.append(_by_rows(points, tokens, own, few))
    columns, floor = (torch.cat(part) for part in zip(*parts, strict=True))
    columns = torch.nn.functional.pad(columns, (0, count - few), value=points.none)
    return Near.measured(points, points.numbers().flatten() if rows is None else rows, columns, floor)


def _by_rows(points: Points, tokens: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The few of `rows` (m, count) and their floors (m,): some rows against all columns at a time."""
    others = Others(points, tokens, count)
    found, floors = [], []
    step = max(1, _ROW_BYTES.get(points.device.type, _OTHER_ROW_BYTES) // (4 * len(others.columns)))
    for part in torch.split(rows, step):
        distance, error = others.distances(part, repeated=len(rows) == len(tokens))
        near = fewest(distance, count)
        found.append(others.columns[near.columns])
        floors.append(others.floor(near, error))
    return torch.cat(found), torch.cat(floors)


class Others:
    """Tokens to compare others with, by products.

    Args:
        points: the tokens of the batch.
        columns: (S,) tokens of one sample: all of them in order, or some that are compared with none of
            their own.
        count: how many of the nearest will be wanted.
    """

    def __init__(self, points: Points, columns: Tensor, count: int) -> None:
        self.points = points
        self.complete = len(columns) == points.tokens
        self.present = len(columns)
        lacking = padded_width(len(columns), count) - len(columns)
        self.columns = torch.nn.functional.pad(columns, (0, lacking), value=points.none)
        if self.complete and not lacking:
            first = int(columns[0])
            self.table = points.table[first : first + self.present]
        else:
            self.table = points.table[self.columns]
        self.norm = self.table[: self.present, -2].amax().sqrt()

    def distances(self, rows: Tensor, repeated: bool = False) -> tuple[Tensor, Tensor]:
        """Of tokens (m,): distances (m, S), infinite to themselves and to none, and their error (m,).

        Without positions they are squares, which `floor` knows, and of no use is the error.

        Args:
            rows: the tokens.
            repeated: m is the same for every image of a size. For each other m oneDNN would compile and keep
                a kernel.
        """
        points = self.points
        partners = points.partners(rows)
        distance = linear(partners, self.table) if repeated else partners @ self.table.T
        if self.complete:
            distance.scatter_(1, (rows % points.tokens)[:, None], torch.inf)
        own = points.table[rows, -2].sqrt()
        if points.places is None:
            return distance, own
        error = points.product_error(own + self.norm, distance.amin(1))
        distance.clamp_min_(0).sqrt_()
        points.add_spatial(distance, self.columns, rows[:, None])
        return distance, error

    def floor(self, near: Few, error: Tensor) -> Tensor:
        """(m,) float32, what is not among the few found is at least that far.

        Args:
            near: of the distances.
            error: (m,) returned with them.
        """
        if self.points.places is not None:
            return (near.rest * (1 - ROUNDED) - error).clamp_min(0)
        return square_floor(self.points, near.rest, error + self.norm)


def square_floor(points: Points, squares: Tensor, norms: Tensor) -> Tensor:
    """What squares measured by products, and all larger ones, are at least as true distances."""
    error = points.product_error(norms, squares)
    return (squares.clamp_min(0).sqrt() * (1 - ROUNDED) - error).nan_to_num(torch.inf, torch.inf).clamp_min(0)


def _by_halves(points: Points, tokens: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Each pair of blocks once; first which groups of tokens are near, then which tokens of those."""
    number = torch.nn.functional.pad(tokens, (0, -points.tokens % _SIDE), value=points.none)
    table, partners = points.table[number], points.partners(number)
    groups = fewest(_group_minima(table, partners)[: points.tokens], count + 1).columns
    squares = _members(table, partners, groups)
    step = max(1, _ROW_BYTES["cpu"] // (4 * squares.shape[1]))
    few = [fewest(part, count) for part in torch.split(squares, step)]
    near = Few(*(torch.cat(parts) for parts in zip(*few, strict=True)))
    place = groups.gather(1, near.columns // _GROUP) * _GROUP + near.columns % _GROUP
    norm = table[: points.tokens, -2].sqrt()
    return number[place], square_floor(points, near.rest, norm + norm.amax())


def _group_minima(table: Tensor, partners: Tensor) -> Tensor:
    """(P, P / group) least square of every token to the others of each group."""
    blocks, groups = len(table) // _SIDE, _SIDE // _GROUP
    minima = table.new_empty(len(table), blocks * groups)
    rows, columns = torch.split(table, _SIDE), torch.split(partners, _SIDE)
    for i in range(blocks):
        for j in range(i, blocks):
            tile = linear(rows[i], columns[j])
            own, other = (slice(_SIDE * block, _SIDE * (block + 1)) for block in (i, j))
            if i == j:
                tile.fill_diagonal_(torch.inf)
            else:
                down = tile.view(groups, _GROUP, _SIDE).amin(1)
                minima[other, groups * i : groups * (i + 1)] = down.T
            minima[own, groups * j : groups * (j + 1)] = tile.view(_SIDE, groups, _GROUP).amin(2)
    return minima


def _members(table: Tensor, partners: Tensor, groups: Tensor) -> Tensor:
    """(N, c * group) squares of every token to the members of c groups each, to itself infinite."""
    tokens, count = groups.shape
    ordered, order = groups.flatten().sort()
    ends = torch.searchsorted(ordered, torch.arange(len(table) // _GROUP + 1, device=table.device)).tolist()
    squares = table.new_empty(tokens * count, _GROUP)
    for group, members in enumerate(torch.split(partners, _GROUP)):
        pairs = order[ends[group] : ends[group + 1]]
        squares[pairs] = table[pairs // count] @ members.T
    token = torch.arange(tokens, device=table.device)
    row, slot = (groups == token[:, None] // _GROUP).nonzero().unbind(1)
    squares.view(tokens, count, _GROUP)[row, slot, row % _GROUP] = torch.inf
    return squares.view(tokens, -1)
