"""The report of a table: means and deviations, what is missing, and when the paper stands beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_helpers import PLAN

import efnet
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.core.files import write_json
from efnet.evaluation.comparison import Contender, compare
from efnet.evaluation.intervals import read_tally
from efnet.evaluation.resampling import Resampling
from efnet.reporting.tables import MeanDeviation
from efnet.studies.experiments.paper_tables import get_table
from efnet.studies.experiments.plan import Plan
from efnet.studies.experiments.results import collect, markdown, title, to_dict


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished runs."""
    shutil.copytree(finished, tmp_path / "runs")
    return tmp_path / "runs"


def change(out: Path, run: str, **values: Any) -> None:
    """Write other values into the evaluation of a run; those of the protocol by `protocol`."""
    path = out / run / "evaluation.json"
    report = json.loads(path.read_text())
    report["protocol"] |= values.pop("protocol", {})
    report.pop("per_image", None)  # no images make a figure that is written by hand
    write_json(path, report | values)


def cells(text: str, label: str) -> list[str]:
    """The first row of a Markdown report that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {label} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def official(out: Path) -> None:
    """Make the runs look like ones with the full budget on the official split."""
    write_json(out / "experiment.json", Plan(init={"efnet_light": "tcformer_light.pth"}).to_dict())
    for run in ("mfnet/seed0", "mfnet_add/seed0"):
        training = json.loads((out / run / "evaluation.json").read_text())["training"]
        training["init"] = "tcformer_light.pth"
        change(out, run, images=393, protocol={"name": "mfnet"}, training=training)


@pytest.mark.parametrize("values", [[0.5, 0.6, 0.55], [0.1, 0.1], [0.25]])
def test_spread_is_numpy_s(values: list[float]) -> None:
    spread = MeanDeviation.of(values)
    assert spread is not None
    assert spread.mean == pytest.approx(np.mean(values))
    if len(values) > 1:
        assert spread.deviation == pytest.approx(np.std(values, ddof=1))
    else:
        assert spread.deviation is None
    assert MeanDeviation.of([]) is None


def test_a_tiny_run_says_so_and_has_no_paper_beside_it(out: Path) -> None:
    result = collect(get_table("table4"), out)
    text = markdown(result)
    assert text.startswith("# TINY RUN on the given data, not the paper's Table IV")
    assert "paper |" not in text
    assert "56.7" not in text
    assert to_dict(result)["paper_comparable"] is False
    assert all(row["paper"] is None for row in to_dict(result)["rows"])
    generated = {**PLAN.to_dict(), "generated": True}
    write_json(out / "experiment.json", generated)
    assert title(collect(get_table("table4"), out)).startswith("TINY RUN on generated scenes")


def test_rows_and_classes(out: Path) -> None:
    report = json.loads((out / "mfnet_add" / "seed0" / "evaluation.json").read_text())
    text = markdown(collect(get_table("table4"), out))
    size = sum(p.numel() for p in efnet.create_model("efnet_tiny", 9, fusion="add").parameters()) / 1e6
    figures = cells(text, "fusion add")
    low, high = report["interval"]["miou"]
    assert figures[:6] == [
        "fusion add",
        "0",
        f"{100 * report['miou']:.2f}",
        f"{100 * low:.2f} to {100 * high:.2f}",
        f"{100 * report['macc']:.2f}",
        f"{size:.2f}",
    ]
    assert cells(text, "fusion cat") == ["fusion cat", "-", "-", "-", "-", "-", "-", "-"]
    assert "Missing: fusion cat: not run." in text
    classes = [line for line in text.splitlines() if line.startswith("| fusion add ")][1]
    assert f" {100 * report['iou']['unlabeled']:.2f} " in classes
    assert "Protocol mfnet: mean over 9 of 9 classes" in text
    assert "Recipe scratch: 4 train, 2 val pairs, 2 epochs, batches of 4." in text


def test_mean_and_deviation_over_seeds(out: Path) -> None:
    for seed, miou in ((0, 0.5), (1, 0.56), (10, 0.53)):
        if seed:
            shutil.copytree(out / "mfnet" / "seed0", out / "mfnet" / f"seed{seed}")
        change(out, f"mfnet/seed{seed}", miou=miou)
    (out / "mfnet" / "seed2").mkdir()
    (out / "mfnet" / "seed_old").mkdir()
    result = collect(get_table("table4"), out)
    text = markdown(result)
    assert cells(text, "fusion mif (full)")[1:4] == ["0, 1, 10", "53.00 ± 3.00", "-"]
    assert "fusion mif (full): seed 2 not finished" in text
    row = to_dict(result)["rows"][2]
    assert row["miou"] == {"mean": pytest.approx(0.53), "deviation": pytest.approx(0.03)}
    assert [run["seed"] for run in row["seeds"]] == [0, 1, 10]
    assert row["unfinished"] == [2]


def test_the_paper_stands_beside_official_figures(out: Path) -> None:
    official(out)
    change(out, "mfnet_add/seed0", miou=0.5712)
    result = collect(get_table("table4"), out)
    text = markdown(result)
    assert text.startswith("# Table IV: fusion methods on MFNet\n")
    row = cells(text, "fusion add")
    assert row[2:6] == ["57.12", "-", "56.7", "+0.42"]
    assert row[9] == "29.46"
    assert cells(text, "fusion cat")[4] == "54"
    assert "Initial weights: from tcformer_light.pth." in text
    assert to_dict(result)["rows"][1]["paper"]["miou"] == 56.7
    rising = markdown(collect(get_table("table6"), out))
    assert "Note: the paper gives the full model 57.7 here" in rising
    assert cells(rising, "tau 0.3, 0.7, 1.0 (full)")[7] == "66.9"


def test_a_table_of_several_networks_names_what_each_started_from(out: Path) -> None:
    official(out)
    shutil.copytree(out / "mfnet_add" / "seed0", out / "mfnet_rtfnet152" / "seed0")
    run = "mfnet_rtfnet152/seed0"
    training = json.loads((out / run / "evaluation.json").read_text())["training"]
    change(out, run, protocol={"model": "rtfnet152"}, training=training | {"init": "resnet152.pth"})
    text = markdown(collect(get_table("table1"), out))
    assert "Initial weights: rtfnet152 from resnet152.pth; efnet_tiny from tcformer_light.pth." in text
    assert cells(text, "RTFNet")[4] == "53.2"
    assert "Note: the paper's figures of other networks are those of their own papers" in text
    assert "LASNet: not run" in text
    change(out, run, training=training | {"init": None})
    text = markdown(collect(get_table("table1"), out))
    assert "Initial weights: rtfnet152 fresh (the paper's are pretrained); efnet_tiny from" in text
    write_json(out / "experiment.json", PLAN.to_dict())
    tiny = markdown(collect(get_table("table1"), out))
    assert tiny.startswith("# TINY RUN")
    assert "Initial weights: rtfnet152 fresh" in tiny


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda out: change(out, "mfnet/seed0", images=40), "has 393 pairs, this one 40"),
        (
            lambda out: change(out, "mfnet/seed0", protocol={"selected_on": "test"}),
            "chosen on the test split",
        ),
        (lambda out: change(out, "mfnet/seed0", protocol={"name": "native"}), "this one is native"),
    ],
)
def test_the_paper_does_not_stand_beside_others(
    out: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    official(out)
    spoil(out)
    text = markdown(collect(get_table("table4"), out))
    assert f"Not beside the paper's figures: {text.partition('figures: ')[2].partition('.')[0]}." in text
    assert reason in text
    assert "56.7" not in text


def test_runs_on_different_files_are_flagged(out: Path) -> None:
    assert collect(get_table("table4"), out).mixed_data() == []
    path = out / "mfnet" / "seed0" / "run.json"
    facts = json.loads(path.read_text())
    facts["data"]["train"]["sha256"] = "0" * 64
    write_json(path, facts)
    result = collect(get_table("table4"), out)
    assert result.mixed_data() == ["mfnet"]
    assert "CAUTION: runs on mfnet saw different files" in markdown(result)


def test_nothing_to_report(out: Path, tmp_path: Path) -> None:
    (out / "mfnet" / "seed0" / "evaluation.json").unlink()
    with pytest.raises(InputError, match="no run of table7 is done; start them with: efnet experiment run t"):
        collect(get_table("table7"), out)
    with pytest.raises(InputError, match="holds no experiments"):
        collect(get_table("table4"), tmp_path / "nowhere")
    (out / "mfnet_add" / "seed0" / "evaluation.json").write_text("{")
    with pytest.raises(InputError, match=r"evaluation\.json: damaged"):
        collect(get_table("table4"), out)


def test_command_writes_both_files(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "report", "table4", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed == (out / "table4.md").read_text(encoding="utf-8")
    assert json.loads((out / "table4.json").read_text())["table"] == "table4"


def test_a_study_compares_with_its_first_row_seed_by_seed(out: Path) -> None:
    """Of two seeds common to both rows; a third, which one row alone has, does not count."""
    for seed in (0, 1):
        shutil.copytree(out / "mfnet" / "seed0", out / "study" / f"seed{seed}")
        shutil.copytree(out / "mfnet_add" / "seed0", out / "study_pool" / f"seed{seed}")
    shutil.copytree(out / "mfnet" / "seed0", out / "study" / "seed2")
    for run, miou in (("study/seed0", 0.5), ("study/seed1", 0.4), ("study/seed2", 0.9)):
        change(out, run, miou=miou)
    for run, miou in (("study_pool/seed0", 0.47), ("study_pool/seed1", 0.39)):
        change(out, run, miou=miou)
    result = collect(get_table("study"), out)
    text = markdown(result)
    gain = np.array([-3.0, -1.0])
    expected = f"{gain.mean():.2f} ± {gain.std(ddof=1):.2f}"
    assert cells(text, "average pooling for DBTC")[4] == expected
    assert cells(text, "full network")[4] == ""
    assert cells(text, "RGB alone")[4] == "-"
    rows = {row["row"]: row for row in to_dict(result)["rows"]}
    assert rows["pool"]["to_first"]["mean"] == pytest.approx(-0.02)
    assert rows["pool"]["paper"] is None


def test_a_study_has_intervals_of_differences(out: Path) -> None:
    """Equal to those of a comparison of the same runs."""
    for seed in (0, 1):
        shutil.copytree(out / "mfnet" / "seed0", out / "study" / f"seed{seed}")
        shutil.copytree(out / "mfnet_add" / "seed0", out / "study_pool" / f"seed{seed}")
    result = collect(get_table("study"), out)
    rows = {row["row"]: row for row in to_dict(result)["rows"]}
    tallies = {
        name: read_tally(json.loads((out / name / "seed0" / "evaluation.json").read_text()), name)
        for name in ("study", "study_pool")
    }
    contenders = [Contender(name, (tally,), (name,)) for name, tally in tallies.items()]
    found = compare(contenders, Resampling())["differences"][0]["all"]["miou"]["interval"]
    assert rows["pool"]["to_first_interval"] == pytest.approx(found)
    shown = " to ".join(f"{100 * end:+.2f}" for end in found)
    assert cells(markdown(result), "average pooling for DBTC")[5] == shown
    assert cells(markdown(result), "full network")[5] == ""
