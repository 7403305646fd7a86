"""`efnet predict` killed at random moments: nothing is lost, done twice or half written."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prediction_helpers import write_pair

from efnet.cli.main import main
from efnet.inference.resume import journals_in

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")

COUNT = 30


def start(*words: str) -> int:
    """Run the command in a process of its own; returns its number."""
    child = os.fork()
    if child:
        return child
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        os._exit(main(words))
    finally:
        os._exit(70)


def records(out: Path) -> list[str]:
    """Names in the journals, whose lines are whole or, the last ones, cut off by a kill."""
    names = []
    for path in journals_in(out):
        for line in path.read_text().splitlines()[1:]:
            try:
                names.append(json.loads(line)["name"])
            except ValueError:
                continue
    return sorted(names)


def assert_whole(out: Path) -> None:
    """What is recorded is there, in files that can be read."""
    for name in records(out):
        for output in ("index", "color"):
            with Image.open(out / output / f"{name}.png") as image:
                image.load()
                assert image.size == (40, 32)


def wait_for(child: int, out: Path, more: int) -> int | None:
    """Until some more maps are there than now; returns how the process ended, if it did before."""
    known = len(maps(out))
    while len(maps(out)) < known + more:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def maps(out: Path) -> list[Path]:
    return list((out / "index").glob("frame*.png"))


def kill_until_done(commands: list[list[str]], out: Path, kills: int, moments: random.Random) -> int:
    """Run the commands side by side, kill one after another, start again; returns the kills that struck.

    Most strike between the first map that a process writes and its fourth, some while it starts.
    """
    struck = 0
    while struck < kills:
        ended = []
        for child in [start(*command) for command in commands]:
            code = wait_for(child, out, moments.randint(0, 4))
            if code is None:
                time.sleep(moments.uniform(0, 0.03))
                os.kill(child, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            ended.append(code)
        assert set(ended) <= {0, -signal.SIGKILL}
        struck += sum(code == -signal.SIGKILL for code in ended)
        assert_whole(out)
        if not any(ended):
            break
    for command in commands:
        assert os.waitstatus_to_exitcode(os.waitpid(start(*command), 0)[1]) == 0
    return struck


def check(checkpoint: Path, root: Path, shards: int, kills: int, moments: random.Random) -> int:
    """Predict with kills, and compare with a run that nobody disturbed."""
    for number in range(COUNT):
        write_pair(root, f"frame{number}", number, height=32, width=40)
    words = ["predict", f"--checkpoint={checkpoint}", "--device=cpu", "--save=index,color"]
    words += [f"--rgb={root / 'rgb'}", f"--thermal={root / 'thermal'}"]
    out, whole = root / "out", root / "whole"
    parts = [[f"--shard={number + 1}/{shards}"] if shards > 1 else [] for number in range(shards)]
    struck = kill_until_done([[*words, f"--out={out}", *part] for part in parts], out, kills, moments)
    assert main([*words, f"--out={whole}"]) == 0
    names = sorted(f"frame{number}" for number in range(COUNT))
    assert records(out) == names, "each once, none left out"
    for output in ("index", "color"):
        found = sorted(path.name for path in (out / output).iterdir())
        assert found == [f"{name}.png" for name in names], "and no temporary file"
        for name in names:
            ours, theirs = (np.asarray(Image.open(place / output / f"{name}.png")) for place in (out, whole))
            np.testing.assert_array_equal(ours, theirs)
    return struck


@pytest.mark.parametrize("shards", [1, 2])
def test_killed_at_random_moments(checkpoint, tmp_path, shards):
    assert check(checkpoint, tmp_path, shards, 4, random.Random(0)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 3])
def test_killed_fifty_times(checkpoint, tmp_path, shards):
    """Over several folders, since each fills up after some kills."""
    struck, moments = 0, random.Random(1)
    for run in range(100):
        struck += check(checkpoint, tmp_path / str(run), shards, 50 - struck, moments)
        if struck >= 50:
            break
    assert struck >= 50
    print(f"{struck} kills survived over {run + 1} folders of {COUNT} pairs, {shards} processes side by side")


def test_leftovers_of_other_processes_stay(checkpoint, tmp_path):
    """What another part has under way is not ours to remove; a file of the user's is nobody's."""
    for number in range(4):
        write_pair(tmp_path, f"frame{number}", number, height=32, width=40)
    index = tmp_path / "out" / "index"
    index.mkdir(parents=True)
    ours, theirs = (index / f".frame{number}-0123456789ab.png" for number in (0, 1))
    users = index / ".notes-1.txt"
    for path in (ours, theirs, users):
        path.write_bytes(b"half")
    words = ["predict", f"--checkpoint={checkpoint}", "--device=cpu", "--save=index", "--shard=1/2"]
    words += [f"--rgb={tmp_path / 'rgb'}", f"--thermal={tmp_path / 'thermal'}", f"--out={tmp_path / 'out'}"]
    assert main(words) == 0
    assert sorted(path for path in index.iterdir() if path.name.startswith(".")) == sorted([theirs, users])
