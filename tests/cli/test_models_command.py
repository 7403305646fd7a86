"""`efnet models`: presets and ablations beside the paper's figures."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import efnet
from efnet.cli.main import main
from efnet.cli.models import PAPER, list_ablations
from efnet.models.complexity import measure


def build(*args: Any, **options: Any) -> torch.nn.Module:
    """A network without memory."""
    with torch.device("meta"):
        return efnet.create_model(*args, **options)


PRESETS = ("efnet_tiny", "efnet_light", "mfnet")
"""Two networks of ours and one of another paper. Counting all of them takes a while."""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What the command writes, and what it prints."""
    path = tmp_path_factory.mktemp("models") / "models.json"
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as printed,
    ):
        patch.setattr("efnet.cli.models.list_models", lambda: list(PRESETS))
        assert main(["models", "--size", "64x96", "--json", str(path)]) == 0
    return json.loads(path.read_text()), printed.getvalue()


@pytest.mark.slow
def test_every_preset_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--size", "64x96", "--json", str(tmp_path / "models.json")]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in efnet.list_models())
    written = json.loads((tmp_path / "models.json").read_text())["models"]
    for name in efnet.list_models():
        assert written[name]["parameters"] == sum(p.numel() for p in build(name, 9).parameters())


@pytest.fixture(scope="module")
def written(result: tuple[dict[str, Any], str]) -> dict[str, Any]:
    return result[0]


def test_every_row_counts_the_network_it_names(written) -> None:
    assert tuple(written["models"]) == PRESETS
    light = sum(p.numel() for p in build("efnet_light", 9).parameters())
    assert written["models"]["efnet_light"]["parameters"] == light
    tiny = asdict(measure("efnet_tiny", 9, (64, 96)))
    assert {key: written["models"]["efnet_tiny"][key] for key in tiny} == tiny
    assert [row["label"] for row in written["ablations"]] == [row.label for row in list_ablations()]
    for row in written["ablations"]:
        model = build("efnet_light", 9, **row["options"])
        assert row["parameters"] == sum(p.numel() for p in model.parameters())
        assert row["difference"] == row["parameters"] - light
        kind, _, value = row["label"].partition(" ")
        if kind in ("fusion", "position", "decoder"):  # the label says what was built
            assert getattr(model.config, kind) == value.removesuffix(" (full)")


def test_the_paper_s_figures(written) -> None:
    """As printed in tables IV, V and VII."""
    paper = {
        ("IV", "fusion cat"): 29.56,
        ("IV", "fusion add"): 29.46,
        ("IV", "fusion mif (full)"): 29.54,
        ("V", "position none"): 29.54,
        ("V", "position pe"): 29.55,
        ("V", "position pce (full)"): 29.54,
        ("VII", "decoder deeplab"): 33.28,
        ("VII", "decoder mlp"): 30.06,
        ("VII", "decoder mfad (full)"): 29.54,
    }
    rows = {(row["paper_table"], row["label"]): row for row in written["ablations"]}
    assert rows.keys() == paper.keys() | {("III-C", "add, none, mlp")}
    for key, millions in paper.items():
        assert rows[key]["paper_parameters"] == pytest.approx(millions * 1e6)
        assert rows[key]["paper_difference"] == pytest.approx((millions - 29.54) * 1e6, abs=1)
        assert rows[key]["to_paper"] == rows[key]["parameters"] - rows[key]["paper_parameters"]
    baseline = rows["III-C", "add, none, mlp"]
    assert baseline["options"] == {"fusion": "add", "position": "none", "decoder": "mlp"}
    assert (baseline["paper_parameters"], baseline["to_paper"]) == (None, None)
    assert PAPER == {"parameters": 29_500_000, "operations": 36_600_000_000}
    assert written["paper"] == {**PAPER, "full_parameters": 29_540_000}


def test_presets_beside_table_1(written) -> None:
    for counted in written["models"].values():
        assert counted["to_paper"] == {
            "parameters": counted["parameters"] - 29.5e6,
            "operations_at_one": counted["layers"] - 36.6e9,
            "operations_at_two": 2 * counted["layers"] - 36.6e9,
        }


def test_ablations_of_another_preset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "efnet.cli.models.list_models", lambda: ["efnet_tiny", "mfnet"]
    )  # the others take time
    path = tmp_path / "deep" / "models.json"
    words = ["--size", "32x32", "--num-classes", "2", "--model", "efnet_tiny", "--json", str(path)]
    assert main(["models", *words]) == 0
    assert "ablations of efnet_tiny" in capsys.readouterr().out
    values = json.loads(path.read_text())
    assert values["num_classes"] == 2
    (add,) = (row for row in values["ablations"] if row["label"] == "fusion add")
    model = build("efnet_tiny", 2, fusion="add")
    assert (add["model"], add["parameters"]) == ("efnet_tiny", sum(p.numel() for p in model.parameters()))


def test_printed_table(result: tuple[dict[str, Any], str]) -> None:
    printed = result[1]
    assert all(name in printed for name in PRESETS)
    assert "paper, table I (480x640): 29.5 M parameters, 36.6 G" in printed
    assert "\u2026" not in printed, "no cell is cut short"
    (mlp,) = (line for line in printed.splitlines() if "decoder mlp" in line)
    assert [cell.strip() for cell in mlp.split("\u2502")][1:8] == [
        *("VII", "decoder mlp", "15.48", "+0.52", "30.06", "+0.52", "-14.58")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "10x10"], "--size 10x10: give height x width, both at least 32, such as 480x640"),
        (["--size", "big"], "--size big: give height x width"),
        (["--num-classes", "1"], "--num-classes 1: give 2 or more"),
        (
            ["--model", "efnet_huge"],
            "--model efnet_huge: there is no such preset; choose efnet_tiny, efnet_light",
        ),
        (["--model", "mfnet"], "--model mfnet: has no ablations; choose efnet_tiny, efnet_light"),
        (["--json", "."], "--json .: is a folder"),
    ],
)
def test_wrong_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"efnet: error: {message}")
    assert captured.out == ""
