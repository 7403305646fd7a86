"""Rows of a table: run, stopped anywhere, gone on with, refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from experiment_helpers import PLAN, Listening, run
from safetensors.torch import load_file

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.core.files import write_json
from efnet.studies.experiments import run as module
from efnet.studies.experiments.paper_tables import get_table
from efnet.studies.experiments.plan import Plan, claim, read_plan
from efnet.training.validation import Validator

FIGURES = ("miou", "macc", "iou", "acc", "day", "night", "confusion", "trivial", "images", "data")


def figures(out: Path, row: str) -> dict[str, Any]:
    report = json.loads((out / row / "seed0" / "evaluation.json").read_text())
    return {key: report[key] for key in FIGURES}


def weights(out: Path, row: str) -> dict[str, torch.Tensor]:
    return load_file(out / row / "seed0" / "best" / "model.safetensors")


def losses(out: Path, row: str) -> list[tuple[float, float]]:
    lines = (out / row / "seed0" / "metrics.jsonl").read_text().splitlines()
    return [(values["loss"], values["lr"]) for values in map(json.loads, lines)]


def assert_same(ours: Path, theirs: Path, rows: tuple[str, ...] = ("mfnet_add",)) -> None:
    for row in rows:
        assert figures(ours, row) == figures(theirs, row)
        assert losses(ours, row) == losses(theirs, row)
        expected, resumed = weights(theirs, row), weights(ours, row)
        assert all(torch.equal(resumed[name], value) for name, value in expected.items())


def test_again_gives_the_same_bits(finished: Path, scenes: Path, tmp_path: Path) -> None:
    run(tmp_path / "runs", scenes, rows=["add"])
    assert_same(tmp_path / "runs", finished)
    assert figures(finished, "mfnet") != figures(finished, "mfnet_add")


def test_figures_are_those_of_evaluate(finished: Path, scenes: Path, tmp_path: Path) -> None:
    path, folder = tmp_path / "report.json", finished / "mfnet_add" / "seed0"
    words = ["--checkpoint", str(folder), "--dataset", "mfnet", "--root", str(scenes), "--json", str(path)]
    assert main(["evaluate", *words, "--device", "cpu", "--workers", "0"]) == 0
    ours = json.loads((folder / "evaluation.json").read_text())
    data, training = ours.pop("data"), ours.pop("training")
    assert ours == json.loads(path.read_text())
    assert data["test"]["pairs"] == 2
    assert training == {"recipe": "scratch", "epochs": 2, "batch_size": 4, "init": None, "seed": 0}


def test_what_is_done_is_skipped(finished: Path, scenes: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    heard = Listening()
    run(finished, scenes, heard)
    assert [line.partition(":")[0] for line in heard.lines] == [
        *("[1/2] table4 add, seed 0", "[2/2] table4 mif, seed 0")
    ]
    assert all("done before" in line for line in heard.lines)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_tables_share_the_full_model(finished: Path, scenes: Path) -> None:
    heard = Listening()
    run(finished, scenes, heard, table="table6", rows=["rising"])
    assert heard.lines == [f"[1/1] table6 rising, seed 0: done before ({finished / 'mfnet' / 'seed0'})"]


def stages(out: Path, root: Path) -> list[str]:
    """Of rows add and mif."""
    rows = get_table("table4").choose(["add", "mif"])
    return [
        module.Cell(row, 0, PLAN.config(row, 0, root), module.run_folder(out, row, 0)).stage() for row in rows
    ]


@pytest.mark.parametrize(
    ("moment", "stage"),
    [
        ("checking 2 pairs of mfnet val", "new"),  # before there is anything
        ("epoch 1/2", "begun"),
        ("epoch 2/2", "begun"),  # all epochs done, and no result
        ("evaluating on the test split", "trained"),
    ],
)
def test_stopped_within_a_row(finished: Path, scenes: Path, tmp_path: Path, moment: str, stage: str) -> None:
    """Wherever Ctrl-C comes, the same call ends in the same bits."""
    heard = Listening(lambda text: signal.raise_signal(signal.SIGINT) if moment in text else None)
    with pytest.raises(KeyboardInterrupt, match="what is done is saved, the same command goes on"):
        run(tmp_path / "runs", scenes, heard, rows=["add"])
    assert stages(tmp_path / "runs", scenes)[0] == stage
    again = Listening()
    run(tmp_path / "runs", scenes, again, rows=["add"])
    assert any("going on with" in line for line in again.lines) == (stage == "begun")
    assert_same(tmp_path / "runs", finished)
    folder = tmp_path / "runs" / "mfnet_add" / "seed0"
    assert json.loads((folder / "run.json").read_text())["result"]["best_epoch"] is not None
    (folder / "evaluation.json").unlink()
    assert stages(tmp_path / "runs", scenes)[0] == "trained"  # to be evaluated anew, not trained anew


def test_stopped_between_rows(finished: Path, scenes: Path, tmp_path: Path) -> None:
    def press(text: str) -> None:
        if text.startswith("[2/2]"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="table4 mif, seed 0; what is done is saved"):
        run(tmp_path / "runs", scenes, Listening(press))
    assert stages(tmp_path / "runs", scenes) == ["done", "new"]
    run(tmp_path / "runs", scenes)
    assert_same(tmp_path / "runs", finished, ("mfnet_add", "mfnet"))


def test_interrupted_within_validation(
    finished: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Validator.__call__

    def interrupted(self: Validator, *args: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Validator, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt, match="seed 0; what is done"):
            run(tmp_path / "runs", scenes, rows=["add"])
    run(tmp_path / "runs", scenes, rows=["add"])
    assert_same(tmp_path / "runs", finished)


def test_killed_before_there_was_a_state(finished: Path, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    shutil.copytree(finished, out)
    for leftover in ("evaluation.json", "run.json"):
        (out / "mfnet_add" / "seed0" / leftover).unlink()
    run(out, scenes)
    assert_same(out, finished)


def test_a_finished_run_keeps_its_checkpoint_alone(
    finished: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the state it is evaluated anew, not trained anew."""
    assert not list(finished.rglob("*.pt"))
    shutil.copytree(finished, tmp_path / "runs")
    (tmp_path / "runs" / "mfnet_add" / "seed0" / "evaluation.json").unlink()
    assert stages(tmp_path / "runs", scenes) == ["trained", "done"]
    heard = Listening()
    run(tmp_path / "runs", scenes, heard, rows=["add"])
    assert heard.lines == ["[1/1] table4 add, seed 0: evaluating on the test split"]
    assert_same(tmp_path / "runs", finished)
    state = tmp_path / "runs" / "mfnet_add" / "seed0" / "last" / "state.pt"
    state.write_bytes(b"of a process that was killed before it dropped it")
    run(tmp_path / "runs", scenes, rows=["add"])
    assert not state.exists()
    words = ["train", "--out", str(state.parent.parent)]
    assert main([*words, "--resume"]) == 2
    assert "a finished run whose state was dropped" in capsys.readouterr().err
    assert main([*words, "--dataset", "mfnet", "--root", str(scenes)]) == 2
    assert "holds a finished run; choose another --out" in capsys.readouterr().err
    assert_same(tmp_path / "runs", finished)


def test_a_file_that_is_missing_for_a_while(finished: Path, scenes: Path, tmp_path: Path) -> None:
    """An error within a row names the row and the file; once mended, the same call goes on."""
    root = tmp_path / "data"
    shutil.copytree(scenes, root)
    image = root / "images" / f"{(root / 'train.txt').read_text().split()[0]}.png"
    hidden = tmp_path / "hidden.png"

    def hide(text: str) -> None:
        if "epochs of" in text:  # looked through, and about to be read
            image.rename(hidden)

    with pytest.raises(InputError, match=rf"(?s)\[1/1\] table4 add, seed 0: .*{image.name}"):
        run(tmp_path / "runs", root, Listening(hide), rows=["add"])
    hidden.rename(image)
    run(tmp_path / "runs", root, rows=["add"])
    assert_same(tmp_path / "runs", finished)


def test_missing_test_split_shows_before_training(scenes: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(scenes, root)
    (root / "test.txt").unlink()
    with pytest.raises(InputError, match=r"test\.txt"):
        run(tmp_path / "runs", root)
    assert not list(tmp_path.glob("runs/*/seed0"))


def test_a_moved_data_set_is_none_of_its_business(finished: Path, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes, tmp_path / "moved")
    shutil.copytree(finished, tmp_path / "runs")
    heard = Listening()
    run(tmp_path / "runs", tmp_path / "moved", heard)
    assert all("done before" in line for line in heard.lines)


def test_changes_are_refused(finished: Path, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    shutil.copytree(finished, out)
    longer = dataclasses.replace(PLAN, epochs=9, model="efnet_light")
    with pytest.raises(InputError, match=r"model was None, now efnet_light, epochs was 2, now 9"):
        run(out, scenes, plan=longer)
    config = out / "mfnet" / "seed0" / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.0015", "lr: 0.5"))
    with pytest.raises(InputError, match=r"mfnet/seed0: .*optimizer\.lr was 0\.5, now 0\.0015"):
        run(out, scenes)
    assert not (out / "mfnet_cat").exists()


def test_one_network_starts_from_the_same_weights_in_a_folder(tmp_path: Path) -> None:
    """Tables that share it may have other networks; what decides is what its runs were."""
    claim(tmp_path, Plan(init={"efnet_light": "wrong.pth"}))  # and no run came of it
    for config, network in (("mfnet", ("efnet_light", "t.pth")), ("mfnet_lasnet", ("lasnet", None))):
        name, init = network
        (tmp_path / config / "seed0").mkdir(parents=True)
        write_yaml(tmp_path / config / "seed0" / "config.yaml", {"network": {"name": name, "init": init}})
    manifest = (tmp_path / "experiment.json").read_bytes()
    claim(tmp_path, Plan(init={"rtfnet152": None, "efnet_light": "t.pth"}))
    claim(tmp_path, Plan(init={"lasnet": None}))
    own = {"network": {"name": "efnet_edge", "init": "imagenet"}}  # the row names its weights itself
    (tmp_path / "rivals_efnet_edge_imagenet" / "seed0").mkdir(parents=True)
    write_yaml(tmp_path / "rivals_efnet_edge_imagenet" / "seed0" / "config.yaml", own)
    claim(tmp_path, Plan(init={"efnet_edge": None}))
    assert (tmp_path / "experiment.json").read_bytes() == manifest
    with pytest.raises(
        InputError, match=r"\(init of efnet_light was t\.pth, now fresh\); go on as they began"
    ):
        claim(tmp_path, Plan(init={"efnet_light": None, "lasnet": None}))
    with pytest.raises(InputError, match=r"\(epochs was None, now 3, init of lasnet was fresh, now r\.pth\)"):
        claim(tmp_path, Plan(init={"lasnet": "r.pth"}, epochs=3))


def test_manifests_from_before_weights_were_named_by_network(tmp_path: Path) -> None:
    write_json(tmp_path / "experiment.json", Plan(epochs=3).to_dict() | {"init": "t.pth"})
    assert read_plan(tmp_path) == Plan(epochs=3)


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(values))


def test_a_plan_without_runs_may_change(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        run(tmp_path / "runs", tmp_path / "nowhere")
    with pytest.raises(InputError, match="no model 'efnet_huge'"):
        run(tmp_path / "runs", scenes, plan=dataclasses.replace(PLAN, model="efnet_huge"))


def test_folders_of_others_are_refused(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="holds other files"):
        run(tmp_path, scenes)
    with pytest.raises(InputError, match="is a file"):
        run(tmp_path / "thesis.tex", scenes)


@pytest.mark.parametrize("seeds", [(), (0, 0), (-1,)])
def test_wrong_seeds(scenes: Path, tmp_path: Path, seeds: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="give different numbers, each 0 or more"):
        run(tmp_path / "runs", scenes, seeds=seeds)
    assert not (tmp_path / "runs").exists()


def test_plans() -> None:
    [full] = get_table("table2").choose(["efnet"])
    plan = Plan(model="efnet_base", init={"efnet_base": "weights.pth"}, epochs=7)
    config = plan.config(full, 3, Path("data"))
    assert (config.network.name, config.network.init, config.schedule.epochs) == (
        "efnet_base",
        "weights.pth",
        7,
    )
    assert (config.data.dataset, config.data.root, config.seed) == ("pst900", "data", 3)
    assert Plan(size=(96, 128)).config(full, 0, Path()).data.size == (96, 128)
    assert Plan().config(full, 0, Path(), workers=2) == full.load()
    tiny = Plan(budget="tiny", generated=True).config(full, 0, Path("data"))
    assert (tiny.data.dataset, tiny.network.name, tiny.validation.protocol) == (
        "mfnet",
        "efnet_tiny",
        "native",
    )
    with pytest.raises(InputError, match="give `root`"):
        Plan(generated=True)
    with pytest.raises(InputError, match="`recipe` goes with the full budget"):
        Plan(budget="tiny", recipe="paper")
    with pytest.raises(InputError, match="`epochs` 0"):
        Plan(epochs=0)
