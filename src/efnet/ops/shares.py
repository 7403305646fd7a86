"""Means between tokens and a map by plain operators, for exported programs.

A token and a map cell share cells of the initial grid. Each pair of them that shares any is one row of a
weighted sum here, however many cells it shares: at the last stages that is a small part of the rows that
one for each cell would make.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.ops.segments import Segments, segments, sum_segments

_STEP = 1024
"""Numbers of rows are multiples of it: a runtime prepares its kernels anew for every other number."""


class Shares(NamedTuple):
    """How rows of one kind make means of the other.

    Attributes:
        rows: (P,) row of each pair; of filling, any.
        parts: which pairs are summed; their weights, which sum to one in each group, are in `parts.member`.
    """

    rows: Tensor
    parts: Segments

    def mean(self, features: Tensor) -> Tensor:
        """Features (rows, C) as means (groups, C)."""
        return sum_segments(features, self.rows, self.parts)


class Exchange(NamedTuple):
    """Both ways between tokens and a map.

    Attributes:
        to_token: means of map cells.
        to_map: means of tokens.
    """

    to_token: Shares
    to_map: Shares


def exchange(token: Tensor, cell: Tensor, num_tokens: int, num_cells: int, regular: bool) -> Exchange:
    """Look at a grid once.

    Args:
        token: (n,) token of each cell of the initial grid.
        cell: (n,) its map cell.
        num_tokens: number of tokens; each has a cell of the grid.
        num_cells: of map cells, likewise.
        regular: no token has more than one cell of the grid.
    """
    by_token = _order(token, cell, num_tokens, num_cells)
    by_cell = _order(cell, token, num_cells, num_tokens)
    return Exchange(
        _shares(token[by_token], cell[by_token], num_tokens, regular),
        _shares(cell[by_cell], token[by_cell], num_cells, regular),
    )


def _order(first: Tensor, second: Tensor, firsts: int, seconds: int) -> Tensor:
    """The order by the first and, where that is equal, by the second number."""
    if isinstance(firsts * seconds, int) and firsts * seconds < 2**31:
        # OpenVINO, which has 32 bits and sizes that are known, does not keep equal ones in order.
        return (first * seconds + second).argsort()
    order = second.argsort(stable=True)
    return order[first[order].argsort(stable=True)]


def _shares(group: Tensor, other: Tensor, num_groups: int, distinct: bool) -> Shares:
    """Rows sorted by group, and within a group by the other, each pair taken once."""
    size = group.new_zeros(num_groups).scatter_add(0, group, torch.ones_like(group)).float()
    if distinct:
        return Shares(other, segments(group, num_groups).weighted(1 / size[group]))
    changes = (group[1:] != group[:-1]) | (other[1:] != other[:-1])
    start = F.pad(changes, (1, 0), value=True).nonzero().squeeze(1)
    # As a number to fill with, how many rows there are would become that of the traced size.
    shared = torch.cat([start[1:], torch.ones_like(group).sum(0, keepdim=True)]) - start
    pairs = start.shape[0]
    number = torch.arange((pairs + _STEP - 1) // _STEP * _STEP, device=group.device)
    pair = number.clamp_max(pairs - 1)
    row = start[pair]
    own = torch.where(number < pairs, group[row], -1)
    weight = shared[pair].float() / size[group[row]]
    return Shares(other[row], segments(own, num_groups).weighted(weight))
