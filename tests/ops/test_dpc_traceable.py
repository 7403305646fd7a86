"""Clustering by operators that can be exported: the same clusters as `dpc_knn`, in ONNX Runtime too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from efnet.core.compat import is_exporting
from efnet.ops.clustering import traceable
from efnet.ops.clustering.dpc_knn import dpc_knn
from efnet.ops.clustering.traceable import Table, window_off_grid, window_on_grid


def smooth(height: int, width: int, channels: int, batch: int = 1, noise: float = 0.3) -> Tensor:
    coarse = torch.randn(batch, channels, height // 4, width // 4)
    tokens = (
        torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").flatten(2).transpose(1, 2)
    )
    return torch.nn.functional.layer_norm(tokens + noise * torch.randn_like(tokens), (channels,))


def cells(height: int, width: int, batch: int = 1) -> Tensor:
    grid = torch.cartesian_prod(torch.arange(float(height)), torch.arange(float(width)))
    return grid.expand(batch, -1, -1) / 2


def assert_same(
    features: Tensor, positions: Tensor | None, weight: float, k: int, grid: tuple | None
) -> None:
    count = -(-features.shape[1] // 4)
    found, centers = traceable.cluster(features, count, k, positions, weight, grid)
    expected = dpc_knn(features, count, k, positions, weight, grid)
    assert torch.equal(centers, expected.centers)
    assert torch.equal(found, expected.assignment)


@pytest.mark.parametrize(
    ("height", "width", "weight", "k"),
    [(24, 32, 0.7, 5), (19, 27, 0.7, 5), (8, 8, 0.7, 5), (9, 8, 0.7, 1), (24, 19, 0.05, 5), (17, 40, 0.7, 9)],
)
def test_on_a_grid(height: int, width: int, weight: float, k: int) -> None:
    """Windows, and beyond them the loop: at a weight of 0.05 a window proves next to nothing."""
    assert_same(smooth(height, width, 16, 2), cells(height, width, 2), weight, k, (height, width))


def test_under_a_map_that_is_no_isometry() -> None:
    positions = cells(24, 32) @ torch.tensor([[0.4, 0.3], [-0.2, 1.5]])
    assert_same(smooth(24, 32, 16), positions, 0.7, 5, (24, 32))


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("k", [1, 5])
def test_of_loose_tokens(weight: float, k: int) -> None:
    assert_same(smooth(24, 28, 32, 2), cells(24, 28, 2) if weight else None, weight, k, None)


def test_of_more_neighbours_than_tiles_hold() -> None:
    assert_same(smooth(24, 28, 8), cells(24, 28), 0.3, 600, None)


def distances(table: Table) -> Tensor:
    assert table.places is not None
    values, places = table.values[..., :-2].double(), table.places.double()
    return torch.cdist(values, values) + torch.cdist(places, places)


@pytest.mark.parametrize(("tokens", "k"), [(1, 1), (5, 5), (63, 3), (64, 5), (65, 5), (600, 5), (1500, 7)])
def test_tiles_prove_what_they_say(tokens: int, k: int) -> None:
    """Where the bound says so the nearest are the nearest of all; with a clear spatial term nearly always."""
    places = torch.rand(2, tokens, 2) * torch.tensor([30.0, 40.0])
    table = Table.of(torch.randn(2, tokens, 8), places, 0.7)
    window = window_off_grid(table)
    near, token = window.nearest(k)
    expected = distances(table).topk(k, 2, largest=False).values
    proved = near[..., -1] <= window.bound
    torch.testing.assert_close(near[proved].double(), expected[proved], rtol=1e-4, atol=2e-3)
    apart = distances(table).gather(2, token)
    torch.testing.assert_close(apart[proved], expected[proved], rtol=1e-4, atol=2e-3)
    assert proved.float().mean() > (0.9 if tokens > 600 else 0.999)


def test_tiles_of_tokens_in_one_place() -> None:
    """Boxes are points, all equally near: nothing is proved beyond those looked at, nothing wrong."""
    table = Table.of(torch.randn(1, 900, 8), torch.ones(1, 900, 2), 0.7)
    assert torch.equal(window_off_grid(table).bound, torch.zeros(1, 900))
    features, positions = torch.randn(1, 900, 8), torch.ones(1, 900, 2)
    assert_same(features, positions, 0.7, 5, None)


@pytest.mark.slow
def test_of_positions_with_many_axes() -> None:
    assert_same(smooth(20, 24, 32), 0.1 * torch.randn(1, 480, 12), 0.3, 5, None)


def test_a_flat_image_still_gives_whole_clusters() -> None:
    found, centers = traceable.cluster(torch.zeros(1, 384, 8), 96, 5, cells(16, 24), 0.7, (16, 24))
    assert torch.equal(found[0, centers[0]], torch.arange(96))
    assert found.min() == 0
    assert found.max() == 95


def test_densities_of_nearly_equal_tokens() -> None:
    """Two flat areas far apart: of |x|^2 + |y|^2 - 2 xy nothing would be left of distances within one."""
    areas = 5 * torch.randn(2, 16).repeat_interleave(192, 0)
    features = (areas + 1e-4 * torch.randn(384, 16))[None]
    table = Table.of(features, cells(16, 24), 0.7)
    near, token = traceable._neighbors(table, window_on_grid(table, (16, 24)), 5)
    pairs = features[0].double()[token[0]] - features[0].double()[:, None]
    places = cells(16, 24)[0].double()
    spatial = (places[token[0]] - places[:, None]).norm(dim=-1)
    expected = pairs.norm(dim=-1) / 4 + 0.7 * spatial
    torch.testing.assert_close(near[0].double(), expected, rtol=1e-5, atol=1e-7)


def with_faults(features: Tensor) -> Tensor:
    features = features.clone()
    features[:, 7, 3], features[:, 20, 0], features[:, 21] = torch.nan, torch.inf, -torch.inf
    return features


def test_tokens_that_are_no_numbers_count_as_zeros() -> None:
    assert_same(with_faults(smooth(16, 24, 8)), cells(16, 24), 0.7, 5, (16, 24))
    assert_same(with_faults(smooth(16, 24, 8)), None, 0.0, 5, None)


class Cells(torch.nn.Module):
    def forward(self, maps: Tensor) -> tuple[Tensor, ...]:
        batch, _, height, width = maps.shape
        axes = torch.meshgrid(*(torch.arange(n).float() for n in (height, width)), indexing="ij")
        positions = torch.stack(axes, -1).flatten(0, 1).expand(batch, -1, -1) / 2
        tokens = maps.flatten(2).transpose(1, 2)
        return dpc_knn(tokens, (height * width + 3) // 4, 5, positions, 0.7, (height, width))


@pytest.mark.slow
def test_in_onnx_runtime_for_any_size() -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from torch.export import Dim
    from torch.fx.experimental import _config

    from efnet.export.formats import translations

    axes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    with torch.no_grad(), _config.patch(backed_size_oblivious=True):
        program = torch.export.export(
            Cells(),
            (torch.randn(2, 16, 25, 33),),
            dynamic_shapes=axes,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    assert not any("efnet" in str(node.target) for node in program.graph.nodes)
    made = torch.onnx.export(
        program, (), None, opset_version=20, custom_translation_table=translations(), verbose=False
    )
    session = runtime.InferenceSession(made.model_proto.SerializeToString())
    (given,) = session.get_inputs()
    for batch, height, width in ((1, 24, 32), (3, 17, 20), (1, 8, 9)):
        tokens = smooth(height, width, 16, batch)
        for features in (tokens, with_faults(tokens)):
            maps = features.transpose(1, 2).unflatten(2, (height, width))
            found = session.run(None, {given.name: maps.numpy()})
            for ours, theirs in zip(Cells()(maps), found, strict=True):
                assert torch.equal(ours, torch.from_numpy(theirs))


def test_outside_an_export_nothing_is_exporting() -> None:
    assert not is_exporting()
