"""Tasks of a SLURM step, by the variables that srun 22.05 gave to them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed_helpers import assert_same_run, finish, posix, rows, train_words

from efnet.core.errors import InputError
from efnet.core.fabric import StepEnvironment, pick_environment
from efnet.scenes import write_dataset
from efnet.training.run_folder import RunFolder
from efnet.training.state import read_state

STEP = {
    "SLURM_JOB_ID": "1017",
    "SLURM_JOB_NAME": "interactive",  # within salloc
    "SLURM_NODELIST": "one,two,three",  # of the job, as are the next two in some versions
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "2",
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NODELIST": "two,three",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
}


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "")  # so that what the test sets is taken back
        monkeypatch.delenv(name)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_task_finds_its_place_in_the_step(step: pytest.MonkeyPatch) -> None:
    place = pick_environment()
    assert isinstance(place, StepEnvironment)
    assert (place.global_rank(), place.world_size(), place.local_rank(), place.node_rank()) == (1, 2, 0, 1)
    assert place.main_address == os.environ["MASTER_ADDR"] == "two"
    port = place.main_port
    assert 1024 < port < 32768
    step.delenv("MASTER_PORT")
    step.setenv("SLURM_STEP_ID", "4")
    assert place.main_port != port, "steps side by side"


@pytest.mark.parametrize("machines", ["node[07-09,12]", "node07", "node07,rack3"])
def test_the_first_machine_of_a_list(machines: str, step: pytest.MonkeyPatch) -> None:
    step.setenv("SLURM_STEP_NODELIST", machines)
    assert StepEnvironment().main_address == "node07"


def test_what_the_user_says_of_address_and_port_holds(step: pytest.MonkeyPatch) -> None:
    step.setenv("MASTER_ADDR", "10.1.1.1")
    step.setenv("MASTER_PORT", "4000")
    assert (StepEnvironment().main_address, StepEnvironment().main_port) == ("10.1.1.1", 4000)


def test_a_batch_script_is_one_process(step: pytest.MonkeyPatch) -> None:
    for name in STEP:
        if "STEP" in name:
            step.delenv(name)
    assert not pick_environment().creates_processes_externally, "--devices starts the others"


def test_different_numbers_of_tasks_are_refused(step: pytest.MonkeyPatch) -> None:
    step.setenv("SLURM_STEP_TASKS_PER_NODE", "2,1")
    with pytest.raises(InputError, match=r"2,1 tasks .*--ntasks-per-node"):
        pick_environment()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("srun") / "data"
    write_dataset(root, train=8, val=5, test=1, size=(64, 96), seed=1)
    return root


def tasks(words: list[str], told: Path) -> list[subprocess.Popen[str]]:
    """Two tasks on one machine, as `salloc -n 2 srun -n 2` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    place |= STEP | {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0"}
    place |= {"SLURM_STEP_NODELIST": "127.0.0.1"}
    started = []
    for rank in ("0", "1"):
        own = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}
        with told.with_suffix(f".{rank}").open("w") as file:
            started.append(
                subprocess.Popen(
                    [sys.executable, *words],
                    env=os.environ | place | own,
                    text=True,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    return started


@posix
@pytest.mark.slow
def test_tasks_of_srun_learn_what_one_process_learns(scenes: Path, tmp_path: Path) -> None:
    started = tasks(train_words(scenes, tmp_path / "two", "--batch-size", "2"), tmp_path / "told")
    assert [task.wait(200) for task in started] == [0, 0], (tmp_path / "told.0").read_text()
    finish(*train_words(scenes, tmp_path / "one", "--batch-size", "2", "--accumulate", "2"))
    assert_same_run(tmp_path / "two", tmp_path / "one")


@posix
@pytest.mark.slow
def test_sigterm_again_and_again_still_saves_and_gives_its_status(scenes: Path, tmp_path: Path) -> None:
    """At a time limit slurmd, torchrun and, once the first task is gone, srun send it to the same task."""
    out = tmp_path / "run"
    started = tasks(train_words(scenes, out, "--batch-size", "2", "--epochs", "1000"), tmp_path / "told")
    try:
        while len(rows(out)) < 2:
            assert [task.poll() for task in started] == [None, None], (tmp_path / "told.0").read_text()
            time.sleep(0.1)
        deadline = time.monotonic() + 100
        while any(task.poll() is None for task in started) and time.monotonic() < deadline:
            for task in started:
                task.send_signal(signal.SIGTERM)
            time.sleep(0.002)
    finally:
        for task in started:
            task.kill()
    told = (tmp_path / "told.0").read_text()
    assert [task.wait(10) for task in started] == [130, 130], told
    assert told.count("everything is saved") == 1
    progress = read_state(RunFolder(out).state)["progress"]
    assert f"stopped in epoch {progress['epoch'] + 1} of 1000" in told
