"""Token and map transforms against their definitions as matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from efnet.ops.tokens import TokenGrid, cell_index, map_to_token, merge_tokens, token_to_map

CPU = torch.device("cpu")


def nearest_cell(cell: int, cells: int, parts: int) -> int:
    """The nearest-neighbour index of image resizing: floor(cell * parts / cells)."""
    return int(np.floor(cell * parts / cells))


def matrices(grid: TokenGrid, sample: int, map_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Token-to-map (H W, N) and map-to-token (N, H W), entry by entry from the definition."""
    counts = torch.zeros(map_size[0] * map_size[1], grid.num_tokens, dtype=torch.float64)
    height, width = grid.size
    for row in range(height):
        for column in range(width):
            place = nearest_cell(row, height, map_size[0]) * map_size[1] + nearest_cell(
                column, width, map_size[1]
            )
            counts[place, int(grid.assignment[sample, row * width + column])] += 1
    return counts / counts.sum(1, keepdim=True), (counts / counts.sum(0)).T


def random_grid(batch: int, size: tuple[int, int], tokens: int, seed: int) -> TokenGrid:
    """Cells assigned at random, every token owning at least one."""
    generator = torch.Generator().manual_seed(seed)
    cells = size[0] * size[1]
    rows = []
    for _ in range(batch):
        row = torch.randint(tokens, (cells,), generator=generator)
        row[torch.randperm(cells, generator=generator)[:tokens]] = torch.arange(tokens)
        rows.append(row)
    return TokenGrid(torch.stack(rows), tokens, size)


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(size=sizes, parts=sizes, batch=st.integers(1, 3), seed=st.integers(0, 999), data=st.data())
def test_transforms_equal_their_matrices(
    size: tuple[int, int], parts: tuple[int, int], batch: int, seed: int, data: st.DataObject
) -> None:
    map_size = (min(size[0], parts[0]), min(size[1], parts[1]))
    tokens = data.draw(st.integers(1, size[0] * size[1]))
    grid = random_grid(batch, size, tokens, seed)
    features = torch.randn(batch, tokens, 3, dtype=torch.float64)
    maps = torch.randn(batch, 3, *map_size, dtype=torch.float64)
    to_map, to_token = token_to_map(features, grid, map_size), map_to_token(maps, grid)
    for sample in range(batch):
        forward, backward = matrices(grid, sample, map_size)
        expected = (forward @ features[sample]).T.reshape(3, *map_size)
        torch.testing.assert_close(to_map[sample], expected)
        torch.testing.assert_close(to_token[sample], backward @ maps[sample].flatten(1).T)


@given(size=sizes, parts=sizes)
def test_regular_grid_equals_the_general_case(size: tuple[int, int], parts: tuple[int, int]) -> None:
    map_size = (min(size[0], parts[0]), min(size[1], parts[1]))
    regular = TokenGrid.whole(2, size, CPU)
    general = TokenGrid(regular.assignment.clone(), regular.num_tokens, size)
    features = torch.randn(2, size[0] * size[1], 3)
    maps = torch.randn(2, 3, *map_size)
    torch.testing.assert_close(
        token_to_map(features, regular, map_size), token_to_map(features, general, map_size)
    )
    torch.testing.assert_close(map_to_token(maps, regular), map_to_token(maps, general))


def test_cells_fall_by_nearest_neighbour_as_interpolation_does() -> None:
    for size, parts in (((13, 17), (7, 9)), ((120, 160), (60, 80)), ((9, 9), (5, 5)), ((10, 3), (4, 2))):
        index = torch.arange(parts[0] * parts[1], dtype=torch.float32).reshape(1, 1, *parts)
        expected = torch.nn.functional.interpolate(index, size, mode="nearest").long().flatten()
        assert torch.equal(cell_index(size, parts, CPU), expected)


@given(batch=st.integers(1, 3), tokens=st.integers(1, 30), seed=st.integers(0, 999), data=st.data())
def test_merge_is_equation_4(batch: int, tokens: int, seed: int, data: st.DataObject) -> None:
    clusters_count = data.draw(st.integers(1, tokens))
    generator = torch.Generator().manual_seed(seed)
    clusters = random_grid(batch, (1, tokens), clusters_count, seed).assignment
    features = torch.randn(batch, tokens, 4, generator=generator, dtype=torch.float64)
    importance = 5 * torch.randn(batch, tokens, generator=generator)
    merged = merge_tokens(features, importance, clusters, clusters_count)
    for sample in range(batch):
        for cluster in range(clusters_count):
            members = clusters[sample] == cluster
            weights = importance[sample, members].double().exp()
            expected = (weights[:, None] * features[sample, members]).sum(0) / weights.sum()
            torch.testing.assert_close(merged[sample, cluster], expected, rtol=1e-5, atol=1e-6)


def test_merge_of_float64_stays_float64() -> None:
    features = torch.rand(1, 40, 3, dtype=torch.float64)
    importance = torch.rand(1, 40, dtype=torch.float64)
    clusters = torch.arange(40)[None] % 4
    merged = merge_tokens(features, importance, clusters, 4)
    for cluster in range(4):
        weights = importance[0, cluster::4].exp()
        expected = (weights[:, None] * features[0, cluster::4]).sum(0) / weights.sum()
        torch.testing.assert_close(merged[0, cluster], expected, rtol=1e-14, atol=0)


def test_merge_survives_extreme_importance() -> None:
    features = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    importance = torch.tensor([[1e4, -1e4, -1e4, -1e4]])
    merged = merge_tokens(features, importance, torch.tensor([[0, 0, 1, 1]]), 2)
    torch.testing.assert_close(merged, torch.tensor([[[1.0], [3.5]]]))


def test_gradients_are_exact() -> None:
    grid = random_grid(2, (4, 5), 6, seed=1)
    clusters = random_grid(2, (1, 6), 3, seed=2).assignment
    features = torch.randn(2, 6, 2, dtype=torch.float64, requires_grad=True)
    maps = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: token_to_map(x, grid, (2, 3)), features, fast_mode=True)
    assert torch.autograd.gradcheck(lambda x: map_to_token(x, grid), maps, fast_mode=True)
    importance = torch.randn(2, 6, requires_grad=True)
    merge_tokens(features, importance, clusters, 3).square().sum().backward()
    assert importance.grad is not None
    # Shifting a whole cluster's importance changes nothing, so its gradients add to zero.
    sums = torch.zeros(2, 3).scatter_add(1, clusters, importance.grad)
    torch.testing.assert_close(sums, torch.zeros(2, 3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    grid = random_grid(1, (4, 4), 5, seed=0)
    features = torch.randn(1, 5, 2).to(dtype)
    assert token_to_map(features, grid, (2, 2)).dtype == dtype
    assert map_to_token(torch.randn(1, 2, 2, 2).to(dtype), grid).dtype == dtype
    assert merge_tokens(features, torch.randn(1, 5), torch.tensor([[0, 0, 1, 1, 1]]), 2).dtype == dtype


def test_merged_grid_follows_the_clusters() -> None:
    grid = TokenGrid(torch.tensor([[0, 1, 2, 2]]), 3, (2, 2))
    merged = grid.merged(torch.tensor([[1, 0, 1]]), 2)
    assert merged.assignment.tolist() == [[1, 0, 1, 1]]
    assert merged.num_tokens == 2
