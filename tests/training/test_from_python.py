"""`efnet.train`, `efnet.evaluate` and `efnet.export` beside the commands; callbacks, early ends, own data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_network import Small

import efnet
from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError, ManyInputsError
from efnet.data.items import item_set
from efnet.data.layouts import open_split
from efnet.data.sample import read_sample
from efnet.inference.tiles import Tiling
from efnet.models.checkpoint import load_checkpoint
from efnet.training import TrainConfig, get_recipe
from efnet.training.config import LossConfig, ValidationConfig, flatten, to_values
from efnet.training.options import SHORT, make_config, place_of
from efnet.training.state import Progress, read_state
from efnet.training.stopping import EpochEnd, Validated, early_stop

NAME = "small_of_tests"
assert Small


def words(scenes: Path, out: Path, *more: str) -> list[str]:
    shared = ["train", "--dataset", "mfnet", "--root", str(scenes), "--size", "64x96", "--workers", "0"]
    return [*shared, "--batch-size", "2", "--device", "cpu", "--quiet", "--out", str(out), *more]


def options(scenes: Path, **more: Any) -> dict[str, Any]:
    shared = {"dataset": "mfnet", "root": scenes, "size": (64, 96), "workers": 0, "batch_size": 2}
    return {**shared, "device": "cpu", "quiet": True, "model": NAME, **more}


def same_bits(one: Path, other: Path) -> bool:
    ours, theirs = (load_checkpoint(folder).state_dict() for folder in (one, other))
    return all(torch.equal(theirs[name], value) for name, value in ours.items())


def test_the_same_run_as_the_command(scenes: Path, tmp_path: Path) -> None:
    command, python = tmp_path / "command", tmp_path / "python"
    assert main(words(scenes, command, "--model", "efnet_tiny", "--epochs", "1", "--loss.dice", "0.5")) == 0
    run = efnet.train(**options(scenes, model="efnet_tiny", epochs=1, loss={"dice": 0.5}, out=python))
    assert same_bits(command, python)
    assert (command / "config.yaml").read_text() == (python / "config.yaml").read_text()
    states = [read_state(folder / "last" / "state.pt")["model"] for folder in (command, python)]
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())
    assert (run.out, run.checkpoint, run.epochs) == (python, python / "best", 1)
    assert run.miou == run.history[-1]["val_miou"] == run.facts["result"]["best_miou"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.epochs = 3  # type: ignore[misc]

    test = ["--dataset", "mfnet", "--root", str(scenes), "--workers", "0", "--device", "cpu"]
    report = tmp_path / "report.json"
    assert main(["evaluate", "--checkpoint", str(python), *test, "--json", str(report)]) == 0
    found = efnet.evaluate(
        python, dataset="mfnet", root=scenes, split="test", workers=0, device="cpu", quiet=True
    )
    found.save(tmp_path / "ours.json")
    assert (tmp_path / "ours.json").read_bytes() == report.read_bytes()
    values = json.loads(report.read_text())
    assert found.miou == values["miou"]
    assert dict(found.iou) == values["iou"]
    assert found.confusion.tolist() == values["confusion"]
    assert str(found).startswith(f"mIoU {100 * values['miou']:.2f}")


def test_a_predictor_can_be_evaluated_with_its_settings(scenes: Path, tmp_path: Path) -> None:
    run = efnet.train(**options(scenes, epochs=1, out=tmp_path / "run"))
    predictor = efnet.Predictor.from_pretrained(run.checkpoint, "cpu")
    settings: dict[str, Any] = {"dataset": "mfnet", "root": scenes, "workers": 0, "quiet": True}
    by_path = efnet.evaluate(run.out, tile=(32, 64), device="cpu", **settings)
    predictor.tiling = Tiling((32, 64), 16)
    assert efnet.evaluate(predictor, **settings).confusion.tolist() == by_path.confusion.tolist()
    assert by_path.report["protocol"]["tile"] == [32, 64, 16]
    with pytest.raises(InputError, match="leave out `size`"):
        efnet.evaluate(run.out, tile=(32, 64), size=(64, 96), **settings)
    with pytest.raises(InputError, match="height, width"):
        efnet.evaluate(run.out, size="64x96", **settings)
    with pytest.raises(InputError, match="`batch_size` 0"):
        efnet.evaluate(run.out, batch_size=0, **settings)


def test_export_is_a_function_whatever_was_imported_before(scenes: Path, tmp_path: Path) -> None:
    import efnet.export.export

    run = efnet.train(**options(scenes, epochs=1, out=tmp_path / "run"))
    steps: list[str] = []
    exported = efnet.export(run.out, out=tmp_path / "net.pt2", size=(64, 96), on_step=steps.append)
    assert exported.path == tmp_path / "net.pt2"
    assert exported.agreement >= 0.99
    assert len(steps) == 3
    figures = [
        efnet.evaluate(source, dataset="mfnet", root=scenes, workers=0, device="cpu", quiet=True).miou
        for source in (run.out, exported.path)
    ]
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)
    with pytest.raises(InputError, match=r"`out` .*ends in"):
        efnet.export(run.out, out=tmp_path / "net.bin")
    with pytest.raises(InputError, match="is an exported file"):
        efnet.export(exported.path, out=tmp_path / "again.pt2")


# --- options --------------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(st.data())
def test_options_by_short_name_and_by_place_mean_the_same(data: st.DataObject) -> None:
    flat = flatten(to_values(TrainConfig()))
    for short, place in SHORT.items():
        assert place in flat
        assert place_of(short.replace("-", "_")) == place_of(place) == place
    lr = data.draw(st.floats(1e-6, 1.0))
    epochs = data.draw(st.integers(1, 500))
    base = get_recipe("scratch")
    config = make_config(base, {"lr": lr, "epochs": epochs})
    assert config == make_config(base, {"optimizer.lr": lr, "schedule": {"epochs": epochs}})
    assert (config.optimizer.lr, config.schedule.epochs) == (lr, epochs)
    assert dataclasses.replace(config, optimizer=base.optimizer, schedule=base.schedule) == base


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bath_size": 4}, r"no option 'bath_size'; did you mean `batch_size`"),
        ({"optimizer": {"lrr": 1}}, r"no option 'optimizer.lrr'; did you mean `optimizer.lr`"),
        ({"lr": "fast"}, r"optimizer.lr"),
        ({"lr": -1.0}, r"optimizer.lr is -1.0; give a positive number"),
        ({"size": (16, 16)}, r"data.size is 16x16"),
        ({"early_stopping": 0}, r"validation.early_stopping is 0"),
        ({"tracker": ["wandb", "wandb"]}, r"each tracker once"),
        ({"tracker": "aim"}, r"`track.trackers`: expected one of 'tensorboard', .* or null, got \['aim'\]$"),
        ({"size": "64 by 96"}, r"`data.size`: expected a list, got 64 by 96$"),
        ({"size": (64,)}, r"`data.size`: expected a tuple with 2 elements, got \[64\]$"),
        (
            {"loss.class_weights": "x"},
            r"`loss.class_weights`: expected one of 'enet', 'median' or a list or null, got x$",
        ),
        ({"epochs": 2.5}, r"`schedule.epochs`: expected a whole number, got 2.5$"),
    ],
)
def test_wrong_options_name_the_remedy(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        efnet.train(out=tmp_path / "run", dataset="mfnet", root=tmp_path, **given)
    assert not (tmp_path / "run").exists()


def test_a_configuration_object_is_taken(scenes: Path, tmp_path: Path) -> None:
    given = options(scenes, epochs=1, loss=LossConfig(dice=1.0))
    quiet = {"quiet": given.pop("quiet")}
    config = make_config(TrainConfig(), given)
    assert config.loss.dice == 1.0
    first = efnet.train(config, out=tmp_path / "a", **quiet)
    second = efnet.train(out=tmp_path / "b", **given, **quiet)
    assert same_bits(first.out, second.out)
    with pytest.raises(InputError, match="not both"):
        efnet.train(config, recipe="paper", out=tmp_path / "c")
    with pytest.raises(InputError, match="leave `config` and `recipe`"):
        efnet.train(config, resume=True, out=tmp_path / "a")


# --- callbacks and early ends ---------------------------------------------------------------------------


def test_callbacks_see_the_run_and_may_end_it(scenes: Path, tmp_path: Path) -> None:
    seen: list[Any] = []

    def on_validation(validated: Validated) -> None:
        seen.append(("validation", validated.epoch, validated.miou, validated.is_best))
        assert (validated.checkpoint / "config.json").is_file()
        assert validated.report["miou"] == validated.miou

    def on_epoch_end(end: EpochEnd) -> bool:
        seen.append(("epoch", end.epoch, end.epochs, end.row["loss"]))
        return np.bool_(end.epoch == 3) if end.epoch == 3 else end.row["loss"]  # type: ignore[return-value]

    run = efnet.train(
        **options(scenes, epochs=9, val_every=2, lr=1e-3),
        out=tmp_path / "run",
        on_validation=on_validation,
        on_epoch_end=on_epoch_end,
    )
    # The third epoch is the last one, so it is validated, after its callback.
    assert [entry[:2] for entry in seen] == [
        ("epoch", 1),
        ("validation", 2),
        ("epoch", 2),
        ("epoch", 3),
        ("validation", 3),
    ]
    assert run.epochs == 3
    assert run.stopped == "on_epoch_end asked for it in epoch 3"
    assert run.facts["result"]["stopped"] == run.stopped
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    longer = efnet.train(out=run.out, resume=True, epochs=9, quiet=True, workers=0)
    assert (longer.epochs, longer.stopped) == (9, None)


def test_an_error_in_a_callback_keeps_the_epoch(scenes: Path, tmp_path: Path) -> None:
    def fail(_: EpochEnd) -> None:
        raise ZeroDivisionError("of the user")

    given = options(scenes, epochs=2, lr=1e-3)
    with pytest.raises(ZeroDivisionError):
        efnet.train(**given, out=tmp_path / "run", on_epoch_end=fail)
    resumed = efnet.train(out=tmp_path / "run", resume=True, quiet=True)
    whole = efnet.train(**given, out=tmp_path / "whole")
    assert same_bits(resumed.out, whole.out)
    ours, theirs = ([row["loss"] for row in run.history] for run in (resumed, whole))
    assert ours == theirs


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 4))
def test_early_stopping_counts_validations_since_the_best(scores: list[float], patience: int) -> None:
    progress, config = Progress(), ValidationConfig(early_stopping=patience)
    for epoch, score in enumerate(scores, 1):
        if score > progress.best_miou:
            progress.best_miou, progress.best_epoch, progress.stale = score, epoch, 0
        else:
            progress.stale += 1
        since = epoch - 1 - scores[:epoch].index(max(scores[:epoch]))
        assert (early_stop(config, progress) is not None) == (since >= patience)
        assert early_stop(ValidationConfig(), progress) is None


def test_a_run_without_improvement_ends_and_stays_ended(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    # At this rate nothing changes, so no validation is better than the first.
    assert (
        main(words(scenes, out, "--model", NAME, "--epochs", "20", "--lr", "1e-12", "--early-stopping", "2"))
        == 0
    )
    facts = json.loads((out / "run.json").read_text())
    assert facts["result"]["epochs"] == 3
    assert facts["result"]["stopped"] == "no better mIoU in 2 validations after epoch 1"
    with pytest.raises(InputError, match=r"ended early .*larger `early_stopping`"):
        efnet.train(out=out, resume=True, quiet=True)
    assert main(["train", "--out", str(out), "--resume", "--quiet", "--early-stopping", "4"]) == 0
    assert json.loads((out / "run.json").read_text())["result"]["epochs"] == 5


# --- own data -------------------------------------------------------------------------------------------


class Pairs(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """The pairs of a split, as a user may hold them; `form` is one of the accepted kinds."""

    def __init__(self, root: Path, split: str, form: str = "tensor") -> None:
        self.split, self.form = open_split("mfnet", root, split), form

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, number: int) -> Any:
        sample = read_sample(self.split.pairs[number], self.split.classes)
        assert sample.label is not None
        if self.form == "picture":
            levels = np.rint(sample.thermal * 255).astype(np.uint8)
            return tuple(map(Image.fromarray, (sample.rgb, levels, sample.label)))
        rgb = torch.from_numpy(sample.rgb.transpose(2, 0, 1).copy()) / 255
        label = torch.from_numpy(sample.label.astype(np.int64))
        return rgb, torch.from_numpy(sample.thermal)[None], label


@pytest.mark.parametrize("form", ["tensor", "picture"])
def test_a_torch_dataset_trains_as_the_files_it_was_made_from(
    scenes: Path, tmp_path: Path, form: str
) -> None:
    classes = open_split("mfnet", scenes, "train").classes
    given = options(scenes, epochs=2, protocol="native", loss={"class_weights": "enet"}, workers=0)
    files = efnet.train(**given, out=tmp_path / "files")
    for name in ("dataset", "root"):
        del given[name]
    sets = Pairs(scenes, "train", form), Pairs(scenes, "val", form)
    run = efnet.train(**given, dataset=sets[0], val_dataset=sets[1], classes=classes, out=tmp_path / "own")
    assert same_bits(files.out, run.out)
    entry = run.facts["data"]["train"]
    assert entry["object"].endswith("Pairs")
    assert "not recorded" in entry["note"]
    assert (run.out / "samples" / "epoch_0001.jpg").is_file()
    with pytest.raises(InputError, match="object of Python"):
        main_or_raise(["train", "--out", str(run.out), "--resume", "--epochs", "3"])
    with pytest.raises(InputError, match="give it again as `dataset`"):
        efnet.train(out=run.out, resume=True, epochs=3, quiet=True)
    again = efnet.train(
        out=run.out, resume=True, epochs=3, quiet=True, dataset=sets[0], val_dataset=sets[1], classes=classes
    )
    assert again.epochs == 3
    ours = efnet.evaluate(run.out, dataset=Pairs(scenes, "test", form), workers=0, device="cpu", quiet=True)
    theirs = efnet.evaluate(
        run.out, dataset="mfnet", root=scenes, protocol="native", workers=0, device="cpu", quiet=True
    )
    assert ours.confusion.tolist() == theirs.confusion.tolist()


def main_or_raise(command: list[str]) -> None:
    """Run a command; raise the error that it would print."""
    from efnet.cli import main as module

    module._run(command[0], command[1:])


GOOD = (np.zeros((40, 48, 3), np.uint8), np.zeros((40, 48), np.float32), np.zeros((40, 48), np.int64))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, np.zeros((40, 48), np.uint8), r"its colour image is \(40, 48\); return \(H, W, 3\)"),
        (0, np.full((40, 48, 3), 200.0), r"its colour image holds 200 to 200; scale floats to 0..1"),
        (0, np.full((40, 48, 3), np.nan), r"its colour image holds nan to nan; scale"),
        (0, np.zeros((40, 48, 3), np.int32), r"its colour image is int32"),
        (1, np.zeros((40, 48, 3), np.float32), r"its thermal image is \(40, 48, 3\)"),
        (1, np.zeros((20, 24), np.float32), r"its thermal image is 20x24 .* colour image 40x48"),
        (2, np.zeros((40, 48), np.float32), r"its label is float32"),
        (2, np.full((40, 48), 7), r"its label holds 7, but there are classes 0 to 2"),
        (2, np.full((40, 48), -1), r"its label holds -1"),
    ],
)
def test_wrong_items_are_named(place: int, value: Any, message: str, tmp_path: Path) -> None:
    bad = [*GOOD]
    bad[place] = value
    given: dict[str, Any] = {"classes": ClassSet.generic(3), "model": NAME, "size": (32, 32), "quiet": True}
    with pytest.raises(ManyInputsError, match=f"item 1 of builtins.list: {message}") as caught:
        efnet.train(**given, dataset=[GOOD, tuple(bad)], val_dataset=[GOOD], out=tmp_path / "run")
    assert len(caught.value.faults) == 1
    assert not (tmp_path / "run").exists()


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    classes = ClassSet.generic(3)
    with pytest.raises(InputError, match="a length and numbered items"):
        item_set(iter([GOOD]), classes, "train")
    with pytest.raises(InputError, match="has no items"):
        item_set([], classes, "train")
    with pytest.raises(InputError, match=r"efnet\.ClassSet"):
        item_set([GOOD], ("a", "b"), "train")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs `val_dataset` and `classes`"):
        efnet.train(dataset=[GOOD], out=tmp_path / "run")
    with pytest.raises(InputError, match="go with a `dataset`"):
        efnet.train(dataset="mfnet", classes=classes, out=tmp_path / "run")


def test_numbers_of_numpy_are_options() -> None:
    given = {"lr": np.float32(0.5), "batch_size": np.int64(3), "size": (np.int64(64), 96)}
    config = make_config(TrainConfig(), given)
    assert (config.optimizer.lr, config.data.batch_size, config.data.size) == (0.5, 3, (64, 96))


@pytest.mark.parametrize(
    ("place", "text", "value"),
    [
        ("data.size", "64x96", (64, 96)),
        ("track.trackers", "csv", ("csv",)),
        ("track.trackers", "csv,tensorboard", ("csv", "tensorboard")),
        ("network.tau", "0.3,0.7,1.0", (0.3, 0.7, 1.0)),
        ("augment.scale", "0.5,1.5", (0.5, 1.5)),
        ("data.thermal_scale", "7000,9000", (7000.0, 9000.0)),
        ("data.thermal_scale", "palette:iron", "palette:iron"),
        ("data.dataset", "1,2", "1,2"),
    ],
)
def test_texts_mean_what_they_mean_on_the_command_line(place: str, text: str, value: Any) -> None:
    section, _, name = place.partition(".")
    for options in ({place: text}, {section: {name: text}}):
        assert getattr(getattr(make_config(TrainConfig(), options), section), name) == value


def test_a_configuration_of_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`config` is a str; give a TrainConfig"):
        efnet.train("mine.yaml", out=tmp_path / "run")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", ["480x640", 480, (480,), (480.0, 640)])
def test_an_export_of_no_size_is_refused(tmp_path: Path, size: Any) -> None:
    with pytest.raises(InputError, match="give height and width, such as"):
        efnet.export(out=tmp_path / "file.onnx", size=size)
