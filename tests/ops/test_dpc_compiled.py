"""The clustering by compiled loops; `dpc_cases.assert_exact` compares them wherever it is used."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from dpc_cases import FEATURES, assert_exact, grid, smooth
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from efnet.core.threads import share_out
from efnet.ops.clustering import compiled
from efnet.ops.clustering.compiled import kernels
from efnet.ops.clustering.distances import Points
from efnet.ops.clustering.dpc_knn import dpc_knn

pytest.importorskip("numba")


def by_loops(
    features: Tensor, count: int, positions: Tensor | None = None, weight: float = 0.0,
    size: tuple[int, int] | None = None, k: int = 5,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    points = Points(features, None if weight == 0 else positions, weight)
    return compiled.cluster(points, count, min(k, features.shape[1]), size)


def test_takes_what_it_pays_for() -> None:
    positions = grid(20, 31)
    assert compiled.available()
    assert by_loops(FEATURES["smooth"], 155, positions, 0.7, (20, 31)) is not None
    assert by_loops(FEATURES["smooth"], 155) is not None  # few enough to compare all with all
    assert by_loops(torch.randn(1, 1700, 8), 400) is None
    unlike = torch.randn(1, 1700, 64, generator=torch.Generator().manual_seed(0))
    assert by_loops(unlike, 400, grid(34, 50), 1e-3) is None  # positions rule nothing out


def test_leaves_what_it_does_not_know() -> None:
    positions = grid(20, 31)
    assert by_loops(FEATURES["smooth"].double(), 155, positions, 0.7) is None
    assert by_loops(FEATURES["smooth"], 155, positions, 0.7, k=1) is None
    assert by_loops(FEATURES["smooth"], 155, torch.cat([positions, positions], -1), 0.7) is None
    nowhere = positions.clone()
    nowhere[0, 3, 1] = torch.nan
    assert by_loops(FEATURES["smooth"], 155, nowhere, 0.7) is None


def test_is_not_used_where_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFNET_NATIVE", "0")
    assert not compiled.available()
    assert by_loops(FEATURES["smooth"], 155, grid(20, 31), 0.7) is None


@pytest.mark.parametrize("kind", ["random", "few kinds", "equal", "integers", "smooth"])
@pytest.mark.parametrize("place", ["clumped", "line", "point", "far away"])
def test_positions_of_any_kind(kind: str, place: str) -> None:
    random = torch.Generator().manual_seed(4)
    positions = {
        "clumped": torch.randn(1, 620, 2, generator=random) ** 3,
        "line": torch.rand(1, 620, 1, generator=random) * torch.tensor([30.0, -20.0]),
        "point": torch.full((1, 620, 2), 2.5),
        "far away": 1e6 + torch.rand(1, 620, 2, generator=random),
    }[place]
    assert_exact(FEATURES[kind], 155, positions=positions, weight=0.5)


@given(st.data())
def test_equals_the_transcription(data: st.DataObject) -> None:
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    tokens = data.draw(st.integers(2, 200))
    channels = data.draw(st.sampled_from([1, 3, 64, 65, 130]))
    batch = data.draw(st.integers(1, 2))
    kinds = data.draw(st.integers(1, tokens))
    features = torch.randn(batch, kinds, channels, generator=random)
    features = features[:, torch.randint(kinds, (tokens,), generator=random)]
    positions = torch.randint(0, data.draw(st.integers(1, 40)), (batch, tokens, 2), generator=random) / 2
    weight = data.draw(st.sampled_from([0.0, 0.1, 0.5, 3.0]))
    count, k = data.draw(st.integers(1, tokens)), data.draw(st.integers(2, 9))
    assert_exact(features, count, k, positions, weight)


@pytest.mark.parametrize("size", [(1, 90), (90, 1), (2, 45), (13, 17), (40, 50)])
@pytest.mark.parametrize("weight", [0.05, 0.3, 2.0])
def test_grids_of_any_shape(size: tuple[int, int], weight: float) -> None:
    features = smooth(*size, 20)
    assert by_loops(features, size[0] * size[1] // 4, grid(*size), weight, size) is not None or weight < 0.1
    assert_exact(features, size[0] * size[1] // 4, positions=grid(*size), weight=weight, size=size)


def test_does_not_depend_on_threads() -> None:
    features, positions = smooth(40, 50, 32), grid(40, 50)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            results.append(by_loops(features, 500, positions, 0.7, (40, 50)))
    finally:
        torch.set_num_threads(threads)
    for found in results:
        assert found is not None
        assert results[0] is not None
        assert all(torch.equal(one, other) for one, other in zip(found, results[0], strict=True))


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_cover_the_whole_once(threads: int) -> None:
    seen = np.zeros(103, int)

    def task(first: int, last: int) -> int:
        seen[first:last] += 1
        return last - first

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert sum(share_out(task, 103, 10)) == 103
        assert share_out(task, 0, 10) == [0]
    finally:
        torch.set_num_threads(before)
    assert (seen == 1).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_error_in_a_part_is_raised_and_ends_the_others(threads: int) -> None:
    begun = []

    def task(first: int, last: int) -> int:
        begun.append(first)
        raise ZeroDivisionError

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with pytest.raises(ZeroDivisionError):
            share_out(task, 1000, 1)
    finally:
        torch.set_num_threads(before)
    assert len(begun) <= threads


def test_takes_what_requires_gradients() -> None:
    features = smooth(20, 31, 16).requires_grad_()
    with torch.enable_grad():
        result = dpc_knn(features, 155, 5, grid(20, 31).requires_grad_(), 0.7, (20, 31))
    assert not result.assignment.requires_grad
    assert not result.centers.requires_grad


def test_without_numba() -> None:
    """Where it is not installed the same is found without it."""
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch; from efnet.ops import dpc_knn; from efnet.ops.clustering import compiled\n"
        "assert not compiled.available()\n"
        "print(dpc_knn(torch.arange(40.0).view(1, 20, 2), 3).centers.tolist())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "EFNET_NATIVE"}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    expected = dpc_knn(torch.arange(40.0).view(1, 20, 2), 3).centers.tolist()
    assert ran.stdout.strip() == str(expected)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_trace_follows_its_input() -> None:
    """A traced program must not hold the clusters of the example."""
    one, other = torch.randn(2, 1, 60, 8)
    positions = torch.rand(1, 60, 2) * 5
    traced = torch.jit.trace(lambda x: dpc_knn(x, 10, 5, positions, 0.5).centers, (one,), check_trace=False)
    assert torch.equal(traced(other), dpc_knn(other, 10, 5, positions, 0.5).centers)


def test_goes_on_without_a_usable_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    expected = dpc_knn(FEATURES["smooth"], 155, 5, grid(20, 31), 0.7)
    monkeypatch.setattr(compiled, "_by_loops", full)
    try:
        with pytest.warns(UserWarning, match="No space left"):
            found = dpc_knn(FEATURES["smooth"], 155, 5, grid(20, 31), 0.7)
        assert not compiled.available()
    finally:
        compiled._forget.cache_clear()
    assert torch.equal(found.assignment, expected.assignment)


@pytest.mark.parametrize("factor", [1e-310, 1e-140, 1e140, 9e153])
def test_positions_of_any_magnitude(factor: float) -> None:
    features = torch.randn(1, 200, 8, generator=torch.Generator().manual_seed(1))
    positions = (
        torch.rand(1, 200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * factor
    )
    assert_exact(features, 20, positions=positions, weight=min(1 / factor, 1.0))


def test_does_not_wait_for_what_is_not_needed() -> None:
    """A helper that stands behind another caller's work is not waited for."""
    before = torch.get_num_threads()
    going, done = threading.Event(), threading.Event()

    def slow(first: int, last: int) -> int:
        going.set()
        done.wait(30)
        return 0

    torch.set_num_threads(2)
    other = threading.Thread(target=share_out, args=(slow, 4, 1))
    try:
        other.start()
        assert going.wait(30)
        assert sum(share_out(lambda first, last: last - first, 4, 1)) == 4
        assert not done.is_set()
    finally:
        done.set()
        other.join()
        torch.set_num_threads(before)


def test_loops_are_there() -> None:
    assert kernels() is not None
