"""What the benchmark computes from times, and that the dense formulation is what it is compared with."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from efnet.core.errors import InputError
from efnet.core.memory import free_memory
from efnet.models import create_model, dbtc
from efnet.ops.clustering.dpc_knn import dpc_knn
from efnet.reporting.tables import Quantiles
from efnet.studies.benchmark import dense, markdown, measure, scaling
from efnet.studies.benchmark.parts import OTHER, PartClock, breakdown
from efnet.studies.benchmark.subject import Subject, images, make_work, named_shortage, open_model

CPU = torch.device("cpu")
SIZE = (64, 96)


def test_spread_is_median_quartiles_and_tenths() -> None:
    spread = Quantiles.of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (spread.low, spread.median, spread.high, spread.runs) == (2.0, 3.0, 4.0, 5)
    assert (spread.p10, spread.p90) == pytest.approx((1.4, 4.6))
    assert Quantiles.of([7.0]) == Quantiles(7.0, 7.0, 7.0, 7.0, 7.0, 1)


def test_contestants_take_turns_and_warm_up_is_not_counted() -> None:
    order: list[str] = []
    told: list[None] = []
    works = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    spreads = measure.interleave(works, CPU, runs=2, warmup=1, step=lambda: told.append(None))
    assert order == ["a", "b"] * 3
    assert len(told) == 6
    assert [spread.runs for spread in spreads.values()] == [2, 2]


def test_gemm_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measure.GEMM_SIZES, "cpu", 16)
    works, operations = measure.gemm_contestants(CPU, "bf16")
    assert operations == {"float32": 2 * 16**3, "bfloat16": 2 * 16**3}
    assert [works[f"gemm {name}"]().dtype for name in operations] == [torch.float32, torch.bfloat16]
    spreads = {name: Quantiles.of([0.5]) for name in works}
    assert measure.gemm_rates(spreads, operations) == {"float32": 4 * 16**3, "bfloat16": 4 * 16**3}


def test_bandwidth_counts_what_a_copy_reads_and_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "COPY_BYTES", 4096)
    (copy,) = measure.copy_contestant(CPU).values()
    copied = copy()
    assert copied.numel() * copied.element_size() == 4096
    assert (copied == 1).all()
    assert measure.copy_rate({"copy": Quantiles.of([0.5])}) == 2 * 4096 / 0.5


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_dense_formulation_finds_the_same_clusters(weight: float) -> None:
    torch.manual_seed(3)
    features, positions = torch.randn(2, 60, 8, dtype=torch.float64), torch.rand(2, 60, 2) * 9
    ours = dpc_knn(features.float(), 13, 5, positions, weight)
    theirs = dense.dense_dpc_knn(features.float(), 13, 5, positions, weight)
    assert torch.equal(ours.centers, theirs.centers)
    assert torch.equal(ours.assignment, theirs.assignment)


def test_networks_cluster_by_another_function_within_a_block() -> None:
    seen: list[int] = []

    def counted(features: torch.Tensor, *args: object, **options: object) -> object:
        seen.append(features.shape[1])
        return dense.dense_dpc_knn(features, *args, **options)

    model = create_model("efnet_tiny").eval()
    pair = torch.rand(1, 3, *SIZE), torch.rand(1, 1, *SIZE)
    with torch.no_grad():
        expected = model(*pair)
        with dense.clustering_by(counted):
            found = model(*pair)
    assert seen == [384, 96, 24]
    assert dbtc.dpc_knn is dpc_knn
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_dense_memory_is_estimated_before_it_is_needed() -> None:
    assert dense.dense_bytes_of_network(1, (480, 640)) == dense.dense_bytes(1, 19200)
    # Measured on Linux for this case: about 4.3 GB.
    assert 4e9 < dense.dense_bytes(1, 19200) < 6e9


def test_cases_are_the_clusterings_of_the_network() -> None:
    cases = scaling.standard_cases("cpu")
    assert [case.tokens for case in cases] == [19200, 19200, 4800, 1200, 3072]
    assert [case.clusters for case in cases[:4]] == [4800, 4800, 1200, 300]
    assert [case.regular for case in cases] == [True, True, False, False, True]
    features, positions = scaling.clustering_inputs(cases[-1])
    assert features.shape == (4, 3072, 128)
    assert positions.shape == (4, 3072, 2)
    assert positions[0, 65].tolist() == [0.5, 0.5]


def test_left_out_where_memory_does_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measure.GEMM_SIZES, "cpu", 16)
    monkeypatch.setattr(scaling, "free_memory", lambda device: 1000)
    (row,) = scaling.compare_clusterings(scaling.cases_of(SIZE, 1, "cpu")[2:3], 1, 0, memory=False)["rows"]
    assert list(row["seconds"]) == ["ours"]
    assert row["faster"] is None
    assert row["agreement"] is None
    assert "dense left out" in row["skipped"]
    (row,) = scaling.measure_growth([Subject("efnet_tiny", (32, 32))], 1, 0, memory=False)["rows"]
    assert list(row["seconds"]) == ["ours"]
    assert "dense left out" in row["skipped"]


def test_slope_of_a_power_law() -> None:
    assert scaling.slope([(x, 3 * x**1.5) for x in (1.0, 2.0, 7.0)]) == pytest.approx(1.5)
    assert scaling.slope([(4.0, 1.0)]) is None
    assert scaling.slope([(4.0, 1.0), (4.0, 2.0)]) is None


@pytest.mark.parametrize("decoder", ["mfad", "mlp"])
def test_parts_add_up_to_the_whole(decoder: str) -> None:
    model = create_model("efnet_tiny", decoder=decoder).eval()
    subject = Subject("efnet_tiny", SIZE)
    found = breakdown(subject, model, runs=1)
    parts = {part["name"]: part["seconds"] for part in found["parts"]}
    assert sum(parts.values()) == pytest.approx(found["seconds"])
    expected = {f"clustering {n}" for n in (1, 2, 3)} | {f"stage {n} blocks" for n in (2, 3, 4)}
    expected |= {f"decoder ({decoder})", "fusion (mif)", "final resize", OTHER}
    assert expected <= parts.keys()
    assert all(parts[name] > 0 for name in expected)
    clustered = sum(seconds for name, seconds in parts.items() if name.startswith("clustering"))
    assert found["clustering_share"] == pytest.approx(clustered / found["seconds"])
    # Nothing is left behind in the network or in the module.
    assert "score_cells" not in vars(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert dbtc.dpc_knn is dpc_knn


def test_a_clock_charges_the_innermost_part() -> None:
    clock = PartClock(CPU)
    clock.start()
    clock.enter("outer")
    clock.enter("inner")
    assert clock.innermost == "inner"
    clock.leave()
    clock.leave()
    assert set(clock.stop()) == {OTHER, "outer", "inner"}


def test_a_step_trains_and_repeats() -> None:
    subject = Subject("efnet_tiny", SIZE, batch=2, training=True)
    model = open_model("efnet_tiny")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    make_work(subject, model)()
    changed = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert sum(changed) > 0.9 * len(changed)
    assert all(parameter.grad is None for parameter in model.parameters())
    again = open_model("efnet_tiny")
    assert all(torch.equal(old, new) for old, new in zip(before, again.parameters(), strict=True))
    first, second = images(subject, CPU), images(subject, CPU)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(image.min() >= 0 and image.max() <= 1 for image in first)


def test_lack_of_memory_is_named() -> None:
    subject = Subject("efnet_tiny", (480, 640), batch=3)
    with pytest.raises(InputError, match="3 pairs of 480x640 do not fit"), named_shortage(subject):
        torch.empty(1 << 55)
    with pytest.raises(RuntimeError, match="other"), named_shortage(subject):
        raise RuntimeError("other")


@pytest.mark.skipif(measure.resident_peak() is None, reason="no VmHWM on this system")
@pytest.mark.slow
def test_peak_of_a_process_of_its_own() -> None:
    case = scaling.cases_of((192, 256), 1, "cpu")[0]
    peaks = {}
    for contestant in scaling.CONTESTANTS:
        values = {"kind": "clustering", "case": vars(case), "contestant": contestant}
        peaks[contestant] = measure.peak_of(values)
    assert peaks["dense"]["added"] > 2 * 4 * case.tokens**2  # two N x N matrices at the least
    assert peaks["ours"]["added"] < peaks["dense"]["added"]
    assert peaks["ours"]["peak"] > peaks["ours"]["added"] > 0


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(InputError, match=r"failed .*nowhere"):
        measure.peak_of({"kind": "network", "subject": Subject("nowhere", SIZE).to_dict()})


def test_subjects_and_cases_travel_as_plain_values() -> None:
    subject = Subject("efnet_tiny", (1, 2), variant="compile", dense=True)
    assert Subject.from_dict({**subject.to_dict(), "size": [1, 2]}) == subject
    assert subject.label == "efnet_tiny, compile, dense clustering"
    case = scaling.standard_cases("cpu")[0]
    assert scaling.Case.from_dict({**vars(case), "cells": list(case.cells)}) == case


def test_machine_is_described() -> None:
    found = measure.describe(CPU)
    assert found["threads"] == torch.get_num_threads()
    assert found["process"]["allocator"] in ("kept", "system")
    assert found["cpu"] in measure.summary(found)
    assert (free_memory(CPU) or math.inf) > 0


def test_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {
            "size": [side, side],
            "pixels": side**2,
            "seconds": {"ours": {"median": side / 100}},
            "memory": {"ours": {"peak": 9, "added": side}},
        }
        for side in (32, 64)
    ]
    report = {"model": "m", "batch": 1, "machine": {"device": "cpu"}, "rows": rows}
    markdown.plot_growth(tmp_path / "growth.svg", report)
    assert "<svg" in (tmp_path / "growth.svg").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["growth.svg"]


def test_a_step_that_computes_activations_again() -> None:
    subject = Subject("efnet_tiny", SIZE, training=True, checkpoint_activations=True)
    model = open_model("efnet_tiny")
    make_work(subject, model)()
    assert model.checkpoint_activations
    assert subject.label == "efnet_tiny, checkpointed"
