"""The command line as a user types it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from efnet import __version__
from efnet.cli.main import COMMANDS, main
from efnet.scenes import write_dataset


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(root, train=6, val=2, test=2, size=(64, 96), seed=2)
    return root


def status(*words: object) -> int:
    """Exit status of `efnet WORDS`; an option parser's own exit counts as one."""
    try:
        return main([str(word) for word in words])
    except SystemExit as stop:
        return int(stop.code or 0)


def short_run(scenes: Path, out: Path, *more: object) -> list[object]:
    words: list[object] = [
        "train",
        "--dataset",
        "mfnet",
        "--root",
        scenes,
        "--model",
        "efnet_tiny",
        "--out",
        out,
    ]
    words += ["--size", "64x96", "--epochs", 1, "--workers", 0, "--device", "cpu", "--quiet", *more]
    return words


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--help") == 0
    overview = capsys.readouterr().out
    assert all(name in overview for name in COMMANDS)
    assert status() == 0
    assert status("--version") == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*command.split(), "--help") == 0
    text = capsys.readouterr().out
    assert f"efnet {command}" in text
    assert "--" in text


@pytest.mark.parametrize(
    "words",
    [
        ["trian"],
        ["data"],
        ["data", "chek"],
        ["train"],
        ["train", "--out", "x", "--recipe", "secret"],
        ["train", "--out", "x", "--fusion", "sum"],
        ["train", "--out", "x", "--epochs", "many"],
        ["train", "--out", "x", "--epochs", "0"],
        ["train", "--out", "x", "--size", "480"],
        ["train", "--out", "x", "--learning-rate", "1"],
        ["train", "--out", "x", "--root", "nowhere"],
        ["train", "--out", "x", "--root", "nowhere", "--dataset", "mfnt"],
        ["train", "--out", "nowhere/run", "--resume"],
        ["train", "--out", "x", "--config", "nowhere.yaml"],
        ["evaluate", "--checkpoint", "nowhere/run", "--dataset", "mfnet", "--root", "x"],
        ["predict", "--checkpoint", "/nowhere", "--rgbt", "x", "--out", "y"],
    ],
    ids=lambda words: " ".join(words),
)
def test_wrong_words_exit_with_2(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(*words) == 2
    message = capsys.readouterr().err
    assert "error:" in message
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


def test_train_evaluate_predict_score(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The main job, as a user does it."""
    run, out = tmp_path / "run", tmp_path / "out"
    assert status(*short_run(scenes, run, "--lr", "1e-3")) == 0
    assert "best val mIoU" in capsys.readouterr().out
    report = tmp_path / "report.json"
    data = ["--dataset", "mfnet", "--root", scenes, "--split", "test"]
    assert status("evaluate", "--checkpoint", run, *data, "--json", report, "--device", "cpu") == 0
    words = ["predict", "--checkpoint", run, "--rgbt", scenes / "images", "--out", out, "--device", "cpu"]
    assert status(*words) == 0
    assert len(list((out / "index").glob("*.png"))) == 10
    assert status("score", "--predictions", out / "index", *data) == 0
    assert "mIoU" in capsys.readouterr().out


def test_precedence_of_recipe_file_and_options(scenes: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("optimizer:\n  lr: 0.002\n  clip: 1.0\nschedule:\n  warmup_epochs: 0\n")
    run = tmp_path / "run"
    words = short_run(scenes, run, "--recipe", "scratch", "--config", file, "--lr", "0.003")
    assert status(*words) == 0
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["recipe"] == "scratch"
    assert written["optimizer"]["lr"] == 0.003  # the option
    assert written["optimizer"]["clip"] == 1.0  # the file
    assert written["optimizer"]["weight_decay"] == 0.02  # the recipe
    schedule = {"epochs": 1, "warmup_epochs": 0.0, "power": 0.9, "gamma": None, "from_start": False}
    assert written["schedule"] == schedule | {"by_epoch": False, "warmup_from": 0.0}
    # What the run wrote repeats it.
    again = tmp_path / "again"
    assert status("train", "--config", run / "config.yaml", "--out", again, "--quiet") == 0
    assert yaml.safe_load((again / "config.yaml").read_text()) == written


def test_unknown_keys_in_a_file_are_errors(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    for text in ("optimizer:\n  learning_rate: 1\n", "optimiser:\n  lr: 1\n", "data: {size: big}\n"):
        file.write_text(text)
        assert status(*short_run(scenes, tmp_path / "run", "--config", file)) == 2
        assert "error:" in capsys.readouterr().err


def test_resume_refuses_another_recipe(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert status(*short_run(scenes, run)) == 0
    assert status("train", "--out", run, "--resume", "--quiet") == 2
    assert "all 1 epochs are done" in capsys.readouterr().err
    assert status("train", "--out", run, "--resume", "--lr", "1", "--quiet") == 2
    assert "optimizer.lr was" in capsys.readouterr().err
    assert status("train", "--out", run, "--resume", "--epochs", 2, "--quiet") == 0


def test_ctrl_c_saves_and_says_how_to_go_on(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [str(word) for word in short_run(scenes, run, "--epochs", 500)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "efnet", *words], stderr=subprocess.PIPE, text=True, env=environment
    )
    limit = time.monotonic() + 120
    while not (run / "metrics.csv").exists() and time.monotonic() < limit:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume" in message
    assert "Traceback" not in message
    assert (run / "last" / "state.pt").is_file()


def test_files_come_before_options_wherever_they_stand(scenes: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: scratch\noptimizer: {lr: 0.5}\nnetwork: {name: efnet_light}\n")
    run = tmp_path / "run"
    assert status(*short_run(scenes, run, "--lr", "1e-3", "--config", file)) == 0
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["network"]["name"] == "efnet_tiny"
    assert written["optimizer"]["lr"] == 0.001
    # A recipe named in a file is that recipe, not its name alone.
    assert written["recipe"] == "scratch"
    assert written["optimizer"]["clip"] == 5.0
    assert status(*short_run(scenes, tmp_path / "other", "--recipe", "paper", "--config", file)) == 2


def test_failed_resume_leaves_the_run_alone(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert status(*short_run(scenes, run)) == 0
    before = (run / "config.yaml").read_bytes()
    words = ["train", "--out", run, "--resume", "--root", tmp_path / "nowhere", "--epochs", 9, "--quiet"]
    assert status(*words) == 2
    assert status("train", "--out", run, "--resume", "--protocol", "mfnet-authors", "--epochs", 9) == 2
    assert (run / "config.yaml").read_bytes() == before
    assert status("train", "--out", run, "--resume", "--epochs", 2, "--quiet") == 0


def test_ranges_with_a_minus(scenes: Path, tmp_path: Path) -> None:
    assert status(*short_run(scenes, tmp_path / "run", "--thermal-scale", "-20,120")) == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["thermal_scale"] == [
        -20,
        120,
    ]


def test_a_wrong_value_of_a_file_names_the_file(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And one of an option does not."""
    file = tmp_path / "mine.yaml"
    file.write_text("data:\n  size: [4, 96]\n")
    words = short_run(scenes, tmp_path / "run", "--config", file)
    small = [word for place, word in enumerate(words) if "--size" not in words[max(0, place - 1) : place + 1]]
    assert status(*small) == 2
    assert f"{file}: " in capsys.readouterr().err
    assert status(*small, "--size", "8x96") == 2
    told = capsys.readouterr().err
    assert "8x96" in told
    assert str(file) not in told
