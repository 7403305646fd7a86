"""The demo: the `efnet` commands that a user would type, and a report of their results."""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import efnet
from efnet.core.errors import InputError
from efnet.core.files import write_json
from efnet.data.labels import read_label
from efnet.data.layouts import open_split
from efnet.data.pairs import PairSet
from efnet.data.sample import read_sample
from efnet.evaluation.protocols import Protocol, get_protocol
from efnet.evaluation.score import score_predictions
from efnet.evaluation.sheet import choose_rows
from efnet.models.checkpoint import load_checkpoint
from efnet.studies.benchmark.measure import usable_cores
from efnet.studies.demo_page import Epoch, FirstLook, GallerySample, RunReport, Step, duration, write_report
from efnet.training.logs import read_rows
from efnet.training.run_folder import RunFolder


class DemoPaths:
    """The demo's files in its folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.data = out / "data"
        self.run = out / "run"
        self.evaluation = out / "evaluation.json"
        self.score = out / "score.json"
        self.predictions = out / "predictions"
        self.yours = out / "yours"
        self.shipped = out / "shipped"
        self.report = out / "report.html"


def collect_report(
    paths: DemoPaths, evaluation: Mapping[str, Any], steps: Sequence[Step], seconds: float, pictures: int
) -> RunReport:
    """Gather the contents of the page from the commands' files and the report of `efnet evaluate`.

    The gallery shows `pictures` pairs, from well to badly segmented. Raises InputError if a file is missing
    or does not fit.
    """
    model = load_checkpoint(paths.run)
    pairset = open_split("mfnet", paths.data, "test")
    protocol = get_protocol(evaluation["protocol"]["name"])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trained = model.training_summary
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    facts = {
        "network": f"{model.name}, {parameters / 1e6:.2f} M parameters",
        "checkpoint": f"epoch {trained['epoch']} of {trained['epochs']}, chosen on {trained['selected_on']}",
        "scenes": f"{trained['train_pairs']} to train on, {len(pairset)} to test on",
        "efnet": efnet.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {usable_cores()} cores, {gpu}",
    }
    summary = (
        f"{model.name} ({parameters / 1e6:.2f} M parameters), trained from scratch on "
        f"{trained['train_pairs']} generated pairs, day and night, and tested on {len(pairset)} pairs that "
        f"it never saw in {duration(seconds)} altogether."
    )
    return RunReport(
        title="EFNet demo: RGB-thermal street scenes, segmented",
        summary=summary,
        evaluation=evaluation,
        classes=pairset.classes,
        protocol=protocol,
        epochs=[
            Epoch(row["epoch"], row["loss"], row.get("val_miou"))
            for row in read_rows(RunFolder(paths.run), trained["epochs"])
        ],
        first=first_look(paths, pictures),
        samples=gallery(paths.predictions / "index", pairset, protocol, pictures),
        steps=steps,
        facts=facts,
    )


def first_look(paths: DemoPaths, count: int) -> list[FirstLook]:
    """List up to `count` of the user's pairs, and of the generated ones, as the shipped weights see them."""
    return [
        FirstLook(name.with_suffix("").as_posix(), overlay, folder / "color" / name)
        for folder in (paths.yours, paths.shipped)
        for overlay in sorted((folder / "overlay").rglob("*.png"))[:count]
        for name in (overlay.relative_to(folder / "overlay"),)
    ]


def gallery(predictions: Path, pairset: PairSet, protocol: Protocol, count: int) -> list[GallerySample]:
    """Choose `count` pairs of a split, by condition, from the best mIoU to the worst.

    `predictions` is a folder of index maps named after the pairs.
    """
    tally, _ = score_predictions(predictions, pairset, protocol)
    miou = tally.pair_miou()
    samples = []
    for place in choose_rows(tally, count):
        pair = tally.pairs[place].pair
        sample = read_sample(pair, pairset.classes, pairset.thermal_scale)
        assert sample.label is not None
        samples.append(
            GallerySample(
                name=pair.name,
                rgb=sample.rgb,
                thermal=sample.thermal,
                prediction=read_label(predictions / f"{pair.name}.png", pairset.classes),
                truth=sample.label,
                condition=pair.condition,
                note=f"mIoU of this pair {100 * miou[place]:.1f}",
            )
        )
    return samples


Runner = Callable[[Sequence[str]], int]
"""Runs one command line (the words after `efnet`) and returns its exit status."""

MARKER = "demo.json"
PROTOCOL = "native"
"""Scenes are scored at their own size, not enlarged to MFNet's."""


@dataclass(frozen=True)
class DemoPlan:
    """Amount of scenes and of training."""

    train: int  # scenes to train on; likewise `val` and `test`
    val: int
    test: int
    scene_size: str  # height x width of the scenes, as commands take it
    input_size: str  # height x width of the network's input; results have the scenes' own size
    epochs: int  # passes over the training scenes
    batch_size: int  # pairs per step
    lr: float  # base learning rate
    test_images: str  # glob of the test scenes; numbers run from 1 through train, val and test
    pictures: int  # pairs in the gallery


STANDARD = DemoPlan(269, 30, 40, "240x320", "144x192", 10, 4, 1.5e-3, "003*.png", 6)
"""About five minutes on two cores."""

QUICK = DemoPlan(15, 4, 8, "120x160", "60x80", 2, 4, 2e-3, "0002*.png", 2)
"""Seconds; shows that everything runs, not what the network can do."""


def demo_commands(
    paths: DemoPaths, plan: DemoPlan, rgb: str | None = None, thermal: str | None = None
) -> list[list[str]]:
    """Return the commands of the demo, each as the words after `efnet`; the user's own pairs come first."""
    images = ["--rgbt", str(paths.data / "images" / plan.test_images)]
    yours = ["predict", "--rgb", str(rgb), "--thermal", str(thermal), "--out", str(paths.yours)]
    test = ["--dataset", "mfnet", "--root", str(paths.data), "--split", "test", "--protocol", PROTOCOL]
    counts = [
        word for split in ("train", "val", "test") for word in (f"--{split}", str(getattr(plan, split)))
    ]
    return [
        *([yours] if rgb is not None else []),
        ["data", "synthesize", "--out", str(paths.data), *counts, "--size", plan.scene_size],
        ["predict", *images, "--out", str(paths.shipped)],
        [
            *("train", "--recipe", "scratch", "--model", "efnet_tiny", "--dataset", "mfnet"),
            *("--root", str(paths.data), "--size", plan.input_size, "--epochs", str(plan.epochs)),
            *("--batch-size", str(plan.batch_size), "--lr", f"{plan.lr:g}", "--cache", "true"),
            *("--workers", "0", "--val-every", "2"),
            *("--protocol", PROTOCOL, "--out", str(paths.run)),
        ],
        ["evaluate", "--checkpoint", str(paths.run), *test, "--json", str(paths.evaluation)],
        ["predict", "--checkpoint", str(paths.run), *images, "--out", str(paths.predictions)],
        ["score", "--predictions", str(paths.predictions / "index"), *test, "--json", str(paths.score)],
    ]


def run_demo(
    out: Path,
    plan: DemoPlan,
    run: Runner,
    say: Callable[[str], None],
    rgb: str | None = None,
    thermal: str | None = None,
) -> Path:
    """Run the demo from the start, keeping scenes of an earlier one, and return the path of its report.

    `rgb` and `thermal` name pairs of the user, as `efnet predict` takes them. Raises InputError if only one
    of them is given, `out` holds something other than a demo, or a command failed. `say` prints a line.
    """
    if (rgb is None) != (thermal is None):
        raise InputError("your own pairs need both `rgb` and `thermal`")
    for given in (rgb, thermal):
        if given is not None and Path(given).absolute().is_relative_to(out.absolute()):
            raise InputError(f"{given}: lies in {out}, whose results are replaced; choose another `out`")
    paths = DemoPaths(out)
    _clear(paths, plan)
    steps: list[Step] = []
    commands = demo_commands(paths, plan, rgb, thermal)
    started = time.perf_counter()
    for number, words in enumerate(commands, 1):
        command = f"efnet {shlex.join(words)}"
        say(f"[{number}/{len(commands)}] {command}")
        begun = time.perf_counter()
        status = run(words)
        if status == 130:
            raise KeyboardInterrupt("the demo was interrupted; the same command starts it over")
        if status != 0:
            raise InputError(f"the demo stopped: '{command}' failed with exit status {status}; see above")
        steps.append(Step(command, time.perf_counter() - begun))
    evaluation = json.loads(paths.evaluation.read_text(encoding="utf-8"))
    report = collect_report(paths, evaluation, steps, time.perf_counter() - started, plan.pictures)
    write_report(paths.report, report)
    return paths.report


def _clear(paths: DemoPaths, plan: DemoPlan) -> None:
    """Remove the results of an earlier demo, and no other files."""
    marker = paths.out / MARKER
    if paths.out.exists() and not paths.out.is_dir():
        raise InputError(f"{paths.out}: is a file; choose another --out")
    if paths.out.is_dir() and any(paths.out.iterdir()):
        if not marker.is_file():
            raise InputError(f"{paths.out}: holds other files; choose another --out")
        for folder in (paths.run, paths.predictions, paths.yours, paths.shipped):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (paths.evaluation, paths.score, paths.report):
            file.unlink(missing_ok=True)
        if _planned(marker) != asdict(plan):  # scenes of another plan
            shutil.rmtree(paths.data, ignore_errors=True)
    write_json(marker, asdict(plan))


def _planned(marker: Path) -> object:
    try:
        return json.loads(marker.read_text(encoding="utf-8"))
    except ValueError:
        return None
