"""Runs that are killed, and states that a disk has changed: nothing is lost but time, and no bit differs."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_train import QUIET, config

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.training import train
from efnet.training.run_folder import RunFolder
from efnet.training.state import previous, read_state

SCRIPT = """
import os, signal, sys
calls, real = 0, os.replace
def replace(source, target):
    global calls
    calls += 1
    if calls == {at} and not {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
    if calls == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
from efnet.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""The command line, killed before or after it gives a file its name for the n-th time."""

posix = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")


def words(scenes: Path, out: Path) -> list[str]:
    """`efnet train` as typed: from the start, or going on where there is something to go on from."""
    if RunFolder(out).has_state():
        return ["train", "--out", str(out), "--resume"]
    options = (
        "--dataset mfnet --model efnet_tiny --size 64x96 --batch-size 2 --epochs 2 --lr 1e-3 --workers 0"
    )
    more = "--device cpu --schedule.warmup_epochs 0 --network.drop_path 0.1 --validation.samples 0"
    return ["train", "--root", str(scenes), "--out", str(out), *options.split(), *more.split()]


def start(scenes: Path, out: Path, program: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *program, *words(scenes, out)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(scenes: Path, out: Path) -> dict[str, object]:
    """Go on to the end in this process; returns the last state."""
    if not RunFolder(out).has_state() or "result" not in RunFolder(out).read_facts():
        assert main(words(scenes, out)) == 0
    return read_state(RunFolder(out).state)


def assert_same(state: dict[str, object], expected: dict[str, object]) -> None:
    for part in ("model", "optimizer"):
        ours, theirs = _flat(state[part]), _flat(expected[part])
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def _flat(value: object, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {key: tensor for k, v in items for key, tensor in _flat(v, f"{name}.{k}").items()}


def killed_at(at: int, after: bool, scenes: Path, out: Path) -> bool:
    """Whether the process was killed, and did not end before."""
    return start(scenes, out, ["-c", SCRIPT.format(at=at, after=after)]).wait(timeout=300) == -signal.SIGKILL


@posix
@pytest.mark.parametrize(("at", "after"), [(6, False)])
def test_killed_while_it_writes(
    at: int, after: bool, whole: dict[str, object], scenes: Path, tmp_path: Path
) -> None:
    assert killed_at(at, after, scenes, tmp_path / "run")
    assert_same(finish(scenes, tmp_path / "run"), whole)


@posix
@pytest.mark.slow
def test_killed_at_every_file(whole: dict[str, object], scenes: Path, tmp_path: Path) -> None:
    at, kills = 1, 0
    while True:
        out = tmp_path / f"run{at}"
        if not killed_at(at, at % 2 == 0, scenes, out):
            break
        kills += 1
        assert_same(finish(scenes, out), whole)
        at += 1
    assert kills > 8
    print(f"{kills} kills survived, one at every file written")


@posix
@pytest.mark.slow
def test_killed_twenty_times(whole: dict[str, object], scenes: Path, tmp_path: Path) -> None:
    """At random moments; one run after another, each killed until it ends."""
    moments = random.Random(0)
    kills, run = 0, 0
    while kills < 20:
        out = tmp_path / f"run{run}"
        process = start(scenes, out, ["-m", "efnet"])
        time.sleep(moments.uniform(2, 9))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            kills += 1
        if "result" in RunFolder(out).read_facts():
            assert_same(read_state(RunFolder(out).state), whole)
            run += 1
    assert_same(finish(scenes, out), whole)
    print(f"{kills} kills survived over {run + 1} runs")


@pytest.fixture(scope="module")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("trained") / "run"
    train(config(scenes), out, reporter=QUIET)
    return out


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> RunFolder:
    """A copy of it."""
    return RunFolder(shutil.copytree(trained, tmp_path / "run"))


def test_killed_between_the_last_state_and_the_result(folder: RunFolder, scenes: Path) -> None:
    facts = folder.read_facts()
    result = facts.pop("result")
    folder.write_facts(facts)
    train(config(scenes), folder.path, resume=True, reporter=QUIET)
    assert folder.read_facts()["result"] == result
    with pytest.raises(InputError, match="all 2 epochs are done"):
        train(config(scenes), folder.path, resume=True, reporter=QUIET)


DAMAGES = {
    "cut off": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one bit of the weights": lambda content: content[:-5000] + bytes([content[-5000] ^ 1]) + content[-4999:],
    "one bit of the checksum": lambda content: content[:20] + bytes([content[20] ^ 1]) + content[21:],
    "another file": lambda content: b"not a state",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_gives_way_to_the_one_before(damage: str, folder: RunFolder, scenes: Path) -> None:
    expected = read_state(folder.state)
    assert read_state(previous(folder.state))["progress"]["epoch"] == 1
    folder.state.write_bytes(DAMAGES[damage](folder.state.read_bytes()))
    said: list[str] = []
    reporter = type("Listening", (type(QUIET),), {"say": lambda self, text: said.append(text)})(quiet=True)
    summary = train(config(scenes), folder.path, resume=True, reporter=reporter)
    assert summary.epochs == 2
    assert any("going on from the state before (epoch 1 done)" in text for text in said)
    assert_same(read_state(folder.state), expected)


def test_two_damaged_states_end_a_run(folder: RunFolder, scenes: Path) -> None:
    for path in (folder.state, previous(folder.state)):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"(?s)state\.pt: .*checksum.*previous\.pt: .*another `out`"):
        train(config(scenes), folder.path, resume=True, reporter=QUIET)
