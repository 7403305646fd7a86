"""The few smallest of many: `torch.topk` is slow where only a handful is wanted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_TOURNAMENT = 7
"""Up to so many, a tournament is faster than torch.topk."""


class Few(NamedTuple):
    """The smallest of each row.

    Attributes:
        values: (m, c).
        columns: (m, c) int64, where they are.
        rest: (m,) all others are at least that; infinite where there are none.
    """

    values: Tensor
    columns: Tensor
    rest: Tensor


def smallest(values: Tensor, count: int) -> list[Tensor]:
    """The `count` smallest of each column, ascending: a tournament of sorted lists.

    Args:
        values: (S, R).
        count: 1 or more; what S lacks is infinite.

    Returns:
        `count` tensors (R,).
    """
    if count > _TOURNAMENT:
        padding = (0, 0, 0, max(0, count - len(values)))
        padded = torch.nn.functional.pad(values, padding, value=torch.inf)
        return list(padded.topk(count, 0, largest=False).values.unbind(0))
    lists = [values]
    while len(lists[0]) > 1:
        width = len(lists[0])
        if width % 2:
            lists = [torch.nn.functional.pad(v, (0, 0, 0, 1), value=torch.inf) for v in lists]
        half = (width + 1) // 2
        lists = _merge([v[:half] for v in lists], [v[half:] for v in lists], count)
    missing = [torch.full_like(lists[0], torch.inf)] * (count - len(lists))
    return [v.squeeze(0) for v in lists + missing]


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


def fewest(values: Tensor, count: int) -> Few:
    """The `count` smallest of each row, ascending.

    Columns are put into groups first: the c smallest of a row lie in the c groups of smallest minimum.

    Args:
        values: (m, S).
        count: 1 to S.
    """
    width = values.shape[1]
    wanted = min(count + 1, width)
    group = _group(width, wanted)
    if group == 1 or width % group:
        near = values.topk(wanted, 1, largest=False)
        return _few(near.values, near.indices, count)
    grouped = values.view(len(values), group, width // group)
    groups = grouped.amin(1).topk(wanted, 1, largest=False, sorted=False).indices  # (m, c)
    among = grouped.gather(2, groups[:, None].expand(-1, group, -1)).flatten(1)
    near = among.topk(wanted, 1, largest=False)
    columns = near.indices // wanted * (width // group) + groups.gather(1, near.indices % wanted)
    return _few(near.values, columns, count)


def _group(width: int, wanted: int) -> int:
    """Columns of a group, so that neither groups nor columns of the chosen groups are many."""
    group = 1
    while group * group * wanted * 2 < width:
        group *= 2
    return group if width >= 16 * wanted else 1


def padded_width(width: int, wanted: int) -> int:
    """The next width that `fewest` can divide into groups."""
    group = _group(width, wanted + 1)
    return -(-width // group) * group


def _few(values: Tensor, columns: Tensor, count: int) -> Few:
    if values.shape[1] > count:
        return Few(values[:, :count], columns[:, :count], values[:, count])
    return Few(values, columns, values.new_full((len(values),), torch.inf))
