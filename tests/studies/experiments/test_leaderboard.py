"""Published rows against the paper's tables, and where an evaluation stands among them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from efnet.cli.main import main
from efnet.evaluation.protocols import get_protocol
from efnet.models.baselines import BASELINES
from efnet.studies import leaderboard as module
from efnet.studies.leaderboard import (
    DATASETS,
    objection,
    printed_sizes,
    published_table,
    standing,
    standing_table,
)

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
    "mfnet": {
        **{"CMX-B2": 58.2, "CMX-B4": 59.7, "CMNeXt-B4": 59.9},
        **{"Sigma-T": 60.2, "Sigma-S": 61.1, "Sigma-B": 61.3, "CRM-T": 59.1, "CRM-S": 61.2, "CRM-B": 61.4},
        **{"SpatialSeg-T": 59.4, "SpatialSeg-S": 62.1, "SpatialSeg-B": 64.6, "StitchFusion": 58.13},
        **{"SHIFNet": 59.2, "Frequency-guided fusion Nano": 61.73},
        **{"Frequency-guided fusion Tiny": 61.13, "Frequency-guided fusion Base": 59.63},
    },
    "pst900": {
        **{"CMX-B2": 84.9, "CMNeXt-B2": 83.9, "Sigma-T": 88.6, "Sigma-S": 87.8},
        **{"CRM-T": 85.9, "CRM-S": 86.9, "CRM-B": 88.0, "MiLNet": 85.1, "MCNet-T": 84.6, "CPAL": 86.8},
        **{"AGFNet": 84.8, "CLNet-T": 80.8, "DFormer-B": 85.4, "DFormerV2-S": 83.9, "CM-SSM": 85.9},
        **{"StitchFusion": 85.35, "SHIFNet": 89.8, "TASRT": 89.16},
        **{"TUNI": 87.3, "TUNI-T": 86.4, "TUNI-S": 87.3, "TUNI-B": 89.1},
        **{"Frequency-guided fusion Nano": 86.24, "Frequency-guided fusion Tiny": 87.88},
        **{"Frequency-guided fusion Base": 88.48},
    },
    "fmb": {
        **{"CMX-B2": 61.1, "CMNeXt-B2": 59.0, "Sigma-T": 61.8, "MiLNet": 61.8, "MCNet-T": 63.6},
        **{"CPAL": 60.9, "AGFNet": 60.5, "CLNet-T": 60.4, "DFormer-B": 61.2, "DFormerV2-S": 61.5},
        **{"CM-SSM": 59.0, "StitchFusion": 64.85, "SHIFNet": 67.8},
        **{"TUNI": 62.4, "TUNI-T": 62.4, "TUNI-S": 63.5, "TUNI-B": 66.3},
    },
}
"""mIoU as the sources of newer rows print them."""


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
        assert re.search(r"arXiv \d{4}\.\d{5}|github\.com/|README", result.source)
        assert result.network is None or result.network in BASELINES
        assert result.protocol is None or get_protocol(result.protocol)
    assert get_protocol(table.protocol).name == dataset


def test_sizes_as_printed() -> None:
    rtf = published_table("mfnet").row("RTFNet")
    assert (rtf.backbone, rtf.parameters, rtf.operations) == ("ResNet-152", 337.1, 337.0)
    tuni = published_table("fmb").row("TUNI-B")
    assert (tuni.parameters, tuni.operations) == (29.57, 42.64)
    second_hand = {
        (dataset, row.method)
        for dataset in DATASETS
        for row in published_table(dataset).results
        if row.seen == "told"
    }
    assert second_hand == {("mfnet", "SHIFNet")}
    with pytest.raises(KeyError):
        published_table("msrs")
    with pytest.raises(KeyError):
        published_table("mfnet").row("SegNet")


def test_printed_sizes_of_a_network() -> None:
    """Each pair once; a table that repeats the parameters without operations adds nothing."""
    sizes = {
        name: [(row.parameters, row.operations) for row in printed_sizes(name)]
        for name in ("rtfnet152", "lasnet", "sgfnet", "cmx_b2", "tuni_s", "mfnet")
    }
    assert sizes == {
        "rtfnet152": [(337.1, 337.0)],
        "lasnet": [(139.9, 233.8), (93.5, None)],
        "sgfnet": [(125.3, 143.7), (125.6, None)],
        "cmx_b2": [(66.57, 67.2)],
        "tuni_s": [(10.63, 17.16)],
        "mfnet": [],
    }


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


@pytest.mark.parametrize(("miou", "rank"), [(0.99, 1), (0.602, 9), (0.579, 18), (0.5789, 19), (0.1, 28)])
def test_rank_counts_the_better_ones(miou: float, rank: int) -> None:
    place = standing(report(miou=miou))
    assert place.rank == rank
    table = standing_table(place, "yours", 14.97e6)
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == [str(number) for number in range(1, 29)]
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
    assert own.split("\u2502")[1].strip() == "28"
    assert "CMX-B4" in out
    assert "published figures are as their sources print them" in out
