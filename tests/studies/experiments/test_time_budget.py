"""A budget of time: what it allows each row, that it stays, and what the report says of it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiment_helpers import Listening, no_bar, run

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.core.files import write_json
from efnet.studies.experiments import run as module
from efnet.studies.experiments.paper_tables import get_table
from efnet.studies.experiments.plan import Plan
from efnet.studies.experiments.run import Pace, Timing
from efnet.training.config import TrainConfig

PLAN = Plan(budget="tiny", minutes=0.02)
ROWS = ["efnet_light", "mfnet"]


@pytest.fixture(scope="module")
def timed(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows, each for a second or so."""
    out = tmp_path_factory.mktemp("timed") / "runs"
    run(out, scenes, table="rivals", rows=ROWS, plan=PLAN)
    return out


def test_pace_is_arithmetic() -> None:
    timings = [Timing((0.1, 0.3), 0.5), Timing((0.2, 5.0), 0.7)]
    # 40 pairs of 0.25 s, and every second epoch 10 of 0.6 s: 13 s an epoch, 27.7 of them in 6 minutes.
    assert Pace.of(timings, (40, 10), 2, 6) == Pace(28, 0.25, pytest.approx(0.6))
    assert Pace.of(timings, (40, 10), 2, 0.01).epochs == 1


def test_each_row_gets_the_epochs_of_its_pace(timed: Path) -> None:
    fixed = json.loads((timed / "pace.json").read_text())
    assert list(fixed) == ["study", "rivals_mfnet"]
    for name, pace in fixed.items():
        epoch = 4 * pace["training"] + 2 * pace["validation"] / 2
        assert pace["epochs"] == max(1, round(1.2 / epoch))
        config = yaml.safe_load((timed / name / "seed0" / "config.yaml").read_text())
        assert config["schedule"]["epochs"] == pace["epochs"]
        report = json.loads((timed / name / "seed0" / "evaluation.json").read_text())
        assert report["training"]["epochs"] == pace["epochs"]
    assert not list(timed.glob(".pace-*"))


def test_what_was_fixed_stays(timed: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Done rows are skipped and another seed takes the same epochs; nothing is timed again."""

    def never(*_: Any) -> Timing:
        raise AssertionError("timed again")

    monkeypatch.setattr(module, "_measure", never)
    before = (timed / "pace.json").read_bytes()
    heard = Listening()
    cells = run(timed, scenes, heard, table="rivals", rows=["mfnet"], plan=PLAN, seeds=(0, 1))
    assert "[1/2] rivals mfnet, seed 0: done before" in heard.lines[0]
    assert cells[0].config.schedule == cells[1].config.schedule
    assert (timed / "pace.json").read_bytes() == before


def test_what_another_process_fixed_meanwhile_stays(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own rows, and of one that both measured."""
    theirs = {name: {"epochs": 2, "training": 1.0, "validation": 1.0} for name in ("study", "rivals_mfnet")}

    def measure(config: TrainConfig, out: Path) -> Timing:
        write_json(out / "pace.json", theirs)
        return Timing((0.001,), 0.0)

    monkeypatch.setattr(module, "_measure", measure)
    configs = {
        row.config: PLAN.config(row, 0, scenes)
        for row in get_table("rivals").choose(["mfnet", "segformer_b0"])
    }
    epochs = module.fix_epochs(tmp_path, 1, configs, Listening(), no_bar)
    assert epochs["rivals_mfnet"] == 2
    fixed = json.loads((tmp_path / "pace.json").read_text())
    assert fixed.pop("rivals_segformer_b0")["epochs"] == epochs["rivals_segformer_b0"] > 2
    assert fixed == theirs


def test_report_states_epochs_and_minutes(timed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "report", "rivals", "--out", str(timed)]) == 0
    text = capsys.readouterr().out
    assert "Every run had about 0.02 minutes for training and validation" in text
    values = json.loads((timed / "rivals.json").read_text())
    heading = next(line for line in text.splitlines() if "| seeds |" in line).split(" | ")
    for row in values["rows"]:
        if not row["seeds"]:
            assert row["model"] is None
            continue
        line = next(line for line in text.splitlines() if line.startswith(f"| {row['label']} |")).split(" | ")
        facts = [
            json.loads((timed / row["config"] / f"seed{seed['seed']}" / "run.json").read_text())
            for seed in row["seeds"]
        ]
        minutes = statistics.fmean(fact["result"]["seconds"] / 60 for fact in facts)
        assert line[heading.index("minutes")] == f"{minutes:.1f}"
        assert line[heading.index("epochs")] == str(row["seeds"][0]["epochs"])
        # A tiny budget makes EFNet small and leaves the others what they are.
        assert row["model"] == {"efnet_light": "efnet_tiny"}.get(row["row"], row["row"])


def test_measuring_is_interrupted(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.Trainer, "run", stop)
        with pytest.raises(KeyboardInterrupt, match="the same command starts anew"):
            run(tmp_path / "runs", scenes, table="rivals", rows=["mfnet"], plan=PLAN)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["experiment.json"]


def test_wrong_budgets(timed: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiment", "run", "rivals", "--root", str(scenes), "--out", str(tmp_path / "x")]
    for given, message in (
        (["--minutes", "0"], "--minutes 0: give more than 0"),
        (["--minutes", ".nan"], "--minutes nan: give more than 0"),
        (["--minutes", "3", "--epochs", "2"], "--minutes decides how many epochs there are"),
    ):
        assert main([*words, *given]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(InputError, match=r"minutes was 0\.02, now 5"):
        run(timed, scenes, table="rivals", rows=["mfnet"], plan=Plan(budget="tiny", minutes=5))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "pace.json").write_text('{"study": {"epochs": 3}}')
    (tmp_path / "runs" / "experiment.json").write_text(json.dumps(PLAN.to_dict()))
    with pytest.raises(InputError, match=r"pace\.json: damaged"):
        run(tmp_path / "runs", scenes, table="rivals", rows=["mfnet"], plan=PLAN)


def test_a_given_model_takes_the_place_of_efnet_alone() -> None:
    rows = {row.name: row for row in get_table("rivals").rows}
    for plan, light in ((Plan(model="efnet_base"), "efnet_base"), (Plan(budget="tiny"), "efnet_tiny")):
        names = {name: plan.config(row, 0, Path()).network.name for name, row in rows.items()}
        assert (names["efnet_light"], names["rgb"], names["cmx_b0"]) == (light, light, "cmx_b0")
    assert Plan(minutes=3).config(rows["mfnet"], 0, Path(), epochs=7).schedule.epochs == 7
