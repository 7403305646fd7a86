"""Trackers of a run, each read back from the files that it leaves without a network."""

from __future__ import annotations

import csv
import json
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_network import Small
from test_from_python import NAME, options, words

import efnet
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.training import tracking

assert Small


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def end_after(epochs: int) -> dict[str, Any]:
    """A callback that ends a run in the middle, so that it is continued later."""
    return {"on_epoch_end": lambda end: end.epoch == epochs}


def test_mlflow_and_csv_follow_one_run_over_a_resumption(scenes: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    given = options(scenes, epochs=3, tracker=["mlflow", "csv"], lr=1e-3, validation={"samples": 1})
    first = efnet.train(**given, out=tmp_path / "run", **end_after(2))
    efnet.train(out=first.out, resume=True, quiet=True)
    history = first.history
    assert len(history) == 3

    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    (experiment,) = [entry for entry in client.search_experiments() if entry.name == "efnet"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.info.run_id == first.facts["trackers"]["mlflow"]
    assert run.data.params["optimizer.lr"] == "0.001"
    curve = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in curve] == [(row["epoch"], row["loss"]) for row in history]
    files = {entry.path for entry in client.list_artifacts(run.info.run_id, "checkpoint")}
    assert files == {"checkpoint/config.json", "checkpoint/model.safetensors", "checkpoint/README.md"}
    assert len(client.list_artifacts(run.info.run_id, "samples")) == 3

    with open(tmp_path / "run" / "csv" / "metrics.csv", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [float(row["val_miou"]) for row in rows] == [row["val_miou"] for row in history]
    assert [int(row["step"]) for row in rows] == [1, 2, 3]


def records(log: bytes) -> Iterator[bytes]:
    """The records of an offline file of W&B: LevelDB's log format after a header of seven bytes."""
    assert log.startswith(b":W&B")
    place, whole = 7, b""
    while place + 7 <= len(log):
        if 32768 - place % 32768 < 7:  # a header does not cross blocks
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", log[place : place + 7])
        if not kind:
            break
        whole += log[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


@pytest.mark.slow
def test_wandb_offline_follows_one_run_over_a_resumption(scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    out = tmp_path / "run"
    track = ["--tracker", "wandb", "--track.project", "streets", "--track.name", "first"]
    assert main(words(scenes, out, "--model", NAME, "--epochs", "2", "--lr", "0.001", *track)) == 0
    assert main(["train", "--out", str(out), "--resume", "--quiet", "--epochs", "3"]) == 0
    folders = sorted((out / "wandb").glob("offline-run-*"))
    assert len(folders) == 2  # one for each process; synchronising them gives one run
    losses, runs, pictures, artifacts, settings = [], set(), 0, 0, {}
    for folder in folders:
        (file,) = folder.glob("*.wandb")
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                runs.add((record.run.run_id, record.run.project, record.run.display_name))
                settings |= {entry.key: entry.value_json for entry in record.run.config.update}
            elif kind == "config":
                settings |= {entry.key: entry.value_json for entry in record.config.update}
            elif kind == "artifact":
                artifacts += 1
            elif kind == "history":
                items = {
                    "/".join(item.nested_key) or item.key: item.value_json for item in record.history.item
                }
                if "loss" in items:
                    losses.append((int(items["trainer/global_step"]), float(items["loss"])))
                pictures += any(name.startswith("validation") for name in items)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert losses == [(row["epoch"], pytest.approx(row["loss"])) for row in rows]
    identifier = json.loads((out / "run.json").read_text())["trackers"]["wandb"]
    assert runs == {(identifier, "streets", "first")}
    assert float(settings["optimizer.lr"]) == 0.001
    assert pictures == 3
    assert artifacts == 2


def test_tensorboard_holds_curves_pictures_and_options(scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = efnet.train(**options(scenes, epochs=2, tracker=["tensorboard"]), out=tmp_path / "run")
    events = EventAccumulator(str(run.out / "tensorboard"), size_guidance={"images": 0}).Reload()
    points = [(event.step, event.value) for event in events.Scalars("loss")]
    assert points == [(row["epoch"], pytest.approx(row["loss"])) for row in run.history]
    assert "val_iou/car" in events.Tags()["scalars"]
    assert [event.step for event in events.Images("validation")] == [1, 2]


def test_a_missing_package_names_the_extra(
    scenes: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    real = tracking.importlib.import_module

    def without(name: str) -> Any:
        if name in ("wandb", "mlflow", "tensorboard"):
            raise ImportError(f"No module named '{name}'")
        return real(name)

    monkeypatch.setattr(tracking.importlib, "import_module", without)
    for name, extra in (("wandb", "track"), ("mlflow", "track"), ("tensorboard", "tensorboard")):
        assert main(words(scenes, tmp_path / "run", "--model", NAME, "--tracker", name)) == 2
        assert f"pip install 'efnet[{extra}]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    # By itself a run does without.
    assert main(words(scenes, tmp_path / "run", "--model", NAME, "--epochs", "1")) == 0
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_tracker_that_fails_costs_no_run(
    scenes: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    class Broken:
        def log_hyperparams(self, values: Any) -> None:
            pass

        def log_metrics(self, figures: Any, step: int) -> None:
            raise ConnectionError("the server went away")

    monkeypatch.setitem(tracking._START, "csv", lambda config, folder, known: (Broken(), None))
    given = {**options(scenes, epochs=2, tracker=["csv"]), "quiet": False}
    run = efnet.train(**given, out=tmp_path / "run")
    assert run.epochs == 2
    printed = capsys.readouterr().err
    assert printed.count("csv: ConnectionError: the server went away; the run goes on") == 1


def test_a_tracker_that_cannot_start_is_an_error(scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    given = options(scenes, epochs=1, tracker=["mlflow"], track={"address": "nonsense://server"})
    with pytest.raises(InputError, match=r"`track.trackers` mlflow: cannot be started"):
        efnet.train(**given, out=tmp_path / "run")


def test_trackers_in_a_file(scenes: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("track: {trackers: [csv], project: streets}\n")
    out = tmp_path / "run"
    assert main(words(scenes, out, "--model", NAME, "--epochs", "1", "--config", str(file))) == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["track"]["trackers"] == ["csv"]
    assert (out / "csv" / "metrics.csv").is_file()
