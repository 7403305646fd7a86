"""Means between tokens and a map for exported programs: as a matrix of shared cells says."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from efnet.ops import segments
from efnet.ops.segments import exchange


def matrix(group: Tensor, other: Tensor, groups: int, others: int) -> Tensor:
    """(groups, others) the share of each other in a group, entry by entry."""
    counts = torch.zeros(groups, others)
    for one, two in zip(group.tolist(), other.tolist(), strict=True):
        counts[one, two] += 1
    return counts / counts.sum(1, keepdim=True)


def assignments(cells: int, kinds: int) -> Tensor:
    """Every kind at least once."""
    return torch.cat([torch.arange(kinds), torch.randint(kinds, (cells - kinds,))])[torch.randperm(cells)]


@given(
    cells=st.integers(1, 300), tokens=st.integers(1, 60), parts=st.integers(1, 60), seed=st.integers(0, 99)
)
def test_means_are_those_of_the_matrix(cells: int, tokens: int, parts: int, seed: int) -> None:
    torch.manual_seed(seed)
    tokens, parts = min(tokens, cells), min(parts, cells)
    token, cell = assignments(cells, tokens), assignments(cells, parts)
    ways = exchange(token, cell, tokens, parts, regular=False)
    of_map, of_tokens = torch.randn(parts, 3), torch.randn(tokens, 3)
    to_token, to_map = matrix(token, cell, tokens, parts), matrix(cell, token, parts, tokens)
    torch.testing.assert_close(ways.to_token.mean(of_map), to_token @ of_map, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ways.to_map.mean(of_tokens), to_map @ of_tokens, rtol=1e-5, atol=1e-6)


def test_a_pair_is_one_row_however_many_cells_it_shares() -> None:
    token = torch.arange(2048) // 512
    cell = torch.arange(2048) // 256
    ways = exchange(token, cell, 4, 8, regular=False)
    assert ways.to_token.parts.member.count_nonzero() == 8
    assert ways.to_map.rows[:8].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_tokens_that_are_cells() -> None:
    cell = torch.arange(96) // 12
    ways = exchange(torch.arange(96), cell, 96, 8, regular=True)
    features = torch.randn(96, 5)
    torch.testing.assert_close(ways.to_map.mean(features), features.view(8, 12, 5).mean(1))


def test_numbers_too_large_for_one_key() -> None:
    token, cell = assignments(200, 30), assignments(200, 20)
    order = segments._order(token, cell, 30, 20)
    again = segments._order(token, cell, 2**20, 2**20)
    for found in (order, again):
        pairs = [(int(token[n]), int(cell[n])) for n in found]
        assert pairs == sorted(pairs)
