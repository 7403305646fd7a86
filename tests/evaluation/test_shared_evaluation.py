"""A split that several processes share: every pair once, and the same report as from one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import efnet
from efnet.cli.main import main
from efnet.core.distributed import Group
from efnet.data.layouts import open_split
from efnet.evaluation.evaluate import Work
from efnet.models import InputSpec
from efnet.scenes import write_dataset

posix = pytest.mark.skipif(
    os.name != "posix" or not torch.distributed.is_gloo_available(), reason="needs gloo"
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@given(pairs=st.integers(1, 60), batch_size=st.integers(1, 9), size=st.integers(1, 7))
def test_every_pair_is_in_one_share_and_keeps_its_batch(pairs: int, batch_size: int, size: int) -> None:
    works = []
    for rank in range(size):
        group = Group.alone()
        group.rank, group.size = rank, size
        works.append(Work(pairs, batch_size, group))
    assert sorted(index for work in works for index in work.indices) == list(range(pairs))
    assert max(len(work.batches) for work in works) == works[0].turns
    whole = Work(pairs, batch_size, Group.alone()).batches
    assert sorted(batch for work in works for batch in work.batches) == whole


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five scenes, by day and by night, and a checkpoint."""
    root = tmp_path_factory.mktemp("shared")
    write_dataset(root / "data", train=1, val=1, test=5, size=(64, 96), seed=2)
    torch.manual_seed(0)
    model = efnet.create_model("efnet_tiny", classes=open_split("mfnet", root / "data", "test").classes)
    model.input = InputSpec((64, 96))
    model.save_pretrained(root / "checkpoint")
    return root


def words(world: Path, out: Path, options: str = "") -> list[str]:
    """`efnet evaluate` as typed."""
    data = f"--checkpoint {world / 'checkpoint'} --dataset mfnet --root {world / 'data'} --split test"
    files = f"--json {out}/r.json --sheet {out}/s.png --save-predictions {out}/maps --markdown {out}/r.md"
    fixed = "--protocol native --device cpu --workers 0 --batch-size 2"
    return ["evaluate", *f"{data} {files} {fixed} {options}".split()]


def start(processes: str, *given: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in several processes."""
    return subprocess.run(
        [sys.executable, *TORCHRUN, processes, "-m", "efnet", *given],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@posix
@pytest.mark.parametrize(
    ("processes", "options"),
    [
        ("2", ""),
        pytest.param("2", "--tta", marks=pytest.mark.slow),
        pytest.param("2", "--size native --precision bf16 --workers 1", marks=pytest.mark.slow),
        pytest.param("4", "", marks=pytest.mark.slow),  # one of them has nothing to do
    ],
)
def test_processes_write_the_report_of_one(
    processes: str, options: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(world, tmp_path / "one", options)) == 0
    alone = capsys.readouterr().out
    together = start(processes, *words(world, tmp_path / "two", options))
    assert together.returncode == 0, together.stderr
    assert together.stdout == alone.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(names) == 8
    for name in names:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


@posix
@pytest.mark.slow
def test_a_fault_in_one_process_ends_all_with_one_message(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "copy")
    third = (tmp_path / "copy" / "data" / "test.txt").read_text().split()[2]  # the second process reads it
    image = tmp_path / "copy" / "data" / "images" / f"{third}.png"
    image.write_bytes(image.read_bytes()[:-200])
    together = start("2", *words(tmp_path / "copy", tmp_path / "out"))
    assert together.returncode != 0
    assert together.stderr.count("efnet: error: ") == 1, together.stderr
    assert image.name in together.stderr
    assert not (tmp_path / "out" / "r.json").exists()
