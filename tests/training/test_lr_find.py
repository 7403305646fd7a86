"""The learning-rate range test: the suggestion by definition, the curve by real steps, the command."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_network import Small
from test_from_python import NAME, options, words

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data.layouts import open_split
from efnet.training import TrainConfig
from efnet.training.logs import Reporter
from efnet.training.lr_find import find_rate, longest_fall, smooth, suggest
from efnet.training.options import make_config
from efnet.training.run_folder import RunFolder
from efnet.training.sampler import make_loader
from efnet.training.step import balance_classes
from efnet.training.trainer import Trainer

assert Small


@given(st.lists(st.integers(0, 6), min_size=1, max_size=9))
def test_longest_fall_against_all_subsequences(values: list[int]) -> None:
    places = longest_fall([float(value) for value in values])
    fall = [values[place] for place in places]
    assert all(one > other for one, other in itertools.pairwise(fall))
    assert places == sorted(places)
    longest = max(
        len(chosen)
        for count in range(1, len(values) + 1)
        for chosen in itertools.combinations(values, count)
        if all(one > other for one, other in itertools.pairwise(chosen))
    )
    assert len(places) == longest


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.floats(0, 0.99))
def test_smoothing_is_the_weighted_mean(losses: list[float], share: float) -> None:
    smoothed = smooth(losses, share)
    for count in range(1, len(losses) + 1):
        weights = [share ** (count - 1 - place) for place in range(count)]
        mean = sum(w * loss for w, loss in zip(weights, losses[:count], strict=True)) / sum(weights)
        assert smoothed[count - 1] == pytest.approx(mean, abs=1e-6)


def test_the_suggestion_is_the_middle_of_the_fall() -> None:
    rates = [10 ** (-5 + place / 10) for place in range(50)]
    # Falls from 1e-5 to 1e-2, with a rise within, and rises steeply beyond.
    losses = [2.0 - 0.05 * min(place, 30) + 0.4 * max(place - 30, 0) for place in range(len(rates))]
    losses[7] = 3.0
    curve = suggest(rates, losses, 0.0)
    assert curve.fall == (rates[0], rates[30])
    assert curve.suggestion == pytest.approx(10**-3.5)
    assert curve.diverged
    cut = suggest(rates, [*losses[:40], math.inf, *losses[41:]], 0.0)
    assert cut.diverged
    assert len(cut.rates) == len(cut.losses) == len(cut.smoothed) == 40
    assert cut.suggestion == curve.suggestion


def test_no_fall_is_no_suggestion() -> None:
    rates = [10 ** (-5 + place / 10) for place in range(40)]
    with pytest.raises(InputError, match="does not fall in this range"):
        suggest(rates, [1.0 + place for place in range(40)], 0.9)
    with pytest.raises(InputError, match="only 5 steps have a finite loss; give a lower `low`"):
        suggest(rates, [1.0] * 5 + [math.nan] * 35, 0.9)


def test_the_steps_are_those_of_a_run(scenes: Path) -> None:
    given = options(scenes)
    del given["quiet"]
    config = make_config(TrainConfig(), given)
    curve = find_rate(config, steps=10, low=1e-4, high=1e-1, smoothing=0.0)
    assert curve.rates == pytest.approx([10 ** (-4 + place / 3) for place in range(10)])
    # The same steps with the trainer's own parts, each at its rate.
    splits = open_split("mfnet", scenes, "train"), open_split("mfnet", scenes, "val")
    trainer = Trainer(config, RunFolder("."), splits, Reporter(quiet=True))
    balance_classes(config, splits[0], trainer.dataset, trainer.learner)
    trainer.learner.schedule = lambda step: 10 ** (-4 + step / 3)
    trainer.learner.model.train()
    losses: list[float] = []
    loader = make_loader(trainer.dataset, trainer.order, 0, trainer.learner.fabric.device)
    for epoch in range(4):  # of three batches
        trainer.order.set_epoch(epoch)
        trainer.dataset.set_epoch(epoch)
        losses += [trainer.learner.step(batch, 3 * epoch + place).loss for place, batch in enumerate(loader)]
    assert curve.losses == pytest.approx(losses[:10], rel=1e-5)


def command(scenes: Path) -> list[str]:
    """The words of the command for the small network."""
    shared = words(scenes, Path("nowhere"))
    return ["lr-find", *shared[1 : shared.index("--quiet")], "--model", NAME]


def test_command(scenes: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    shared = [*command(scenes), "--steps", "20", "--low", "1e-4", "--high", "1"]
    for suffix in ("svg", "png"):
        plot = tmp_path / f"curve.{suffix}"
        assert main([*shared, "--plot", str(plot), "--json", str(tmp_path / "curve.json")]) == 0
        assert plot.read_bytes().startswith(b"<svg" if suffix == "svg" else b"\x89PNG")
    values = json.loads((tmp_path / "curve.json").read_text())
    printed = capsys.readouterr().out
    assert f"suggested, the middle of it: --lr {values['suggestion']:.2g}" in printed
    assert values["fall"][0] <= values["suggestion"] <= values["fall"][1]
    assert f"{values['suggestion']:.2g}" in (tmp_path / "curve.svg").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"curve.svg", "curve.png", "curve.json"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps", "5"], "--steps 5: give 10 or more"),
        (["--low", "0.1", "--high", "0.01"], "give two positive rates, the lower one first"),
        (["--smoothing", "1"], "--smoothing 1: give a share"),
        (["--plot", "curve.pdf"], "--plot curve.pdf: give a file name that ends in .svg or .png"),
        (["--devices", "2"], "this is measured in one process"),
    ],
)
def test_wrong_options(scenes: Path, capsys: Any, more: list[str], message: str) -> None:
    assert main([*command(scenes), *more]) == 2
    assert message in capsys.readouterr().err
