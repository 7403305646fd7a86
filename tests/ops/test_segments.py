"""Sums over sorted groups by products, against `embedding_bag`."""

from __future__ import annotations

import pytest
import torch

from efnet.ops.segments import segments, sum_segments


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (31, 5), (32, 32), (33, 1), (500, 60), (500, 3)])
def test_equal_embedding_bag(rows: int, groups: int, weighted: bool) -> None:
    """Some groups reach over several blocks of rows, others share one."""
    group = torch.cat([torch.arange(groups), torch.randint(groups, (rows - groups,))]).sort().values
    index, features = torch.randint(70, (rows,)), torch.randn(70, 5, dtype=torch.float32)
    weights = torch.rand(rows) if weighted else None
    parts = segments(group, groups)
    found = sum_segments(features, index, parts, weights)
    assert torch.equal(parts.start, torch.searchsorted(group, torch.arange(groups)))
    expected = torch.nn.functional.embedding_bag(
        index, features, parts.start, mode="sum", per_sample_weights=weights
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
