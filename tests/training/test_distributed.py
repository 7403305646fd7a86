"""Two processes learn what one learns from the same batches; nothing hangs when one of them dies."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from distributed_helpers import TORCHRUN, assert_same_run, children, finish, posix, rows, running, train_words

from efnet.cli.main import main
from efnet.scenes import write_dataset
from efnet.training.run_folder import RunFolder
from efnet.training.state import read_state

pytestmark = posix


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes to learn from; of five to validate on, one process has three and the other two."""
    root = tmp_path_factory.mktemp("distributed") / "data"
    write_dataset(root, train=8, val=5, test=1, size=(64, 96), seed=1)
    return root


@pytest.fixture(scope="module")
def alone(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, which is this one."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert main(train_words(scenes, out, "--batch-size", "2", "--accumulate", "2")[2:]) == 0
    return out


def test_two_processes_learn_what_one_learns(alone: Path, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    printed, told = finish(*TORCHRUN, *train_words(scenes, out, "--batch-size", "2"))
    assert_same_run(out, alone)
    assert printed.count("best val mIoU") == 1, "one process speaks"
    assert told.count("epoch 1/2") == 1
    assert "2 processes (ddp); a step has 4 pairs" in told
    assert RunFolder(out).read_facts()["global_batch"] == 4
    assert len(list(RunFolder(out).samples.glob("*.jpg"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "--strategy fsdp --batch-size 2",
        "--strategy fsdp --batch-size 2 --ema.decay 0.5",
        "--batch-size 2 --ema.decay 0.5",
        "--batch-size 1 --accumulate 2 --network.drop_path 0",
        "--batch-size 2 --network.checkpoint_activations true",
        "--strategy fsdp --batch-size 2 --network.checkpoint_activations true",
        "--batch-size 2 --loss.lovasz 1 --loss.ohem 0.7 --loss.class_weights enet",
        "--batch-size 2 --network.drop_path 0 --model mfnet",
        "--batch-size 2 --network.drop_path 0 --model mfnet --strategy fsdp",
        "--batch-size 2 --network.drop_path 0 --model efnet_edge --strategy fsdp",
    ],
)
def test_options_with_two_processes(options: str, scenes: Path, tmp_path: Path) -> None:
    words = options.split()
    finish(*TORCHRUN, *train_words(scenes, tmp_path / "two", *words))
    plain = options.replace("--strategy fsdp", "").replace("--batch-size 1 --accumulate 2", "--batch-size 2")
    finish(*train_words(scenes, tmp_path / "one", *plain.split(), "--accumulate", "2"))
    if "mfnet" not in options and "edge" not in options:
        assert_same_run(tmp_path / "two", tmp_path / "one")
        return
    # Running statistics are those of the first process, so only what is learned from is compared.
    for one, other in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=5e-3)


@pytest.mark.slow
def test_fabric_starts_the_processes(alone: Path, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    printed, _ = finish(*train_words(scenes, out, "--batch-size", "2", "--devices", "2"))
    assert_same_run(out, alone)
    assert printed.count("best val mIoU") == 1


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_resume_with_another_number_of_processes(
    strategy: str, alone: Path, scenes: Path, tmp_path: Path
) -> None:
    """Stopped by a signal within an epoch; then one process, then two again, to the end."""
    out = tmp_path / "run"
    several = ("--batch-size", "2", "--accumulate", "1", "--strategy", strategy)
    words = train_words(scenes, out, *several, "--epochs", "200")
    with running(out, 3, *TORCHRUN, *words) as process:
        process.terminate()
        _, told = process.communicate(timeout=200)
    assert process.returncode != 0
    assert told.count("everything is saved") == 1, told
    reached = read_state(RunFolder(out).state)["progress"]
    assert reached["epoch"] >= 3
    epochs = ("--epochs", str(reached["epoch"] + 2), "--resume")
    _, told = finish(
        *TORCHRUN, *train_words(scenes, out, "--batch-size", "1", *epochs[:2], epochs[2]), status=1
    )
    assert "a step of this run has 4 pairs, but now 2" in told
    finish(*train_words(scenes, out, "--batch-size", "2", "--accumulate", "2", *epochs))
    epochs = ("--epochs", str(reached["epoch"] + 3), "--resume")
    finish(*TORCHRUN, *train_words(scenes, out, *several, *epochs))
    assert [row["epoch"] for row in rows(out)] == list(range(1, reached["epoch"] + 4))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("starter", ["torchrun", "fabric"])
def test_a_dead_process_ends_the_run(
    starter: str, which: int, strategy: str, scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = train_words(scenes, out, "--batch-size", "2", "--epochs", "1000", "--strategy", strategy)
    command = (*TORCHRUN, *words) if starter == "torchrun" else (*words, "--devices", "2")
    with running(out, 2, *command) as process:  # so the state of the first epoch is there
        below = children(process.pid)
        victims = below if starter == "torchrun" else [process.pid, *below]
        assert len(victims) == 2
        os.kill(victims[which], signal.SIGKILL)
        _, told = process.communicate(timeout=200)
        assert process.returncode != 0, told
        deadline = time.monotonic() + 100
        while any(Path(f"/proc/{victim}").exists() for victim in victims) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(Path(f"/proc/{victim}").exists() for victim in victims), "none is left behind"
    assert read_state(RunFolder(out).state)["progress"]["epoch"] >= 1


@pytest.mark.slow
def test_a_file_that_vanishes_ends_all_processes_with_one_message(scenes: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(scenes, root)
    words = train_words(root, out, "--batch-size", "2", "--epochs", "1000")
    with running(out, 1, *TORCHRUN, *words) as process:
        name = (root / "train.txt").read_text().split()[0]
        (root / "images" / f"{name}.png").unlink()
        _, told = process.communicate(timeout=200)
    assert process.returncode != 0
    assert told.count("efnet: error: ") == 1, told
    assert name in told
    assert 'File "' not in told.split("torch/distributed/elastic")[0], "no traceback of ours"


@pytest.mark.slow
def test_what_cannot_be_shared(scenes: Path, tmp_path: Path) -> None:
    words = train_words(scenes, tmp_path / "run", "--batch-size", "5")
    _, told = finish(*TORCHRUN, *words, status=1)
    assert "8 pairs, but 2 processes take 10 in a step" in told
    assert not (tmp_path / "run").exists()
