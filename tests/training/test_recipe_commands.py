"""Recipes and their options as a user types them; pretraining."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from efnet.cli.main import main
from efnet.data.layouts.public import MFNET_CLASSES
from efnet.models.checkpoint import load_checkpoint
from efnet.training import get_recipe

ROOT = Path(__file__).resolve().parents[2]


def status(*words: object) -> int:
    return main([str(word) for word in words])


def short(scenes: Path, out: Path, *more: object) -> list[object]:
    words: list[object] = [
        "train",
        "--root",
        scenes,
        "--model",
        "efnet_tiny",
        "--size",
        "64x96",
        "--out",
        out,
    ]
    return [
        *words,
        "--epochs",
        1,
        "--workers",
        0,
        "--device",
        "cpu",
        "--quiet",
        "--validation.samples",
        0,
        *more,
    ]


def written(out: Path) -> Any:
    return yaml.safe_load((out / "config.yaml").read_text())


def test_a_recipe_and_options_of_its_parts(scenes: Path, tmp_path: Path) -> None:
    words = [
        "--recipe",
        "strong-scratch",
        "--loss.ohem",
        0.7,
        "--ema.decay",
        0.99,
        "--augment.scale",
        "0.5,3",
    ]
    words += ["--loss.class_weights", "enet", "--augment.drop_rgb", 0.1, "--accumulate", 2]
    assert status(*short(scenes, tmp_path / "run", *words)) == 0
    values, recipe = written(tmp_path / "run"), get_recipe("strong-scratch")
    assert values["loss"]["ohem"] == 0.7
    assert values["loss"]["dice"] == recipe.loss.dice > 0
    assert values["loss"]["class_weights"] == "enet"
    assert values["ema"]["decay"] == 0.99
    assert values["augment"]["scale"] == [0.5, 3]
    assert values["data"]["accumulate"] == 2
    # The file that the run wrote repeats it to the bit.
    assert (
        status("train", "--config", tmp_path / "run" / "config.yaml", "--out", tmp_path / "again", "--quiet")
        == 0
    )
    first, second = (load_checkpoint(tmp_path / name).state_dict() for name in ("run", "again"))
    assert all(torch.equal(second[name], value) for name, value in first.items())


def test_options_in_a_file(scenes: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "loss: {dice: 0.5, class_weights: median}\nema: {decay: 0.9}\naugment: {thermal_gain: 0.1}\n"
    )
    assert status(*short(scenes, tmp_path / "run", "--config", file)) == 0
    values = written(tmp_path / "run")
    assert (values["loss"]["dice"], values["loss"]["class_weights"]) == (0.5, "median")
    assert (values["ema"]["decay"], values["augment"]["thermal_gain"]) == (0.9, 0.1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--loss.ohem", "2"], "loss.ohem is 2"),
        (["--loss.class_weights", "log"], "loss.class_weights"),
        (["--loss.cross_entropy", "0"], "all 0"),
        (["--ema.decay", "1"], "ema.decay is 1"),
        (["--accumulate", "0"], "data.accumulate is 0"),
        (["--augment.drop_rgb", "0.1", "--modality", "rgb"], "--augment.drop_rgb 0"),
        (["--optimizer.fresh_lr", "-1"], "optimizer.fresh_lr is -1"),
    ],
)
def test_bad_values(
    words: list[str], message: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(*short(scenes, tmp_path / "run", *words)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_run_from_before_an_option_came_goes_on(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert status(*short(scenes, run)) == 0
    values = written(run)
    for part in ("loss", "ema"):
        del values[part]
    del values["data"]["accumulate"]
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert status("train", "--out", run, "--resume", "--loss.dice", 1, "--epochs", 2, "--quiet") == 2
    assert status("train", "--out", run, "--resume", "--epochs", 2, "--quiet") == 0


def test_pretraining_on_generated_scenes(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the page on training says it: generated scenes, a run on them, and one that starts from it."""
    generated = tmp_path / "generated"
    words = f"data synthesize --out {generated} --train 4 --val 2 --test 0 --size 64x96".split()
    assert status(*words) == 0
    assert status(*short(generated, tmp_path / "pre", "--recipe", "strong-scratch")) == 0
    more = ["--recipe", "strong", "--init", tmp_path / "pre", "--lr", "1e-12"]
    assert status(*short(scenes, tmp_path / "run", *more)) == 0
    before, after = (load_checkpoint(tmp_path / name).state_dict() for name in ("pre", "run"))
    for name, value in before.items():  # next to nothing was learned, so it is what it started from
        torch.testing.assert_close(after[name], value, msg=name)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert f"loaded {len(before)} tensors; fresh 0; left over 0" in facts["init"]
    # A set of other classes: all but the class tokens.
    other = tmp_path / "other"
    words = f"data convert --to folders --root {scenes} --out {other}".split()
    assert status(*words) == 0
    names = [f"class {value}" for value in range(10)]
    palette = [list(color) for color in (*MFNET_CLASSES.palette, (1, 2, 3))]
    (other / "dataset.yaml").write_text(yaml.safe_dump({"names": names, "palette": palette}))
    more = ["--dataset", "folders", "--recipe", "strong", "--init", tmp_path / "pre"]
    assert status(*short(other, tmp_path / "ten", *more)) == 0
    report = json.loads((tmp_path / "ten" / "run.json").read_text())["init"]
    assert "fresh 1 (decoder.class_tokens)" in report
