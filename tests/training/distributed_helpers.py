"""The command line in several processes, started as users start them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from efnet.training.run_folder import RunFolder
from efnet.training.state import read_state

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

posix = pytest.mark.skipif(
    os.name != "posix" or not torch.distributed.is_gloo_available(), reason="needs gloo"
)


def train_words(scenes: Path, out: Path, *options: str) -> list[str]:
    """`efnet train` of four steps with four pairs each."""
    fixed = (
        "--dataset mfnet --model efnet_tiny --size 64x96 --epochs 2 --lr 1e-3 --workers 0 --device cpu "
        "--schedule.warmup_epochs 0 --network.drop_path 0.1 --optimizer.clip 1 --validation.samples 2"
    )
    return ["-m", "efnet", "train", "--root", str(scenes), "--out", str(out), *fixed.split(), *options]


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Start Python with these words."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def finish(*words: str, status: int = 0) -> tuple[str, str]:
    """Run Python with these words to the end; returns what it printed on stdout and stderr."""
    process = start(*words)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    return out, err


def children(pid: int) -> list[int]:
    """The processes that one has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return sorted(map(int, found.split()))


@contextlib.contextmanager
def running(out: Path, epochs: int, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A run that has written so many epochs; it and all that it started are gone afterwards."""
    process = start(*words)
    below: list[int] = []
    try:
        while len(rows(out)) < epochs:
            time.sleep(0.1)
            below = children(process.pid)
            assert process.poll() is None
        yield process
    finally:
        process.kill()
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def rows(out: Path) -> list[dict[str, Any]]:
    """What a run wrote for every epoch."""
    if not RunFolder(out).metrics_jsonl.is_file():
        return []
    return [json.loads(line) for line in RunFolder(out).metrics_jsonl.read_text().splitlines()]


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Losses, figures, weights and moments are equal within rounding."""
    for one, other in zip(rows(ours), rows(theirs), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["lr"] == other["lr"]
        assert one["val_miou"] == pytest.approx(other["val_miou"], abs=0.01)
    first, second = (read_state(RunFolder(out).state) for out in (ours, theirs))
    for name, value in first["model"].items():
        torch.testing.assert_close(value, second["model"][name], rtol=1e-2, atol=2e-4)
    moments, others = first["optimizer"]["state"], second["optimizer"]["state"]
    assert moments.keys() == others.keys()
    assert all(int(moments[key]["step"]) == int(others[key]["step"]) for key in moments)
    one, other = (
        torch.cat([state[key]["exp_avg"].flatten() for key in sorted(state)]) for state in (moments, others)
    )
    assert float((one - other).norm() / one.norm()) < 1e-2
