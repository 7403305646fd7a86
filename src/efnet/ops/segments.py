"""Sums over groups of sorted rows by plain operators, for exported programs.

`embedding_bag` has no counterpart in ONNX, and a scatter that adds loses additions where ONNX Runtime runs it
on several threads (microsoft/onnxruntime#18048). Here blocks of sorted rows are multiplied with the ones and
zeros that say which row belongs to which group: batched matrix multiplications, in one order on every run.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 32
"""Rows that are summed by one product."""


class Segments(NamedTuple):
    """How blocks of sorted rows make groups; the same for all features of these rows.

    Attributes:
        member: (S, R, R) float32, one where a block's row belongs to the block's n-th group.
        carry: (S + 1, S) float32, one where the group that ends a block begins the later one; none in the
            last row.
        place: (groups,) where among the blocks' S * R sums that of a group is, or its first part.
        block: (groups,) the block whose carry a group gets, S for none.
        size: (groups, 1) float32 rows of each group.
        start: (groups,) where each group begins.
    """

    member: Tensor
    carry: Tensor
    place: Tensor
    block: Tensor
    size: Tensor
    start: Tensor


def segments(group: Tensor, num_groups: int) -> Segments:
    """Look at sorted rows once.

    Args:
        group: (rows,) int64, ascending, every group from 0 to `num_groups` - 1 in it.
        num_groups: number of groups.
    """
    rows = group.shape[0]
    device = group.device
    blocks = (rows + _BLOCK - 1) // _BLOCK
    filled = F.pad(group, (0, blocks * _BLOCK - rows), value=-1).view(blocks, _BLOCK)
    first, last = filled[:, 0], filled.amax(1)
    slot = torch.arange(_BLOCK, device=device)
    member = (filled - first[:, None])[:, None] == slot[:, None]
    number = torch.arange(blocks, device=device)
    ends = F.pad(last, (0, 1), value=-2)
    carry = (first == ends[:, None]) & (number > F.pad(number, (0, 1))[:, None])
    row = torch.arange(rows, device=device)
    start = row.new_zeros(num_groups).scatter_reduce(0, group, row, "amin", include_self=False)
    size = row.new_zeros(num_groups).scatter_add(0, group, torch.ones_like(row))
    block = start // _BLOCK
    ids = torch.arange(num_groups, device=device)
    goes_on = ids == last[block]
    return Segments(
        member.float(),
        carry.float(),
        block * _BLOCK + ids - first[block],
        torch.where(goes_on, block, blocks),
        size[:, None].float(),
        start,
    )


def sum_segments(rows: Tensor, index: Tensor, parts: Segments, weights: Tensor | None = None) -> Tensor:
    """Sum or weighted sum of `rows[index]` over the groups.

    Args:
        rows: (m, C).
        index: (rows,) which of them are summed, sorted by group.
        parts: from `segments`.
        weights: (rows,) or None.

    Returns:
        (groups, C).
    """
    blocks = parts.member.shape[0]
    lacking = (0, blocks * _BLOCK - index.shape[0])
    index = F.pad(index, lacking)
    member = parts.member
    if weights is not None:
        member = member * F.pad(weights, lacking).view(blocks, 1, _BLOCK)
    sums = member @ rows.index_select(0, index).view(blocks, _BLOCK, -1)
    carried = parts.carry @ sums[:, 0]
    return sums.flatten(0, 1).index_select(0, parts.place) + carried.index_select(0, parts.block)
