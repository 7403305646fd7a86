import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console
from scoring_cases import MFNET, named
from scoring_oracle import oracle

from efnet.core.classes import ClassSet
from efnet.evaluation.metrics import Tally
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import build_report, console_table, headline, markdown, percent, protocol_lines

CIRCUMSTANCES = {
    "dataset": "mfnet",
    "split": "test",
    "checkpoint": "runs/x",
    "selected_on": "val",
    "input_size": [240, 320],
    "tta": None,
}


def filled(protocol="mfnet", classes=MFNET, size=(6, 8), conditions=("day", "night"), present=8):
    rng = np.random.default_rng(5)
    tally = Tally(classes, dataclasses.replace(get_protocol(protocol), size=size))
    truths, predictions = [], []
    for number in range(4):
        truths.append(rng.integers(0, present, size).astype(np.uint8))
        predictions.append(rng.integers(0, present, size).astype(np.uint8))
        pair = named(f"p{number}", conditions[number % len(conditions)])
        tally.add(pair, truths[-1], predictions[-1])
    return tally, truths, predictions


def test_report_has_the_documented_keys_and_the_oracle_s_figures():
    tally, truths, predictions = filled()
    report = json.loads(json.dumps(build_report(tally, CIRCUMSTANCES), allow_nan=False))
    assert set(report) == {
        *("miou", "macc", "iou", "acc", "day", "night"),
        *("trivial", "confusion", "protocol", "images"),
    }
    miou, macc, ious, accuracies = oracle(truths, predictions, 9)
    assert report["miou"] == pytest.approx(miou, rel=1e-12)
    assert report["macc"] == pytest.approx(macc, rel=1e-12)
    assert list(report["iou"]) == list(report["acc"]) == list(MFNET.names)
    assert list(report["iou"].values())[:8] == pytest.approx(ious[:8])
    assert list(report["acc"].values())[:8] == pytest.approx(accuracies[:8])
    assert report["iou"]["bump"] is None
    assert report["images"] == 4
    for condition in ("day", "night"):
        assert {"miou", "macc", "iou", "acc"} <= set(report[condition])
        assert report[condition]["images"] == 2
    counts = np.array(report["confusion"])
    assert counts.shape == (9, 9)
    assert counts[3, 5] == sum(
        int(((truth == 3) & (said == 5)).sum()) for truth, said in zip(truths, predictions, strict=True)
    )


def test_protocol_part_holds_everything_that_decides_the_figure():
    tally, _, _ = filled("mfnet-authors", size=(480, 640))
    protocol = build_report(tally, CIRCUMSTANCES)["protocol"]
    assert protocol["name"] == "mfnet-authors"
    assert protocol["classes"] == list(MFNET.names[1:])
    assert (
        protocol["left_out"] == protocol["ignored_truth"] == protocol["ignored_prediction"] == ["unlabeled"]
    )
    assert protocol["ignore_index"] == 255
    assert protocol["absent"] == "zero"
    assert protocol["size"] == [480, 640]
    assert {key: protocol[key] for key in CIRCUMSTANCES} == CIRCUMSTANCES


def test_confusion_in_the_report_is_what_was_scored():
    tally, truths, predictions = filled("fmb", classes=ClassSet.generic(15))
    report = build_report(tally, {})
    counts = np.array(report["confusion"])
    assert not counts[0].any()
    ious = np.diag(counts)[1:8] / (counts.sum(0) + counts.sum(1) - np.diag(counts))[1:8]
    assert report["miou"] == pytest.approx(ious.mean())
    expected = oracle(truths, predictions, 15, averaged=range(1, 15), ignored_truth=(0,))
    assert report["miou"] == pytest.approx(expected[0])


@pytest.mark.parametrize("protocol", ["mfnet", "mfnet-absent-zero", "mfnet-no-unlabeled", "mfnet-authors"])
def test_trivial_figure_is_that_of_a_constant_prediction(protocol):
    tally, truths, _ = filled(protocol)
    rules = tally.protocol
    counts = np.bincount(np.concatenate([truth.ravel() for truth in truths]), minlength=9)
    constant = 0 if 0 in rules.averaged(9) else 1 + int(counts[1:].argmax())
    expected = oracle(
        truths,
        [np.full_like(truth, constant) for truth in truths],
        9,
        averaged=rules.averaged(9),
        ignored_truth=rules.ignored_truth,
        ignored_prediction=rules.ignored_prediction,
        absent=rules.absent,
    )
    trivial = build_report(tally, {})["trivial"]
    assert set(trivial) == {"prediction", "miou", "macc"}
    assert trivial["prediction"] == MFNET.names[constant]
    assert trivial["miou"] > 0
    assert trivial["miou"] == pytest.approx(expected[0])
    assert trivial["macc"] == pytest.approx(expected[1])


def test_trivial_class_where_class_0_is_not_averaged():
    """The most frequent averaged class of the truth: not the most frequent label, nor of predictions."""
    tally = Tally(ClassSet.generic(15), dataclasses.replace(get_protocol("fmb"), size=None))
    truth = np.repeat(np.array([0, 3, 7], dtype=np.uint8), (50, 20, 30)).reshape(10, 10)
    tally.add(named("a", None), truth, np.full_like(truth, 3))
    report = build_report(tally, {})
    assert report["trivial"]["prediction"] == "class_7"
    assert report["trivial"]["miou"] == pytest.approx((30 / 50 + 0) / 2)
    assert "predicting class_7 everywhere: mIoU 30.00" in headline(report)


def test_unknown_conditions_leave_no_parts():
    tally, _, _ = filled(conditions=(None,))
    assert {"day", "night"}.isdisjoint(build_report(tally, {}))


def test_markdown_table_is_complete_and_in_percent():
    tally, _, _ = filled()
    report = build_report(tally, CIRCUMSTANCES)
    lines = markdown(report).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| class | IoU | acc | day IoU | day acc | night IoU | night acc |"
    assert len(table) == 2 + 9 + 1
    assert {line.count("|") for line in table} == {8}
    cells = [cell.strip() for cell in table[3].split("|")[1:-1]]
    assert cells[0] == "car"
    assert cells[1] == f"{100 * report['iou']['car']:.2f}"
    assert cells[6] == f"{100 * report['night']['acc']['car']:.2f}"
    assert table[10].startswith("| bump | - | - |")
    assert table[-1].startswith(f"| **mean** | **{100 * report['miou']:.2f}** |")
    assert "Protocol mfnet: mean over 9 of 9 classes" in lines[-1]
    assert "checkpoint runs/x (chosen on: val)" in lines[-1]


def test_class_names_cannot_break_the_tables():
    classes = ClassSet(("a|b", "[bold]c", "d"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    tally, _, _ = filled("native", classes=classes, present=3)
    report = build_report(tally, {})
    assert "| a\\|b |" in markdown(report)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(console_table(report))
    assert "[bold]c" in console.export_text()


def test_lines_tell_what_is_unusual():
    tally, _, _ = filled()
    report = build_report(
        tally, {**CIRCUMSTANCES, "selected_on": "test", "tta": "scales 1", "input_size": None}
    )
    line = protocol_lines(report)[1]
    assert "chosen on: test" in line
    assert "TTA scales 1" in line
    assert "input at its own size" in line
    unknown = build_report(tally, {**CIRCUMSTANCES, "selected_on": None})
    assert "chosen on: unknown split" in protocol_lines(unknown)[1]
    assert f"everywhere: mIoU {percent(report['trivial']['miou'])}" in headline(report)


def test_percent():
    assert percent(None) == "-"
    assert percent(0.126) == "12.60"
    assert percent(1.0) == "100.00"
