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
        start: (groups,) where each group begins.
    """

    member: Tensor
    carry: Tensor
    place: Tensor
    block: Tensor
    start: Tensor

    def weighted(self, weights: Tensor) -> Segments:
        """The same with a weight (rows,) for each row."""
        blocks = self.member.shape[0]
        return self._replace(member=self.member * _filled(weights, blocks).view(blocks, 1, _BLOCK))


def segments(group: Tensor, num_groups: int) -> Segments:
    """Look at sorted rows once.

    Args:
        group: (rows,) int64, ascending, every group from 0 to `num_groups` - 1 in it; then perhaps -1 for
            rows that belong to none.
        num_groups: number of groups.
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
    goes_on = ids == last[block]
    return Segments(
        member.float(),
        carry.float(),
        block * _BLOCK + ids - first[block],
        torch.where(goes_on, block, blocks),
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
    parts = parts if weights is None else parts.weighted(weights)
    # All sizes are said: runtimes cannot infer a -1 where the number of rows depends on the data.
    blocks, channels = parts.member.shape[0], rows.shape[1]
    sums = parts.member @ rows.index_select(0, _filled(index, blocks)).view(blocks, _BLOCK, channels)
    carried = parts.carry @ sums[:, 0]
    sums = sums.view(blocks * _BLOCK, channels)
    return sums.index_select(0, parts.place) + carried.index_select(0, parts.block)


def _filled(values: Tensor, blocks: int) -> Tensor:
    """Values (rows,) followed by noughts up to the end of the last block."""
    lacking = blocks * _BLOCK - values.shape[0]
    return F.pad(values, (0, lacking))
