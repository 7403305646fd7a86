"""Clustering the cells of a regular grid."""

from __future__ import annotations

import pytest
import torch
from dpc_cases import FEATURES, assert_exact, grid, smooth


@pytest.mark.parametrize("size", [(32, 40), (47, 53), (24, 60), (60, 24), (9, 150), (5, 7), (1, 40), (40, 1)])
@pytest.mark.parametrize("weight", [0.05, 0.3, 0.7, 4.0])
def test_grid_equals_transcription(size: tuple[int, int], weight: float) -> None:
    tokens = size[0] * size[1]
    features = smooth(*size, 24, batch=2)
    assert_exact(features, -(-tokens // 4), 5, grid(*size).expand(2, -1, -1), weight, size)


@pytest.mark.parametrize(
    "matrix", [[[0.6, 0.8], [-0.8, 0.6]], [[1.0, 0.4], [0.0, 0.7]], [[2.0, 0.0], [0.0, 0.01]]]
)
def test_grid_under_a_linear_map(matrix: list[list[float]]) -> None:
    positions = grid(40, 30) @ torch.tensor(matrix)
    assert_exact(smooth(40, 30, 12), 300, 5, positions, 0.7, (40, 30))


def test_grid_that_is_none() -> None:
    """A wrong hint costs time, not truth."""
    random = torch.Generator().manual_seed(0)
    shuffled = grid(36, 40)[:, torch.randperm(1440, generator=random)]
    nearly = grid(36, 40) + 0.3 * torch.rand(1, 1440, 2, generator=random)
    for positions in (shuffled, nearly, torch.zeros(1, 1440, 2)):
        assert_exact(smooth(36, 40, 12), 360, 5, positions, 0.7, (36, 40))


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("k", [1, 5, 40, 700])
def test_grid_of_any_features(name: str, k: int) -> None:
    assert_exact(FEATURES[name], 155, k, grid(20, 31), 0.7, (20, 31))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_grid_types(dtype: torch.dtype) -> None:
    features, positions = smooth(36, 40, 12).double(), grid(36, 40, 1.9595917).double()
    assert_exact(features.to(dtype), 360, 5, positions.to(dtype), 0.7, (36, 40))
