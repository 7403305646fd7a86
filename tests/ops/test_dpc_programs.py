"""Clustering under autocast and reduced precision, compiled, exported, and by fixed operators."""

from __future__ import annotations

import pytest
import torch
from dpc_cases import assert_exact, grid, smooth
from torch import Tensor

from efnet.ops.clustering import traceable
from efnet.ops.clustering.dpc_knn import dpc_knn


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_autocast_changes_nothing(weight: float) -> None:
    """Half-precision products would break the proof: distances stay float32."""
    features = torch.nn.functional.layer_norm(torch.randn(1, 600, 64), (64,))
    positions = torch.cartesian_prod(torch.arange(20.0), torch.arange(30.0))[None] / 2
    plain = dpc_knn(features, 150, positions=positions, spatial_weight=weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = dpc_knn(features, 150, positions=positions, spatial_weight=weight)
    assert torch.equal(plain.centers, inside.centers)
    assert torch.equal(plain.assignment, inside.assignment)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_products_of_reduced_precision_are_not_used(weight: float) -> None:
    features, positions = 5 + smooth(36, 40, 64), grid(36, 40)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert_exact(features, 360, positions=positions, weight=weight)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_static_operators_equal_transcription(weight: float, k: int) -> None:
    """Without ties nothing is left to rounding."""
    features, positions = smooth(36, 80, 12, batch=2), grid(36, 80).expand(2, -1, -1)
    assignment, centers = traceable.cluster(features, 720, k, positions, weight, fixed=True)
    expected = dpc_knn(features, 720, k, positions, weight)
    assert torch.equal(centers, expected.centers)
    assert torch.equal(assignment, expected.assignment)


def test_exports_as_plain_operators() -> None:
    class Cells(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return dpc_knn(x, 360, 5, y, 0.7).assignment

    features, positions = smooth(36, 40, 12), grid(36, 40)
    program = torch.export.export(Cells(), (features, positions))
    assert not any("efnet" in str(node.target) for node in program.graph.nodes)
    assert torch.equal(program.module()(features, positions), Cells()(features, positions))


@pytest.mark.parametrize("size", [None, (36, 40)])
def test_compiles_into_one_graph(size: tuple[int, int] | None) -> None:
    features, positions = smooth(36, 40, 12), grid(36, 40)

    def cells(x: Tensor) -> Tensor:
        return dpc_knn(2 * x, 360, 5, positions, 0.7, size).assignment + 1

    compiled = torch.compile(cells, fullgraph=True, backend="eager")
    assert torch.equal(compiled(features), cells(features))


def test_one_graph_for_any_size_and_weight() -> None:
    def cluster(features: Tensor, positions: Tensor, weight: float) -> Tensor:
        return dpc_knn(features, 30, 5, positions, weight).assignment

    compiled = torch.compile(cluster, fullgraph=True, dynamic=True, backend="eager")
    for tokens, weight in ((120, 0.3), (144, 0.7)):
        features, positions = torch.randn(1, tokens, 8), torch.rand(1, tokens, 2)
        assert torch.equal(compiled(features, positions, weight), cluster(features, positions, weight))
