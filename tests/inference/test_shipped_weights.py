"""The weights that come with the package: what they are, and that every door finds them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from prediction_helpers import make_model, write_pair
from safetensors.torch import load_file

import efnet
from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.core.shipped import DEFAULT_WEIGHTS, SHIPPED_FOLDER
from efnet.data.layouts import open_split
from efnet.evaluation.evaluate import evaluate
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import build_report
from efnet.models.checkpoint import load_checkpoint


def test_they_are_small_and_in_half_precision() -> None:
    path = SHIPPED_FOLDER / "model.safetensors"
    assert path.stat().st_size < 8_000_000
    state = load_file(path)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}


def test_they_load_as_any_checkpoint() -> None:
    model = load_checkpoint()
    assert isinstance(model, efnet.EFNetEdge)
    assert model.classes.names[:4] == ("unlabeled", "car", "person", "bike")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert model.training_summary["dataset"] == "mfnet"
    named = load_checkpoint(DEFAULT_WEIGHTS).state_dict()
    assert all(torch.equal(value, named[name]) for name, value in model.state_dict().items())


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model().save_pretrained(tmp_path / DEFAULT_WEIGHTS)
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_checkpoint(DEFAULT_WEIGHTS), efnet.EFNet)


def test_predict_without_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pair(tmp_path, "street", 0)
    images = ["--rgb", str(tmp_path / "rgb"), "--thermal", str(tmp_path / "thermal")]
    assert main(["predict", *images, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"weights {DEFAULT_WEIGHTS}, trained on \d+ pairs of mfnet; --checkpoint takes", said)
    assert main(["predict", "--checkpoint", DEFAULT_WEIGHTS, *images, "--out", str(tmp_path / "named")]) == 0
    first, second = (
        next((tmp_path / name / "index").glob("*.png")).read_bytes() for name in ("out", "named")
    )
    assert first == second


def test_python_users_need_no_name(tmp_path: Path) -> None:
    write_pair(tmp_path, "street", 0)
    rgb, thermal = (next((tmp_path / camera).iterdir()) for camera in ("rgb", "thermal"))
    prediction = efnet.Predictor.from_pretrained()(rgb, thermal)
    assert prediction.index.dtype == np.uint8
    assert prediction.classes == ClassSet.from_dict(
        json.loads((SHIPPED_FOLDER / "config.json").read_text())["classes"]
    )


def test_the_card_names_data_licences_and_limits() -> None:
    card = (SHIPPED_FOLDER / "README.md").read_text(encoding="utf-8")
    for part in ("Apache-2.0", "MFNet", "research", "Limits", "day", "night"):
        assert part in card, f"the card says nothing of {part}"


def test_figures_of_the_card_hold(samples: Path) -> None:
    """The test split of the real pairs, to half a point: processors round differently."""
    card = (SHIPPED_FOLDER / "README.md").read_text(encoding="utf-8")
    stated = re.search(r"^\| mean \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", card, re.MULTILINE)
    assert stated is not None
    pairset, protocol = open_split("mfnet", samples / "mfnet", "test"), get_protocol("mfnet")
    tally = evaluate(efnet.Predictor.from_pretrained(device="cpu"), pairset, protocol)
    report = build_report(tally, {})
    found = [report["miou"], report["day"]["miou"], report["night"]["miou"]]
    assert [100 * value for value in found] == pytest.approx(
        [float(value) for value in stated.groups()], abs=0.5
    )
