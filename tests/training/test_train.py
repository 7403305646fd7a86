"""A run from start to end, interrupted and resumed."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import efnet
from efnet.core.errors import InputError
from efnet.models import SegmentationModel
from efnet.models.checkpoint import load_checkpoint
from efnet.training import Interrupted, TrainConfig, get_recipe, train
from efnet.training.config import (
    DataConfig,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    ValidationConfig,
)
from efnet.training.logs import Reporter, Steps
from efnet.training.run_folder import RunFolder
from efnet.training.state import read_state
from efnet.training.validation import Validator


def config(scenes: Path, **changes: Any) -> TrainConfig:
    base = TrainConfig(
        data=DataConfig(dataset="mfnet", root=str(scenes), size=(64, 96), batch_size=2, workers=0),
        network=NetworkConfig(name="efnet_tiny", drop_path=0.1),
        optimizer=OptimizerConfig(lr=1e-3),
        schedule=ScheduleConfig(epochs=2, warmup_epochs=0),
        validation=ValidationConfig(samples=1),
        device="cpu",
    )
    return dataclasses.replace(base, **changes)


QUIET = Reporter(quiet=True)


class InterruptAfter(Reporter):
    """Presses Ctrl-C after so many batches."""

    def __init__(self, batches: int) -> None:
        super().__init__(quiet=True)
        self.batches = batches

    def steps(self, total: int, done: int) -> Any:
        manager = super().steps(total, done)
        outer = self

        class Counting:
            def __enter__(self) -> Any:
                self.steps = manager.__enter__()
                return self

            def __exit__(self, *error: Any) -> Any:
                return manager.__exit__(*error)

            def advance(self, *values: Any) -> None:
                Steps.advance(self.steps, *values)
                outer.batches -= 1
                if outer.batches == 0:
                    signal.raise_signal(signal.SIGINT)

        return Counting()


@pytest.fixture(scope="module")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    summary = train(config(scenes), out, reporter=QUIET)
    assert (summary.epochs, summary.out) == (2, out)
    return out


def weights(out: Path) -> dict[str, Tensor]:
    state = read_state(out / "last" / "state.pt")
    model: dict[str, Tensor] = state["model"]
    return model


def test_run_folder_describes_itself(finished: Path, scenes: Path) -> None:
    facts = json.loads((finished / "run.json").read_text())
    assert facts["data"]["train"]["pairs"] == 6
    assert len(facts["data"]["val"]["sha256"]) == 64
    assert facts["environment"]["torch"] == torch.__version__
    assert facts["result"]["best_epoch"] in (1, 2)
    assert facts["parameters"] == sum(p.numel() for p in efnet.create_model("efnet_tiny").parameters())
    with open(finished / "metrics.csv", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["loss"]) > 0 and 0 <= float(row["val_miou"]) <= 1 for row in rows)
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert set(lines[0]["val_iou"]) >= {"car", "person"}
    assert {"val_day", "val_night"} <= set(lines[0])
    assert len(list((finished / "samples").glob("*.jpg"))) == 2
    assert list((finished / "tensorboard").iterdir())
    assert yaml.safe_load((finished / "config.yaml").read_text())["data"]["root"] == str(scenes)


def test_best_checkpoint_is_the_best_epoch(finished: Path) -> None:
    model = load_checkpoint(finished)
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda line: line["val_miou"])
    assert model.training_summary["epoch"] == best["epoch"]
    assert model.training_summary["selection_miou"] == best["val_miou"]
    assert model.training_summary["selected_on"] == "val"
    assert model.input.size == (64, 96)
    assert model.classes.names[1] == "car"


@pytest.mark.parametrize("batches", [1, 3, 4])
def test_interrupted_run_resumes_bit_for_bit(
    finished: Path, scenes: Path, tmp_path: Path, batches: int
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match="`resume`"):
        train(config(scenes), out, reporter=InterruptAfter(batches))
    summary = train(config(scenes), out, resume=True, reporter=QUIET)
    assert summary.epochs == 2
    expected, resumed = weights(finished), weights(out)
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())
    keep = ("epoch", "loss", "lr", "val_miou", "val_iou")
    for folder in (finished, out):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2]
    ours, theirs = (
        [{key: json.loads(line)[key] for key in keep} for line in (folder / "metrics.jsonl").open()]
        for folder in (out, finished)
    )
    assert ours == theirs


@pytest.mark.parametrize("moment", ["in the optimizer's step", "in validation", "while the best is written"])
def test_interruption_at_a_bad_moment(
    finished: Path, scenes: Path, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is half done, wherever the signal comes: the resumed run ends in the same bits."""
    owner, name = {
        "in the optimizer's step": (torch.optim.AdamW, "step"),
        "in validation": (Validator, "__call__"),
        "while the best is written": (SegmentationModel, "write"),
    }[moment]
    original = getattr(owner, name)

    def interrupted(self: Any, *args: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return original(self, *args, **options)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        with pytest.raises(Interrupted):
            train(config(scenes), out, reporter=QUIET)
    train(config(scenes), out, resume=True, reporter=QUIET)
    expected, resumed = weights(finished), weights(out)
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())
    best, theirs = load_checkpoint(out), load_checkpoint(finished)
    assert best.training_summary == theirs.training_summary
    assert all(torch.equal(value, best.state_dict()[key]) for key, value in theirs.state_dict().items())


def test_file_that_vanishes_during_the_run(scenes: Path, tmp_path: Path) -> None:
    """A clear error without a worker's traceback, and the run goes on once the file is back."""
    root = tmp_path / "data"
    shutil.copytree(scenes, root)
    gone = root / "images" / f"{(root / 'train.txt').read_text().split()[0]}.png"

    class Vanishing(Reporter):
        def say(self, text: str) -> None:
            if "epochs of" in text:
                gone.rename(tmp_path / "kept.png")

    two_workers = dataclasses.replace(config(root).data, workers=2)
    with pytest.raises(InputError, match=gone.name) as caught:
        train(config(root, data=two_workers), tmp_path / "run", reporter=Vanishing(quiet=True))
    assert "Traceback" not in str(caught.value)
    (tmp_path / "kept.png").rename(gone)
    assert train(config(root), tmp_path / "run", resume=True, reporter=QUIET).epochs == 2


def test_workers_do_not_change_the_run(finished: Path, scenes: Path, tmp_path: Path) -> None:
    with_workers = dataclasses.replace(config(scenes).data, workers=2, cache=True)
    train(config(scenes, data=with_workers), tmp_path / "run", reporter=QUIET)
    expected, other = weights(finished), weights(tmp_path / "run")
    assert all(torch.equal(other[name], value) for name, value in expected.items())


def test_finished_run_is_not_resumed_but_may_grow(finished: Path, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    with pytest.raises(InputError, match="all 2 epochs are done"):
        train(config(scenes), out, resume=True, reporter=QUIET)
    longer = config(scenes, schedule=ScheduleConfig(epochs=3, warmup_epochs=0))
    assert train(longer, out, resume=True, reporter=QUIET).epochs == 3


def test_changed_data_is_noticed(scenes: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(scenes, root)
    with pytest.raises(Interrupted):
        train(config(root), tmp_path / "run", reporter=InterruptAfter(1))
    names = (root / "train.txt").read_text().split()
    shutil.copy(root / "labels" / f"{names[0]}.png", root / "labels" / f"{names[1]}.png")
    with pytest.raises(InputError, match="not what this run began with"):
        train(config(root), tmp_path / "run", resume=True, reporter=QUIET)


def test_what_cannot_start_or_resume(finished: Path, scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a run already"):
        train(config(scenes), finished, reporter=QUIET)
    with pytest.raises(InputError, match="no run to resume"):
        train(config(scenes), tmp_path / "none", resume=True, reporter=QUIET)
    broken = tmp_path / "broken"
    folder = RunFolder(broken)
    folder.write_config(config(scenes))
    folder.state.parent.mkdir()
    folder.state.write_bytes(b"not a state")
    with pytest.raises(InputError, match=r"cannot be resumed .*state\.pt"):
        train(config(scenes), broken, resume=True, reporter=QUIET)


def test_faulty_data_is_named_before_training(scenes: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(scenes, root)
    names = (root / "train.txt").read_text().split()
    (root / "labels" / f"{names[0]}.png").unlink()
    (root / "images" / f"{names[1]}.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        train(config(root), tmp_path / "run", reporter=QUIET)
    assert names[0] in str(caught.value)
    assert names[1] in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_start_from_a_checkpoint_with_other_classes(finished: Path, scenes: Path, tmp_path: Path) -> None:
    from efnet.core.classes import ClassSet
    from efnet.training.step import build_network

    network, report = build_network(NetworkConfig(name="efnet_tiny", init=str(finished)), ClassSet.generic(4))
    assert report is not None
    assert "left over 1" in str(report)
    assert report.fresh == ("decoder.class_tokens",)
    _, report = build_network(NetworkConfig(name="efnet_tiny", init=str(finished)), ClassSet.generic(9))
    assert report is not None
    assert report.fresh == ("decoder.class_tokens",), "as many classes, but others"
    given = load_checkpoint(finished)
    assert torch.equal(network.state_dict()["rgb.norm.weight"], given.state_dict()["rgb.norm.weight"])
    with pytest.raises(InputError, match="another network size"):
        build_network(NetworkConfig(name="efnet_light", init=str(finished)), given.classes)


def test_divergence_stops_and_names_the_pairs(scenes: Path, tmp_path: Path) -> None:
    wild = config(scenes, optimizer=OptimizerConfig(lr=1e30), validation=ValidationConfig(every=2))
    with pytest.raises(InputError, match="loss is not finite in 3 steps in succession") as caught:
        train(wild, tmp_path / "run", reporter=QUIET)
    assert (tmp_path / "run" / "last" / "state.pt").is_file()
    assert any(name in str(caught.value) for name in (scenes / "train.txt").read_text().split())


def test_bfloat16_trains(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    short = config(scenes, precision="bf16", schedule=ScheduleConfig(epochs=1))
    assert train(short, out, reporter=QUIET).best_miou >= 0
    assert all(value.dtype != torch.bfloat16 for value in weights(out).values())


def test_recipes() -> None:
    paper = get_recipe("paper")
    assert (paper.optimizer.lr, paper.optimizer.weight_decay) == (6e-5, 0.01)
    assert (paper.data.size, paper.data.batch_size) == ((480, 640), 2)
    assert paper.network.name == "efnet_light"
    with pytest.raises(InputError, match="paper"):
        get_recipe("secret")


def test_configuration_refuses_nonsense() -> None:
    with pytest.raises(InputError, match="seed"):
        TrainConfig(seed=-1)
    with pytest.raises(InputError, match=r"data\.thermal_scale"):
        DataConfig(thermal_scale=(200.0, 100.0))
    with pytest.raises(InputError, match=r"optimizer\.lr"):
        OptimizerConfig(lr=0)
    with pytest.raises(InputError, match=r"data\.size"):
        DataConfig(size=(16, 64))
    with pytest.raises(InputError, match=r"schedule\.epochs"):
        ScheduleConfig(epochs=0)
