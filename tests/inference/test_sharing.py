"""Prediction shared by processes: parts, journals beside each other, torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prediction_helpers import make_model, write_pair

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.inference.inputs import InputPair
from efnet.inference.resume import FILE_NAME, PredictionJournal, journals_in
from efnet.inference.stream import Shard

COUNT = 7


@pytest.fixture
def command(checkpoint, tmp_path):
    """Predict seven pairs, as typed."""
    for number in range(COUNT):
        write_pair(tmp_path, f"frame{number}", number, height=32, width=40)
    words = ["predict", f"--checkpoint={checkpoint}", "--device=cpu", "--save=index", "--workers=1"]
    words += [f"--rgb={tmp_path / 'rgb'}", f"--thermal={tmp_path / 'thermal'}", f"--out={tmp_path / 'out'}"]
    return lambda *more: main([*words, *more])


def recorded(folder: Path) -> list[str]:
    """Names in all journals, as often as they are there."""
    lines = [line for path in journals_in(folder) for line in path.read_text().splitlines()[1:]]
    return sorted(json.loads(line)["name"] for line in lines)


NAMES = [f"frame{number}" for number in range(COUNT)]


@given(st.integers(0, 40), st.integers(1, 9))
def test_parts_hold_everything_once(items, count):
    parts = [Shard(number + 1, count).pick(range(items)) for number in range(count)]
    assert sorted(item for part in parts for item in part) == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "2", "a/b", "-1/2", "1/2/3", "", "1.5/2"])
def test_parts_that_are_none(command, capsys, text):
    assert command(f"--shard={text}") == 2
    assert f"--shard {text}: give the part" in capsys.readouterr().err


def test_parts_fill_one_folder(command, tmp_path, capsys):
    for number in (2, 3, 1):
        assert command(f"--shard={number}/3") == 0
    assert recorded(tmp_path / "out") == NAMES
    assert sorted(path.stem for path in (tmp_path / "out" / "index").iterdir()) == NAMES
    assert sorted(path.name for path in journals_in(tmp_path / "out")) == [
        f"predictions-{number}-of-3.jsonl" for number in (1, 2, 3)
    ]
    assert "predicted 3 of 3 images, part 1 of 3 (7 in all)" in capsys.readouterr().out


def test_the_number_of_parts_may_change(command, tmp_path, capsys):
    """What other processes finished counts, and what they left is done by exactly one."""
    assert command("--shard=1/3") == 0
    assert command("--shard=2/2") == 0  # frame1, 3, 5; the first part above had frame0, 3, 6
    assert "predicted 2 of 3 images, part 2 of 2 (7 in all)" in capsys.readouterr().out
    assert command() == 0
    assert "predicted 2 of 7 images" in capsys.readouterr().out
    assert recorded(tmp_path / "out") == NAMES
    assert command("--shard=3/4") == 0
    assert "predicted 0 of 2 images" in capsys.readouterr().out


def test_maps_are_those_of_one_process(command, tmp_path):
    for number in (1, 2):
        command(f"--shard={number}/2")
    command(f"--out={tmp_path / 'alone'}")
    for name in NAMES:
        shared, alone = (
            np.asarray(Image.open(tmp_path / out / "index" / f"{name}.png")) for out in ("out", "alone")
        )
        np.testing.assert_array_equal(shared, alone)


def test_parts_of_another_model_are_refused(command, tmp_path, capsys):
    command("--shard=1/2")
    other = make_model()
    next(other.parameters()).data.add_(1)
    other.save_pretrained(tmp_path / "other")
    assert command("--shard=2/2", f"--checkpoint={tmp_path / 'other'}") == 2
    assert "another model or other settings" in capsys.readouterr().err
    assert recorded(tmp_path / "out") == ["frame0", "frame2", "frame4", "frame6"]
    for number in (1, 2):
        assert command(f"--shard={number}/2", f"--checkpoint={tmp_path / 'other'}", "--overwrite") == 0
    assert recorded(tmp_path / "out") == NAMES


def test_beginning_anew_alone_forgets_the_parts(command, tmp_path):
    command("--shard=1/2")
    assert command("--overwrite") == 0
    assert [path.name for path in journals_in(tmp_path / "out")] == [FILE_NAME]
    assert recorded(tmp_path / "out") == NAMES


def test_files_of_others_are_not_replaced_by_any_part(command, tmp_path, capsys):
    mine = tmp_path / "out" / "index" / "frame1.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"precious")
    for number in (1, 2):
        assert command(f"--shard={number}/2") == 2, (
            "frame1 belongs to the second part, but the first looks too"
        )
        assert "frame1.png: is there already" in capsys.readouterr().err
    assert not journals_in(tmp_path / "out")
    assert mine.read_bytes() == b"precious"


def test_one_process_writes_a_journal_at_a_time(command, tmp_path, capsys):
    command("--shard=1/2")
    settings = json.loads(journals_in(tmp_path / "out")[0].read_text().splitlines()[0])["settings"]
    with PredictionJournal(tmp_path / "out", settings, shard=Shard(1, 2)):
        assert command("--shard=1/2") == 2
        assert "another efnet writes to this folder at this moment" in capsys.readouterr().err
        assert command("--shard=2/2") == 0
    assert command("--shard=1/2") == 0


def test_a_journal_that_came_in_between_is_not_emptied(tmp_path):
    """Two processes take a fresh folder for the same part: the later one notices."""
    late = PredictionJournal(tmp_path, {"model": "x"})
    with PredictionJournal(tmp_path, {"model": "x"}) as early:
        early.add(InputPair("frame0", tmp_path / "a.png", None), (32, 40), {})
    with pytest.raises(InputError, match="another efnet writes"), late:
        pass
    assert recorded(tmp_path) == ["frame0"]


@pytest.mark.parametrize(
    ("rank", "size", "message"),
    [
        ("0", "2", "share the work already"),
        ("x", "2", "which is not a number"),
        ("2", "2", "ranks are numbered"),
    ],
)
def test_ranks_and_parts(command, capsys, monkeypatch, rank, size, message):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    assert command("--shard=1/2") == 2
    assert message in capsys.readouterr().err


def test_a_rank_of_srun_takes_its_part(command, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    for rank in range(3):
        monkeypatch.setenv("SLURM_PROCID", str(rank))
        assert command() == 0
        assert len(recorded(tmp_path / "out")) == (3, 5, 7)[rank]
    assert recorded(tmp_path / "out") == NAMES


def test_a_bad_file_in_one_part_stops_no_other(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "rgb" / "frame0.png").write_bytes(b"not an image")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, status, counts in (
        ("0", 2, "3 of 4 images, part 1 of 2"),
        ("1", 0, "3 of 3 images, part 2 of 2"),
    ):
        monkeypatch.setenv("RANK", rank)
        assert command() == status
        captured = capsys.readouterr()
        assert f"predicted {counts} (7 in all)" in captured.out
        assert ("frame0.png" in captured.err) == (status == 2)
    assert recorded(tmp_path / "out") == NAMES[1:]


def test_a_video_is_not_shared(command, tmp_path, capsys):
    assert command("--rgb=a.mp4", "--thermal=b.mp4", "--shard=1/2") == 2
    assert "a video is predicted by one process" in capsys.readouterr().err


@pytest.mark.slow
def test_under_torchrun(checkpoint, tmp_path):
    """A bad file in one part leaves the other processes at work; all end with its status."""
    for number in range(COUNT):
        write_pair(tmp_path, f"frame{number}", number, height=32, width=40)
    (tmp_path / "rgb" / "frame0.png").write_bytes(b"not an image")
    words = ["--rgb", "rgb", "--thermal", "thermal", "--out", "out", "--save", "index", "--device", "cpu"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "efnet", "predict", "--checkpoint", str(checkpoint), *words],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0
    assert "frame0.png" in done.stderr
    assert "predicted 3 of 4 images, part 1 of 2 (7 in all)" in done.stdout
    assert "predicted 3 of 3 images, part 2 of 2 (7 in all)" in done.stdout
    assert recorded(tmp_path / "out") == NAMES[1:]
