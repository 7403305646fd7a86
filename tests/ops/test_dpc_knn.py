"""The clustering against a transcription of its equations, and its properties."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dpc_cases import FEATURES, assert_exact, duplicated, grid, smooth
from hypothesis import given, settings
from hypothesis import strategies as st

from efnet.ops.clustering.dpc_knn import dpc_knn


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7, 3.0])
def test_equals_transcription(name: str, weight: float) -> None:
    assert_exact(FEATURES[name], 155, positions=grid(20, 31), weight=weight)


@pytest.mark.parametrize("name", FEATURES)
def test_equals_transcription_without_positions(name: str) -> None:
    assert_exact(FEATURES[name], 155)


@pytest.mark.parametrize("name", FEATURES)
def test_equals_transcription_off_the_grid(name: str) -> None:
    random = torch.Generator().manual_seed(5)
    uneven = (torch.randn(1, 620, 2, generator=random) * 3).clamp(-5, 5)  # some at one place, at the border
    assert_exact(FEATURES[name], 155, positions=uneven, weight=0.7)


@pytest.mark.parametrize("size", [(32, 40), (47, 53), (24, 96), (96, 24)])
@pytest.mark.parametrize("weight", [0.3, 0.7])
def test_windows_equal_transcription(size: tuple[int, int], weight: float) -> None:
    tokens = size[0] * size[1]
    assert_exact(smooth(*size, 24), -(-tokens // 4), positions=grid(*size), weight=weight)


@pytest.mark.parametrize("kind", ["smooth", "kinds", "far"])
def test_many_tokens_without_positions(kind: str) -> None:
    """So many that each pair of blocks is measured once; not a multiple of their size."""
    features = {
        "smooth": lambda: smooth(67, 71, 8),
        "kinds": lambda: duplicated(4757, 8, 2000),
        "far": lambda: 1e3 + torch.randn(1, 4757, 8, generator=torch.Generator().manual_seed(0)),
    }[kind]()
    assert_exact(features, 1190)


def test_windows_off_the_grid_equal_transcription() -> None:
    random = torch.Generator().manual_seed(0)
    keep = torch.rand(60 * 60, generator=random).argsort()[:1801].sort().values
    positions = grid(60, 60, pitch=2.83)[:, keep]
    assert_exact(smooth(60, 60, 20)[:, keep], 451, positions=positions, weight=0.7)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("pitch", [2.0, 1.9595917])
def test_black_frame(weight: float, pitch: float) -> None:
    """No features but positions: almost every comparison is a tie or nearly one."""
    features, positions = torch.zeros(1, 36 * 44, 8) + 0.1, grid(36, 44, pitch)
    assert_exact(features, 396, positions=positions, weight=weight)
    assert_exact(features, 396, positions=positions, weight=weight, size=(36, 44))


def test_half_black_frame() -> None:
    features = smooth(36, 44, 12).view(1, 36, 44, 12)
    features[:, :, 15:] = features[:, :1, :1]
    assert_exact(features.flatten(1, 2), 396, positions=grid(36, 44), weight=0.7)


def test_features_out_of_reach_of_windows() -> None:
    """Features say the opposite of positions: nothing nearby is near."""
    random = torch.Generator().manual_seed(0)
    features = smooth(36, 40, 12)[:, torch.randperm(36 * 40, generator=random)]
    for weight in (1e-3, 0.1, 0.7):
        assert_exact(20 * features, 360, positions=grid(36, 40), weight=weight)


@pytest.mark.parametrize("columns", [1, 3])
def test_positions_of_other_dimension(columns: int) -> None:
    positions = torch.randn(1, 620, columns, generator=torch.Generator().manual_seed(0))
    assert_exact(FEATURES["random"], 155, positions=positions, weight=0.7)


def test_positions_all_on_one_line_or_at_one_place() -> None:
    features = smooth(36, 40, 12)
    line = grid(1440, 1)
    for positions in (line, line.flip(-1), torch.ones_like(line)):
        assert_exact(features, 360, positions=positions, weight=0.7)


@pytest.mark.parametrize("num_clusters", [1, 2, 1439, 1440])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_extreme_numbers_of_clusters(num_clusters: int, weight: float) -> None:
    assert_exact(smooth(36, 40, 12), num_clusters, positions=grid(36, 40), weight=weight)


@pytest.mark.parametrize("k", [1, 2, 3, 9, 40, 700, 10_000])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_neighbors(k: int, weight: float) -> None:
    """The last k is more than there are tokens."""
    height, width = (36, 40) if k <= 700 else (18, 20)
    features = smooth(height, width, 12)
    assert_exact(features, height * width // 4, k, positions=grid(height, width), weight=weight)


@pytest.mark.parametrize("tokens", [1, 2, 3, 6])
def test_few_tokens(tokens: int) -> None:
    features = torch.randn(2, tokens, 4, generator=torch.Generator().manual_seed(0))
    for num_clusters in range(1, tokens + 1):
        assert_exact(features, num_clusters)
        assert_exact(features, num_clusters, positions=grid(tokens, 1).expand(2, -1, -1), weight=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_types(dtype: torch.dtype, weight: float) -> None:
    features = smooth(36, 40, 12).double()
    positions = grid(36, 40, 1.9595917).double()
    assert_exact(features.to(dtype), 360, positions=positions.to(dtype), weight=weight)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scales(scale: float) -> None:
    """Beyond what float32 squares: density is one or zero for all."""
    assert_exact(scale * smooth(36, 40, 12), 360, positions=scale * grid(36, 40), weight=0.7)
    assert_exact(scale * smooth(36, 40, 12), 360)


def test_features_beyond_float32_squares() -> None:
    """A distance whose square float32 does not hold proves nothing."""
    far, near = 1.36e19, 0.35
    features = torch.eye(400, 1024) * far
    features[165] = 0
    features[165, 205], features[165, 165] = far * near, far * (1 - near**2) ** 0.5
    assert_exact(features[None], 205, 2, grid(20, 20, 1.0) * 1.6e17, 1.0, (20, 20))


@pytest.mark.parametrize("magnitude", [1e16, 1e20, 3e37])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_every_token_has_its_nearest_centre_at_any_magnitude(magnitude: float, weight: float) -> None:
    """Differences as large as that have no float32 squares; some tokens are near each other all the same."""
    features = magnitude * smooth(20, 31, 8)
    features[:, 300:] /= magnitude
    for positions in (grid(20, 31), grid(20, 31) * (magnitude / 10)):
        assert_exact(features, 155, positions=positions, weight=weight)
        assert_exact(features, 155, positions=positions, weight=weight, size=(20, 31))
    assert_exact(smooth(20, 31, 8), 155, positions=grid(20, 31) * (magnitude / 10), weight=0.7)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_batch_equals_its_samples(weight: float) -> None:
    features = torch.cat([smooth(36, 40, 12), torch.ones(1, 1440, 12), smooth(36, 40, 12, seed=2)])
    positions = grid(36, 40).expand(3, -1, -1)
    assert_exact(features, 360, positions=positions, weight=weight)
    together = dpc_knn(features, 360, positions=positions, spatial_weight=weight)
    for sample in range(3):
        alone = dpc_knn(features[sample, None], 360, positions=grid(36, 40), spatial_weight=weight)
        assert torch.equal(alone.centers[0], together.centers[sample])
        assert torch.equal(alone.assignment[0], together.assignment[sample])


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 90),
    channels=st.integers(1, 9),
    k=st.integers(1, 12),
    weight=st.sampled_from([0.0, 0.3, 5.0]),
    levels=st.sampled_from([2, 5, 1000]),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_properties(
    tokens: int, channels: int, k: int, weight: float, levels: int, seed: int, data: st.DataObject
) -> None:
    random = torch.Generator().manual_seed(seed)
    features = torch.randint(levels, (1, tokens, channels), generator=random) / 8
    positions = torch.randint(6, (1, tokens, 2), generator=random) / 2
    num_clusters = data.draw(st.integers(1, tokens))
    assert_exact(features, num_clusters, k, positions, weight)
    result = dpc_knn(features, num_clusters, k, positions, weight)
    assert torch.equal(result.centers, result.centers.unique(sorted=True)[None])
    assert result.assignment.min() == 0
    assert result.assignment.max() == num_clusters - 1
    assert torch.equal(result.assignment[0, result.centers[0]], torch.arange(num_clusters))
    # A shift that the type represents exactly changes no distance.
    moved = dpc_knn(features + 16, num_clusters, k, positions - 32, weight)
    assert torch.equal(moved.centers, result.centers)
    assert torch.equal(moved.assignment, result.assignment)


FEATURE = torch.zeros(1, 6, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": torch.zeros(6, 2)}, r"\(B, N, C\)"),
        ({"features": torch.zeros(1, 0, 2)}, "not empty"),
        ({"num_clusters": 0}, "1 to N = 6"),
        ({"num_clusters": 7}, "1 to N = 6"),
        ({"k": 0}, "at least 1"),
        ({"spatial_weight": -0.1}, "not negative"),
        ({"spatial_weight": float("nan")}, "finite"),
        ({"spatial_weight": 0.5}, "needs positions"),
        ({"positions": torch.zeros(1, 5, 2)}, r"\(B, N, P\)"),
        ({"positions": torch.zeros(6, 2)}, r"\(B, N, P\)"),
        ({"grid": (2, 4)}, "not N = 6"),
    ],
)
def test_refuses(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dpc_knn(**{"features": FEATURE, "num_clusters": 2} | arguments)  # type: ignore[arg-type]


MEMORY = """
import pathlib, sys, torch
from efnet.ops.clustering.dpc_knn import dpc_knn
torch.manual_seed(0)
weight = float(sys.argv[1])
# Not ru_maxrss: that begins with the peak of the process which started this one.
peak = lambda: int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
y = torch.cartesian_prod(torch.arange(120.0), torch.arange(160.0))[None] / 2
x = torch.nn.functional.interpolate(torch.randn(1, 128, 20, 27), (120, 160), mode="bilinear")
x = torch.nn.functional.layer_norm(x.flatten(2).transpose(1, 2), (128,))
dpc_knn(x[:, :64], 16, positions=y[:, :64], spatial_weight=weight)
before = peak()
dpc_knn(x, 4800, positions=y, spatial_weight=weight)
print(peak() - before)
"""


@pytest.mark.parametrize(
    "weight", [0.7, pytest.param(0.0, marks=pytest.mark.slow), pytest.param(0.01, marks=pytest.mark.slow)]
)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux")
def test_memory_at_street_scene_size(weight: float) -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, str(weight)], check=True, capture_output=True, text=True, timeout=600
    )
    assert float(run.stdout) < 400  # MB


def test_black_frame_of_street_scene_size() -> None:
    """Half of all distances tie: still windows, not an N x N search."""
    for size in (None, (120, 160)):
        result = dpc_knn(torch.zeros(1, 19200, 16), 4800, 5, grid(120, 160), 0.7, size)
        assert result.assignment.unique().numel() == 4800


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("share", [0.01, 1.0])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_features_that_are_no_numbers_give_valid_clusters(value: float, share: float, weight: float) -> None:
    """A diverged network is told so by its loss, not by an index."""
    features, positions = smooth(36, 40, 12, batch=2), grid(36, 40).expand(2, -1, -1)
    features[torch.rand(features.shape, generator=torch.Generator().manual_seed(0)) < share] = value
    for size in (None, (36, 40)):
        result = dpc_knn(features, 360, 5, positions, weight, size)
        assert result.assignment.min() == 0
        assert result.assignment.max() == 359
        assert torch.equal(result.assignment.gather(1, result.centers), torch.arange(360).expand(2, -1))
