"""Comparing some tokens with all of their sample, a block of rows at a time, in a loop that can be exported.

How many tokens there are to compare depends on the data, so it is the number of turns that does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

HUGE = 2.0**100
"""Farther than any token: finite, because infinity times nought is not a number."""

_ROWS = 128
"""Rows compared with all tokens of their sample in one turn."""

_LARGEST, _UNIT = 2.0**40, 2.0**80
"""Coordinates larger than the first are divided by the second; their squares would overflow."""

_AXES = 4
"""Up to so many, coordinates are compared by differences, which are exact but take a pass for each."""


class Table(NamedTuple):
    """The tokens of a batch, ready to be compared.

    Attributes:
        values: (B, N, C + 2) rows (x, |x|^2, 1), x about the sample's mean and divided by sqrt(C): the
            product with a partner (-2 y, 1, |y|^2) is the squared distance.
        places: (B, N, P) weighted positions, or None.
        unit: (B, 1) what all distances are divided by, a power of two: 1 unless squares would overflow.
    """

    values: Tensor
    places: Tensor | None
    unit: Tensor

    @classmethod
    def of(cls, features: Tensor, positions: Tensor | None, spatial_weight: float) -> Self:
        """From features (B, N, C) and positions (B, N, P)."""
        features = features.float()
        places = None if positions is None else positions.float() * spatial_weight
        largest = features.abs().amax(2).amax(1, keepdim=True)
        if places is not None:
            largest = torch.maximum(largest, places.abs().amax(2).amax(1, keepdim=True))
        unit = torch.where(largest > _LARGEST, _UNIT, torch.ones_like(largest))
        features = features / unit[..., None]
        centred = (features - features.mean(1, keepdim=True)) / math.sqrt(features.shape[2])
        return cls(augmented(centred), None if places is None else places / unit[..., None], unit)


def augmented(values: Tensor) -> Tensor:
    """Rows (x, |x|^2, 1)."""
    return torch.cat([values, values.square().sum(-1, keepdim=True), torch.ones_like(values[..., :1])], -1)


def partner(rows: Tensor) -> Tensor:
    """Of rows (x, |x|^2, 1): (-2 x, 1, |x|^2)."""
    return torch.cat([-2 * rows[..., :-2], rows[..., -1:], rows[..., -2:-1]], -1)


def distances(rows: Tensor, columns: Tensor, row_places: Tensor | None, places: Tensor | None) -> Tensor:
    """(m, n) distances of equation 1 (arXiv 2501.10958).

    Args:
        rows: (m, C + 2) of a table.
        columns: (n, C + 2) of a table.
        row_places: (m, P) or None.
        places: (n, P) or None.
    """
    # Rounding may leave a nought negative.
    distance = (partner(rows) @ columns.T).abs().sqrt()
    if row_places is None or places is None:
        return distance
    if places.shape[1] > _AXES:
        return distance + (partner(augmented(row_places)) @ augmented(places).T).abs().sqrt()
    total: Tensor | None = None
    for axis in range(places.shape[1]):
        square = (row_places[:, axis, None] - places[:, axis]).square()
        total = square if total is None else total + square
    assert total is not None
    return distance + total.sqrt()


def masked_by_rank(distance: Tensor, ranks: Tensor, own: Tensor) -> Tensor:
    """Distances to denser tokens, huge ones to others; ranks are whole numbers that broadcast."""
    return torch.maximum(distance, (ranks + 0.5) * HUGE - own * HUGE)


def neighbors_of_open(table: Table, open_: Tensor, distance: Tensor, token: Tensor) -> list[Tensor]:
    """Distances and numbers (B, N, k) of the nearest tokens, found anew where `open_` (B, N) is 1."""
    k = distance.shape[2]

    def nearest(apart: Tensor, rows: Tensor, sample: Tensor) -> list[Tensor]:
        return list(apart.topk(k, 1, largest=False))

    return _answer(table, table, open_, [distance, token], nearest)


def separate_open(table: Table, open_: Tensor, delta: Tensor, rank: Tensor) -> Tensor:
    """Separations (B, N), found anew where `open_` (B, N) is 1."""

    def denser(apart: Tensor, rows: Tensor, sample: Tensor) -> list[Tensor]:
        ranks = rank.index_select(0, sample)[0]
        return [masked_by_rank(apart, ranks, ranks[rows][:, None]).amin(1)]

    return _answer(table, table, open_, [delta], denser)[0]


def assign_open(table: Table, open_: Tensor, assignment: Tensor, centers: Tensor) -> Tensor:
    """Places (B, N) of the nearest of `centers` (B, M), found anew where `open_` (B, N) is 1."""
    index = centers[..., None]
    chosen = Table(
        table.values.gather(1, index.expand(-1, -1, table.values.shape[2])),
        None if table.places is None else table.places.gather(1, index.expand(-1, -1, table.places.shape[2])),
        table.unit,
    )

    def center(apart: Tensor, rows: Tensor, sample: Tensor) -> list[Tensor]:
        return [apart.argmin(1)]

    return _answer(table, chosen, open_, [assignment], center)[0]


def _answer(
    table: Table,
    columns: Table,
    open_: Tensor,
    known: list[Tensor],
    ask: Callable[[Tensor, Tensor, Tensor], list[Tensor]],
) -> list[Tensor]:
    """What is `known` (B, N, ...), with the rows of open tokens replaced by what `ask` says of them.

    Args:
        table: rows.
        columns: what they are compared with.
        open_: (B, N) float32 0 or 1.
        known: tensors (B, N, ...).
        ask: given distances (m, n), the tokens (m,) and the sample (1,), the new rows (m, ...).
    """
    # Of each sample the open ones first; a block is of one sample.
    order = open_.argsort(dim=1, descending=True, stable=True)
    turns = (open_.sum(1).long() + (_ROWS - 1)) // _ROWS
    ends = turns.cumsum(0)
    step = torch.arange(_ROWS, device=open_.device)
    flat = [values.flatten(0, 1) for values in known]

    def more(turn: Tensor, *values: Tensor) -> Tensor:
        return turn < ends.amax(0)

    def body(turn: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        sample = (ends <= turn).sum().view(1)
        first = (turn - (ends - turns).index_select(0, sample)) * _ROWS
        # A last block is filled with tokens again, or with closed ones, of which the same is found.
        rows = order.index_select(0, sample)[0][(first + step).clamp_max(order.shape[1] - 1)]
        own, others = table.values.index_select(0, sample)[0], columns.values.index_select(0, sample)[0]
        places = None if table.places is None else table.places.index_select(0, sample)[0]
        other_places = None if columns.places is None else columns.places.index_select(0, sample)[0]
        apart = distances(own[rows], others, None if places is None else places[rows], other_places)
        number = rows + sample * order.shape[1]
        new = [
            value.index_put((number,), answer)
            for value, answer in zip(values, ask(apart, rows, sample), strict=True)
        ]
        return (turn + 1, *new)

    start = torch.zeros((), dtype=torch.int64, device=open_.device)
    done = while_loop(more, body, (start, *flat))  # type: ignore[no-untyped-call]
    _, *found = cast(tuple[Tensor, ...], done)
    return [value.view(shape.shape) for value, shape in zip(found, known, strict=True)]
