"""A search with Optuna: from space to best configuration, interrupted, continued, and pruned."""

from __future__ import annotations

import csv
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_network import Small
from test_from_python import NAME, options, same_bits, words

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.training import Interrupted, TrainConfig, tuning
from efnet.training.logs import Reporter
from efnet.training.options import make_config
from efnet.training.tuning import check_space, read_space, tune

pytest.importorskip("optuna")
assert Small
QUIET = Reporter(quiet=True)


def config(scenes: Path, **more: Any) -> TrainConfig:
    given = options(scenes, **{"epochs": 2, "tracker": [], "validation": {"samples": 0}, **more})
    del given["quiet"]
    return make_config(TrainConfig(), given)


SPACE = {"lr": {"low": 1e-5, "high": 1e-1, "log": True}, "loss.dice": {"choices": [0.0, 1.0]}}


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "trials.csv", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_from_space_to_best_configuration(scenes: Path, tmp_path: Path, capsys: Any) -> None:
    space, out = tmp_path / "space.yaml", tmp_path / "search"
    space.write_text("lr: {low: 1.0e-5, high: 1.0e-1, log: true}\nloss.dice: {choices: [0.0, 1.0]}\n")
    command = ["tune", *words(scenes, out, "--model", NAME, "--epochs", "2")[1:], "--space", str(space)]
    assert main([*command, "--trials", "3"]) == 0
    rows = table(out)
    assert [list(row)[-2:] for row in rows] == [["optimizer.lr", "loss.dice"]] * 3
    # The first trial has the options of the command line.
    (first,) = [row for row in rows if row["trial"] == "0"]
    assert (float(first["optimizer.lr"]), float(first["loss.dice"])) == (6e-5, 0.0)
    assert all(1e-5 <= float(row["optimizer.lr"]) <= 1e-1 for row in rows)
    best = yaml.safe_load((out / "best.yaml").read_text())
    assert best["optimizer"]["lr"] == float(rows[0]["optimizer.lr"])
    assert best["loss"]["dice"] == float(rows[0]["loss.dice"])
    printed = capsys.readouterr().out
    assert f"efnet train --config {out / 'best.yaml'} --out RUN" in printed
    # That command repeats the trial, bit for bit.
    assert main(["train", "--config", str(out / "best.yaml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    number = int(rows[0]["trial"])
    assert same_bits(tmp_path / "run", out / "trials" / f"{number:04d}")
    # The same command with more trials goes on.
    assert main([*command, "--trials", "4"]) == 0
    assert sorted(row["trial"] for row in table(out)) == ["0", "1", "2", "3"]
    assert main([*command, "--trials", "5", "--epochs", "3"]) == 2
    assert "the search began with other options (config.schedule.epochs)" in capsys.readouterr().err


def test_an_interruption_loses_nothing(scenes: Path, tmp_path: Path, monkeypatch: Any) -> None:
    given = config(scenes)
    whole = tune(given, tmp_path / "whole", SPACE, trials=3, reporter=QUIET)
    real, calls = tuning.train, 0

    def interrupted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            callbacks = args[4]
            after = callbacks.on_validation

            def press(validated: Any) -> Any:
                signal.raise_signal(signal.SIGINT)
                return after(validated)

            args = (*args[:4], tuning.Callbacks(press))
        return real(*args, **options)

    monkeypatch.setattr(tuning, "train", interrupted)
    out = tmp_path / "search"
    with pytest.raises(Interrupted):
        tune(given, out, SPACE, trials=2, reporter=QUIET)
    assert [trial.number for trial in tune(given, out, SPACE, trials=1, reporter=QUIET).trials] == [0]
    found = tune(given, out, SPACE, trials=2, reporter=QUIET)
    assert {trial.number for trial in found.trials} == {0, 1}
    assert found.unfinished == 0
    # The interrupted trial has the options and the weights that it would have had.
    theirs = {trial.number: trial for trial in whole.trials}
    assert {trial.number: trial for trial in found.trials} == {number: theirs[number] for number in (0, 1)}
    assert same_bits(out / "trials" / "0001", tmp_path / "whole" / "trials" / "0001")


def test_the_time_ends_a_call_and_the_next_goes_on(scenes: Path, tmp_path: Path) -> None:
    given, out = config(scenes), tmp_path / "search"
    found = tune(given, out, SPACE, minutes=1e-9, reporter=QUIET)
    assert (found.trials, found.best) == ((), None)
    found = tune(given, out, SPACE, minutes=1e-4, reporter=QUIET)  # within the first trial
    assert (found.trials, found.unfinished) == ((), 1)
    found = tune(given, out, SPACE, trials=1, reporter=QUIET)
    assert [(trial.number, trial.epochs) for trial in found.trials] == [(0, 2)]
    straight = tune(given, tmp_path / "straight", SPACE, trials=1, reporter=QUIET)
    assert found.trials == straight.trials


def test_a_trial_that_stopped_early_as_the_time_was_up_is_over(scenes: Path, tmp_path: Path) -> None:
    """Both ends in one validation: the trial has no epoch left, so it must not wait for the next call."""
    given = make_config(config(scenes), {"epochs": 9, "early_stopping": 1, "lr": 1e-12})
    out, space = tmp_path / "search", {"weight_decay": {"low": 1e-3, "high": 0.1}}
    found, calls = tune(given, out, space, minutes=1e-4, reporter=QUIET), 1
    while not found.trials:  # an epoch a call: the mIoU of frozen weights never improves
        found, calls = tune(given, out, space, minutes=1e-4, reporter=QUIET), calls + 1
        assert calls < 9
    assert (found.trials[0].number, found.trials[0].pruned) == (0, False)
    assert found.trials[0].epochs < 9


def test_a_trial_goes_on_with_the_batch_that_was_found(
    scenes: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    given, out = config(scenes, batch_size="auto"), tmp_path / "search"
    found = tune(given, out, SPACE, minutes=1e-4, reporter=QUIET)
    assert found.unfinished == 1

    def sought(*_: Any) -> Any:
        raise AssertionError("the batch was sought again")

    monkeypatch.setattr("efnet.training.batch_size.largest_batch", sought)
    assert tune(given, out, SPACE, trials=1, reporter=QUIET).trials[0].epochs == 2


def test_poor_trials_are_pruned(scenes: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A trial far below the median of the first ones ends after its first validation."""
    real = tuning.train
    scores = iter([0.5, 0.5, 0.5, 0.5, 0.01])

    def scored(*args: Any, **options: Any) -> Any:
        callbacks, score = args[4], next(scores)

        def replace(validated: Any) -> Any:
            changed = tuning.Validated(validated.epoch, score, {}, True, validated.checkpoint)
            return callbacks.on_validation(changed)

        return real(*args[:4], tuning.Callbacks(replace), **options)

    monkeypatch.setattr(tuning, "train", scored)
    found = tune(config(scenes), tmp_path / "search", SPACE, trials=5, reporter=QUIET)
    assert {trial.number: (trial.pruned, trial.epochs) for trial in found.trials} == {
        **dict.fromkeys(range(4), (False, 2)),
        4: (True, 1),
    }


def test_a_second_search_in_the_folder_is_refused(scenes: Path, tmp_path: Path) -> None:
    search = tuning._Search(config(scenes), tmp_path, check_space(SPACE, config(scenes)), QUIET)
    with search.lock(), pytest.raises(InputError, match="another search runs here now"):
        tune(config(scenes), tmp_path, SPACE, trials=1, reporter=QUIET)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no options"),
        ("lr: [1, 2", "is not valid YAML"),
        ("learning: {low: 1, high: 2}", "there is no option 'learning'"),
        ("lr: {low: 1.0e-3}", "lr: give low and high"),
        ("lr: {low: 1.0e-3, high: 1.0e-4}", "are not two rising numbers"),
        ("lr: {low: a, high: b}", "are not two rising numbers"),
        ("lr: {low: 0, high: 1, log: true}", "log needs a low above 0"),
        ("accumulate: {low: 1, high: 4, step: 0}", "step 0 is not a positive number"),
        ("lr: {low: -1.0, high: 1.0}", "optimizer.lr is -1.0; give a positive number"),
        ("fusion: {choices: []}", "choices is empty"),
        ("fusion: {choices: [mif, glue]}", "glue"),
        ("epochs: {low: 1, high: 4, step: 1}", "schedule.epochs must be the same in all trials"),
    ],
)
def test_wrong_spaces_are_refused(tmp_path: Path, text: str, message: str) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_space(space, TrainConfig())
    assert str(space) in str(caught.value)


def test_a_search_needs_an_end(scenes: Path, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(InputError, match="give `minutes` or `trials`"):
        tune(config(scenes), tmp_path / "search", SPACE)
    command = ["tune", *words(scenes, tmp_path / "search", "--model", NAME)[1:]]
    assert main(command) == 2
    assert "give --minutes or --trials" in capsys.readouterr().err
    assert main([*command, "--trials", "0"]) == 2
    assert not (tmp_path / "search").exists()


@pytest.mark.slow
def test_a_better_rate_than_the_default_is_found(tmp_path: Path) -> None:
    """Two minutes of one core on generated scenes; the whole of the search is real."""
    from efnet.scenes import write_dataset

    torch.manual_seed(0)
    root = tmp_path / "scenes"
    write_dataset(root, train=24, val=8, test=0, size=(64, 96), seed=1)
    space = {"lr": {"low": 1e-5, "high": 5e-3, "log": True}}
    base = config(root, model="efnet_tiny")  # 48 steps of two pairs
    base = make_config(base, {"epochs": 4, "protocol": "native", "workers": 0})
    found = tune(base, tmp_path / "search", space, trials=5, reporter=QUIET)
    default = next(trial for trial in found.trials if trial.number == 0)
    assert default.options["optimizer.lr"] == TrainConfig().optimizer.lr
    best = found.trials[0]
    assert best.number != 0
    assert (best.miou or 0) > (default.miou or 0) + 0.01
    assert best.options["optimizer.lr"] > default.options["optimizer.lr"]
