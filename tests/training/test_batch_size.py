"""The batch size `auto`: the search itself, the memory that it reads, and a run that uses it."""

from __future__ import annotations

import json
import mmap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_network import Small
from test_from_python import NAME, options, same_bits, words

import efnet
from efnet.cli.main import main
from efnet.core import memory
from efnet.core.errors import InputError
from efnet.training import batch_size
from efnet.training.batch_size import Trial, largest_batch

assert Small
CPU = torch.device("cpu")


@given(st.integers(1, 300), st.integers(0, 10**6), st.integers(1, 10**5), st.integers(0, 4), st.booleans())
def test_the_largest_that_fits_is_found(most: int, base: int, pair: int, bend: int, raises: bool) -> None:
    """Also where memory does not grow along a line, and where a step fails instead of growing."""
    budget = base + pair * 40 + 17

    def peak(pairs: int) -> int:
        return base + pair * pairs + bend * pairs**2

    tried = []

    def step(pairs: int) -> Trial:
        tried.append(pairs)
        needed = peak(pairs)
        return Trial(pairs, None if raises and needed > budget else needed)

    fitting = [pairs for pairs in range(1, most + 1) if peak(pairs) <= budget]
    found, trials = largest_batch(step, budget, most)
    assert found == max(fitting)
    assert found in tried
    assert [trial.pairs for trial in trials] == tried
    assert len(tried) == len(set(tried)) <= 20


def test_a_pair_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(InputError, match=r"a batch of one pair needs more than the 0\.00 GB"):
        largest_batch(lambda pairs: Trial(pairs, 10**9), 10**6, 8)


def test_a_step_without_memory_ends_the_search_not_the_run(
    scenes: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    real = batch_size.Trainer

    class Scarce(real):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            make = self.learner.step

            def step(batch: Any, number: int) -> Any:
                if len(batch["rgb"]) > 3:
                    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
                return make(batch, number)

            self.learner.step = step  # type: ignore[method-assign]

    monkeypatch.setattr(batch_size, "Trainer", Scarce)
    run = efnet.train(**{**options(scenes, epochs=1), "batch_size": "auto"}, out=tmp_path / "run")
    assert yaml.safe_load((run.out / "config.yaml").read_text())["data"]["batch_size"] == 3
    assert run.facts["global_batch"] == run.facts["batch_size_found"]["pairs"] == 3


def test_auto_is_found_recorded_and_kept(scenes: Path, tmp_path: Path) -> None:
    auto, given = tmp_path / "auto", tmp_path / "given"
    shared = words(scenes, auto, "--model", NAME, "--epochs", "1")
    shared[shared.index("--batch-size") + 1] = "auto"
    assert main(shared) == 0
    facts = json.loads((auto / "run.json").read_text())["batch_size_found"]
    assert facts["pairs"] == 6  # all scenes of the split: they take a few megabytes
    assert 0 < facts["peak_bytes"] <= facts["budget_bytes"]
    # The trial changes no bit of the run.
    shared[shared.index("--batch-size") + 1] = "6"
    shared[shared.index("--out") + 1] = str(given)
    assert main(shared) == 0
    assert same_bits(auto, given)
    assert (
        main(["train", "--out", str(auto), "--resume", "--quiet", "--epochs", "2", "--batch-size", "auto"])
        == 0
    )
    assert yaml.safe_load((auto / "config.yaml").read_text())["data"]["batch_size"] == 6


def test_the_budget_bounds_the_batch(scenes: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    # Less than nothing: a step may find all that it needs in memory which is free already.
    monkeypatch.setattr(batch_size, "usable_memory", lambda device: -100)
    given = {**options(scenes, epochs=1), "batch_size": "auto", "model": "efnet_tiny"}
    with pytest.raises(InputError, match="one pair needs more than"):
        efnet.train(**given, out=tmp_path / "run")
    monkeypatch.setattr(batch_size, "usable_memory", lambda device: None)
    with pytest.raises(InputError, match="does not report its memory; give a number"):
        efnet.train(**given, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- memory ---------------------------------------------------------------------------------------------


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_tightest_control_group_counts(tmp_path: Path) -> None:
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    proc.write_text("0::/job/step\n")
    group(root / "job" / "step", memory__max="max\n", memory__current="300\n")
    group(
        root / "job",
        memory__max="1000\n",
        memory__current="700\n",
        memory__stat="anon 1\ninactive_file 200\n",
    )
    assert memory.group_memory(proc, root) == 500
    group(root / "job" / "step", memory__max="400\n", memory__current="300\n")
    assert memory.group_memory(proc, root) == 100
    # A container sees its own group at the root.
    proc.write_text("0::/../other\n")
    group(root, memory__max="90\n", memory__current="80\n")
    assert memory.group_memory(proc, root) == 10


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    proc.write_text("5:cpu,cpuacct:/a\n4:memory:/job\n")
    group(root / "memory", memory__limit_in_bytes=f"{2**63 - 4096}", memory__usage_in_bytes="5")
    group(root / "memory" / "job", memory__limit_in_bytes="1000", memory__usage_in_bytes="400")
    assert memory.group_memory(proc, root) == 600
    assert memory.group_memory(tmp_path / "absent", root) is None


def test_memory_of_this_process_is_measured() -> None:
    free = memory.usable_memory(CPU)
    if free is None or not memory.resident():
        pytest.skip("this system does not report its memory")
    with memory.measured(CPU) as peak:
        before = memory.resident()
        with mmap.mmap(-1, 64 * 2**20) as block:  # freed memory of the process may still be resident
            block.write(b"\1" * len(block))
    assert peak.bytes >= before + 60 * 2**20


def test_memory_is_sampled_where_the_peak_cannot_be_reset() -> None:
    peak = memory.Peak()
    with memory._sampled(peak):
        before = memory.resident()
        with mmap.mmap(-1, 64 * 2**20) as block:
            block.write(b"\1" * len(block))
            held = memory.resident()
            time.sleep(0.05)  # many intervals
    if before:
        assert peak.bytes >= held - 2**20
