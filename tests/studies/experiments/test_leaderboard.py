"""Published rows against the paper's tables, and where an evaluation stands among them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from efnet.cli.main import main
from efnet.evaluation.protocols import get_protocol
from efnet.studies import leaderboard as module
from efnet.studies.leaderboard import DATASETS, objection, published_table, standing, standing_table

TABLES = {
    "mfnet": {
        **{"RTFNet": 53.2, "ABMDRNet": 54.8, "MTANet": 56.1, "RSFNet": 56.2, "SFAF-MA": 55.5},
        **{"GMNet": 57.3, "LASNet": 54.9, "SGFNet": 57.6, "MDRNet": 56.8, "EFNet": 57.9},
    },
    "pst900": {
        **{"RTFNet": 60.6, "PSTNet": 68.4, "MTANet": 78.6, "GMNet": 84.1, "EGFNet": 78.5},
        **{"LASNet": 84.4, "MDRNet": 74.6, "MMSMCNet": 79.8, "SGFNet": 82.8, "EFNet": 85.6},
    },
    "fmb": {
        **{"RTFNet": 42.7, "EGFNet": 47.3, "LASNet": 53.4, "GMNet": 49.2, "SFAF-Net": 42.7},
        **{"EAEFNet": 53.5, "EFNet": 55.2},
    },
}
"""mIoU as printed in tables I to III, in their order."""

NEWER = {
    "mfnet": {"CMX-B2": 58.2, "CMX-B4": 59.7, "Sigma-T": 60.2, "CRM": 61.4},
    "pst900": {"Sigma-T": 88.6, "TUNI-B": 89.1},
    "fmb": {"DFormerV2-S": 61.5, "StitchFusion": 64.85, "TUNI-B": 66.3},
}


def report(**changes: Any) -> dict[str, Any]:
    protocol = {"dataset": "mfnet", "split": "test", "name": "mfnet", "tta": None, "selected_on": "val"}
    values = {"miou": 0.5791, "images": 393}
    values |= {key: changes.pop(key) for key in list(changes) if key in values}
    return {**values, "protocol": protocol | changes}


@pytest.mark.parametrize("dataset", DATASETS)
def test_rows_are_the_tables_and_newer_ones(dataset: str) -> None:
    table = published_table(dataset)
    rows = {result.method: result.miou for result in table.results}
    assert list(rows.items()) == [*TABLES[dataset].items(), *NEWER[dataset].items()]
    for result in table.results:
        assert (result.seen == "table") == (result.method in TABLES[dataset])
        assert "arXiv" in result.source
        assert result.protocol is None or get_protocol(result.protocol)
    assert get_protocol(table.protocol).name == dataset


def test_sizes_as_printed() -> None:
    rtf = published_table("mfnet").row("RTFNet")
    assert (rtf.backbone, rtf.parameters, rtf.operations) == ("ResNet-152", 337.1, 337.0)
    tuni = published_table("fmb").row("TUNI-B")
    assert (tuni.parameters, tuni.operations) == (29.57, 42.64)
    with pytest.raises(KeyError):
        published_table("msrs")
    with pytest.raises(KeyError):
        published_table("mfnet").row("SegNet")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": "msrs"}, "no published results of data set msrs"),
        ({"split": "test_day"}, "of the test split, this one is of test_day"),
        ({"images": 40}, "the official test split has 393 pairs, this one 40"),
        ({"name": "mfnet-authors"}, "under protocol mfnet, this one is mfnet-authors"),
        ({"tta": "scales"}, "test-time augmentation is on"),
        ({"selected_on": "test"}, "chosen on the test split"),
        ({"miou": None}, "no class of the split occurs"),
    ],
)
def test_what_is_not_put_among_them(changes: dict[str, Any], reason: str) -> None:
    assert reason in str(objection(report(**changes)))
    with pytest.raises(ValueError, match=re.escape(reason)):
        standing(report(**changes))


@pytest.mark.parametrize(("miou", "rank"), [(0.99, 1), (0.602, 2), (0.579, 5), (0.5789, 6), (0.1, 15)])
def test_rank_counts_the_better_ones(miou: float, rank: int) -> None:
    place = standing(report(miou=miou))
    assert place.rank == rank
    table = standing_table(place, "yours", 14.97e6)
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == [str(number) for number in range(1, 16)]
    assert cells[1][rank - 1] == "yours"
    figures = [float(cell) for cell in cells[5]]
    assert figures == sorted(figures, reverse=True)


def test_evaluate_prints_the_place(
    finished: Path, scenes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", "--checkpoint", str(finished / "mfnet" / "seed0"), "--dataset", "mfnet"]
    words += ["--root", str(scenes), "--device", "cpu", "--workers", "0"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "not among published results: the official test split has 393 pairs, this one 2" in out
    small = dataclasses.replace(published_table("mfnet"), test_pairs=2)
    monkeypatch.setattr(module, "published_table", lambda dataset: small)
    assert main(words) == 0
    out = capsys.readouterr().out
    (own,) = (line for line in out.splitlines() if "yours (efnet_tiny)" in line)
    assert own.split("\u2502")[1].strip() == "15"
    assert "CMX-B4" in out
    assert "published figures are as their sources print them" in out
