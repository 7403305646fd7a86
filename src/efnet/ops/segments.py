"""Sums over groups of rows, and means between tokens and a map, by plain operators for exported programs.

`embedding_bag` has no counterpart in ONNX, and a scatter that adds loses additions where ONNX Runtime runs it
on several threads (microsoft/onnxruntime#18048). Here blocks of sorted rows are multiplied with the ones and
zeros that say which row belongs to which group: batched matrix products, in one order on every run.

A token and a map cell share cells of the initial grid. Each pair that shares any is one row of a weighted
sum, however many cells it shares: at the last stages these are far fewer rows than one for each cell.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 32  # rows that are summed by one product


class Segments(NamedTuple):
    """How blocks of sorted rows make groups; the same for all features of these rows."""

    member: Tensor  # (S, R, R) float32, one where a block's row belongs to the block's n-th group
    # (S + 1, S) float32, one where the group that ends a block begins the later one; none in the last row
    carry: Tensor
    place: Tensor  # (groups,) where among the blocks' S * R sums that of a group is, or its first part
    block: Tensor  # (groups,) the block whose carry a group gets, S for none
    start: Tensor  # (groups,) where each group begins

    def weighted(self, weights: Tensor) -> Segments:
        """The same with a weight (rows,) for each row."""
        blocks = self.member.shape[0]
        return self._replace(member=self.member * _filled(weights, blocks).view(blocks, 1, _BLOCK))


def segments(group: Tensor, num_groups: int) -> Segments:
    """Look at sorted rows once.

    `group`: (rows,) int64, ascending, every group from 0 to `num_groups` - 1 in it; then perhaps -1 for rows
    that belong to none. `num_groups`: number of groups.
    """
    rows = group.shape[0]
    device = group.device
    blocks = (rows + _BLOCK - 1) // _BLOCK
    filled = F.pad(group, (0, blocks * _BLOCK - rows), value=-1).view(blocks, _BLOCK)
    first, last = filled[:, 0], filled.amax(1)
    slot = torch.arange(_BLOCK, device=device)
    member = ((filled - first[:, None])[:, None] == slot[:, None]) & (filled >= 0)[:, None]
    number = torch.arange(blocks, device=device)
    ends = F.pad(last, (0, 1), value=-2)
    carry = (first == ends[:, None]) & (number > F.pad(number, (0, 1))[:, None])
    row = torch.arange(rows, device=device)
    known = group.clamp_min(0)
    start = row.new_zeros(num_groups).scatter_reduce(0, known, row, "amin", include_self=False)
    block = start // _BLOCK
    ids = torch.arange(num_groups, device=device)
    place, carried = block * _BLOCK + ids - first[block], torch.where(ids == last[block], block, blocks)
    return Segments(member.float(), carry.float(), place, carried, start)


def sum_segments(rows: Tensor, index: Tensor, parts: Segments, weights: Tensor | None = None) -> Tensor:
    """Sum or weighted sum of `rows[index]` over the groups.

    `rows`: (m, C). `index`: (rows,) which of them are summed, sorted by group. `parts`: from `segments`.
    `weights`: (rows,) or None. Returns (groups, C).
    """
    parts = parts if weights is None else parts.weighted(weights)
    # All sizes are given: runtimes cannot infer a -1 where the number of rows depends on the data.
    blocks, channels = parts.member.shape[0], rows.shape[1]
    sums = parts.member @ rows.index_select(0, _filled(index, blocks)).view(blocks, _BLOCK, channels)
    carried = parts.carry @ sums[:, 0]
    sums = sums.view(blocks * _BLOCK, channels)
    return sums.index_select(0, parts.place) + carried.index_select(0, parts.block)


def _filled(values: Tensor, blocks: int) -> Tensor:
    """Values (rows,) followed by zeros up to the end of the last block."""
    return F.pad(values, (0, blocks * _BLOCK - values.shape[0]))


_STEP = 1024  # numbers of rows are multiples of it: a runtime prepares its kernels anew for every other one


class Shares(NamedTuple):
    """How rows of one kind make means of the other."""

    rows: Tensor  # (P,) row of each pair; of filling, any
    # which pairs are summed; their weights, which sum to one in each group, are in `parts.member`
    parts: Segments

    def mean(self, features: Tensor) -> Tensor:
        """Features (rows, C) as means (groups, C)."""
        return sum_segments(features, self.rows, self.parts)


class Exchange(NamedTuple):
    """Both ways between tokens and a map."""

    to_token: Shares  # means of map cells
    to_map: Shares  # means of tokens


def exchange(token: Tensor, cell: Tensor, num_tokens: int, num_cells: int, regular: bool) -> Exchange:
    """Look at a grid once.

    `token`: (n,) token of each cell of the initial grid. `cell`: (n,) its map cell. `num_tokens`: number of
    tokens; each has a cell of the grid. `num_cells`: of map cells, likewise. `regular`: no token has more
    than one cell of the grid.
    """
    to_token = _shares(token, cell, num_tokens, num_cells, regular)
    return Exchange(to_token, _shares(cell, token, num_cells, num_tokens, regular))


def _order(first: Tensor, second: Tensor, firsts: int, seconds: int) -> Tensor:
    """The order by the first and, where that is equal, by the second number."""
    if isinstance(firsts * seconds, int) and firsts * seconds < 2**31:
        # OpenVINO, which has 32 bits and sizes that are known, does not keep equal ones in order.
        return (first * seconds + second).argsort()
    order = second.argsort(stable=True)
    return order[first[order].argsort(stable=True)]


def _shares(group: Tensor, other: Tensor, num_groups: int, num_others: int, distinct: bool) -> Shares:
    """Rows sorted by group, and within a group by the other, each pair taken once."""
    order = _order(group, other, num_groups, num_others)
    group, other = group[order], other[order]
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
