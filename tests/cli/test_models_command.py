"""`efnet models`: presets and ablations beside the paper's figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import efnet
from efnet.cli.main import main
from efnet.cli.models import ABLATIONS


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    path = tmp_path_factory.mktemp("models") / "models.json"
    assert main(["models", "--size", "64x96", "--json", str(path)]) == 0
    values = json.loads(path.read_text())
    assert isinstance(values, dict)
    return values


def test_every_row_counts_the_network_it_names(written) -> None:
    light = sum(p.numel() for p in efnet.create_model("efnet_light", 9).parameters())
    assert written["models"]["efnet_light"]["parameters"] == light
    assert [row["label"] for row in written["ablations"]] == [row.label for row in ABLATIONS]
    for row in written["ablations"]:
        model = efnet.create_model("efnet_light", 9, **row["options"])
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
    baseline = rows["III-C", "add, none, mlp"]
    assert baseline["options"] == {"fusion": "add", "position": "none", "decoder": "mlp"}
    assert baseline["paper_parameters"] is None


def test_printed_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--size", "64x96"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in efnet.list_models())
    assert "paper, table I (480x640): 29.5 M parameters, 36.6 G" in printed
    assert "\u2026" not in printed, "no cell is cut short"
    (mlp,) = (line for line in printed.splitlines() if "decoder mlp" in line)
    assert [cell.strip() for cell in mlp.split("\u2502")][1:7] == [
        *("VII", "decoder mlp", "15.48 M", "+0.52", "30.06 M", "+0.52")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "10x10"], "--size 10x10: give height x width, both at least 32, such as 480x640"),
        (["--size", "big"], "--size big: give height x width"),
        (["--num-classes", "1"], "--num-classes 1: give 2 or more"),
        (["--json", "."], "--json .: is a folder"),
    ],
)
def test_wrong_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"efnet: error: {message}")
    assert captured.out == ""


def test_writes_beside_existing_files(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "models.json"
    assert main(["models", "--size", "32x32", "--num-classes", "2", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["num_classes"] == 2
