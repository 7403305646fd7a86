"""From the files of a run, an evaluation and a prediction folder to the report's plain data.

The demo: a sequence of `efnet` commands, the very ones that a user would type, and a report.
"""

from __future__ import annotations

import json
import os
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
from efnet.data.images import read_label
from efnet.data.layouts import open_split
from efnet.data.pairs import PairSet
from efnet.data.sample import read_sample
from efnet.evaluation.protocols import Protocol, get_protocol
from efnet.evaluation.score import score_predictions
from efnet.evaluation.sheet import choose_rows
from efnet.models.checkpoint import load_checkpoint
from efnet.studies.demo_page import Epoch, GallerySample, RunReport, Step, duration, write_report
from efnet.training.run_folder import RunFolder


def collect_report(
    *,
    run: Path,
    data: Path,
    evaluation: Mapping[str, Any],
    predictions: Path,
    steps: Sequence[Step] = (),
    seconds: float | None = None,
    pictures: int = 6,
    dataset: str = "mfnet",
    split: str = "test",
) -> RunReport:
    """Gather what the page shows.

    Args:
        run: folder of the training run.
        data: root of the data set.
        evaluation: what `efnet evaluate --json` wrote for the split.
        predictions: index maps of the split.
        steps: commands with their times.
        seconds: all of them together.
        pictures: pairs in the gallery, from well to badly segmented.
        dataset: layout of `data`.
        split: of the evaluation and the predictions.

    Raises:
        InputError: a file is missing or does not fit.
    """
    model = load_checkpoint(run)
    pairset = open_split(dataset, data, split)
    protocol = get_protocol(evaluation["protocol"]["name"])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    epochs = read_epochs(RunFolder(run).metrics_jsonl)
    trained = model.training_summary
    took = f" in {duration(seconds)} altogether" if seconds is not None else ""
    facts = {
        "network": f"{model.name}, {parameters / 1e6:.2f} M parameters",
        "checkpoint": f"epoch {trained['epoch']} of {trained['epochs']}, chosen on {trained['selected_on']}",
        "scenes": f"{trained['train_pairs']} to train on, {len(pairset)} to test on",
        "efnet": efnet.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {usable_cores()} cores, {device_name()}",
    }
    summary = (
        f"{model.name} ({parameters / 1e6:.2f} M parameters), trained from scratch on "
        f"{trained['train_pairs']} generated pairs, day and night, and tested on {len(pairset)} pairs that "
        f"it never saw{took}."
    )
    return RunReport(
        title="EFNet demo: RGB-thermal street scenes, segmented",
        summary=summary,
        evaluation=evaluation,
        classes=pairset.classes,
        protocol=protocol,
        epochs=epochs,
        samples=gallery(predictions, pairset, protocol, pictures),
        steps=steps,
        facts=facts,
    )


def read_epochs(metrics: Path) -> list[Epoch]:
    """The training curve from a run's `metrics.jsonl`."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return [Epoch(row["epoch"], row["loss"], row.get("val_miou")) for row in rows]


def gallery(predictions: Path, pairset: PairSet, protocol: Protocol, count: int) -> list[GallerySample]:
    """Pairs that show the range of a split: by condition, from the best to the worst.

    Args:
        predictions: folder of index maps named after the pairs.
        pairset: the split.
        protocol: by which a pair counts as good or bad.
        count: of pairs.
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


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name() -> str:
    """The GPU that `--device auto` takes, or that there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


Runner = Callable[[Sequence[str]], int]
"""Runs one command line (the words after `efnet`) and returns its exit status."""

MARKER = "demo.json"
PROTOCOL = "native"
"""Scenes are scored at their own size, not enlarged to MFNet's."""


@dataclass(frozen=True)
class DemoPlan:
    """How much is generated and for how long is trained.

    Attributes:
        train: scenes to train on; likewise `val` and `test`.
        scene_size: height x width of the scenes, as commands take it.
        input_size: height x width that the network sees; results come at the scenes' own size.
        epochs: passes over the training scenes.
        batch_size: pairs per step.
        lr: base learning rate.
        test_images: glob that finds the test scenes among the images; scenes are numbered from 1 through
            train, val and test.
        pictures: pairs in the gallery.
    """

    train: int
    val: int
    test: int
    scene_size: str
    input_size: str
    epochs: int
    batch_size: int
    lr: float
    test_images: str
    pictures: int


STANDARD = DemoPlan(269, 30, 40, "240x320", "144x192", 10, 4, 1.5e-3, "003*.png", 6)
"""About five minutes on two cores."""

QUICK = DemoPlan(15, 4, 8, "120x160", "60x80", 2, 4, 2e-3, "0002*.png", 2)
"""Seconds; shows that everything runs, not what the network can do."""


@dataclass(frozen=True)
class DemoPaths:
    """The demo's files below its folder."""

    out: Path

    @property
    def data(self) -> Path:
        """Generated scenes."""
        return self.out / "data"

    @property
    def run(self) -> Path:
        """The training run."""
        return self.out / "run"

    @property
    def evaluation(self) -> Path:
        """What `efnet evaluate --json` wrote."""
        return self.out / "evaluation.json"

    @property
    def score(self) -> Path:
        """What `efnet score --json` wrote."""
        return self.out / "score.json"

    @property
    def predictions(self) -> Path:
        """What `efnet predict` wrote."""
        return self.out / "predictions"

    @property
    def report(self) -> Path:
        """The page."""
        return self.out / "report.html"


def demo_commands(paths: DemoPaths, plan: DemoPlan) -> list[list[str]]:
    """The commands of the demo, each as the words after `efnet`."""
    test = ["--dataset", "mfnet", "--root", str(paths.data), "--split", "test", "--protocol", PROTOCOL]
    counts = [
        word for split in ("train", "val", "test") for word in (f"--{split}", str(getattr(plan, split)))
    ]
    return [
        ["data", "synthesize", "--out", str(paths.data), *counts, "--size", plan.scene_size],
        [
            *("train", "--recipe", "scratch", "--model", "efnet_tiny", "--dataset", "mfnet"),
            *("--root", str(paths.data), "--size", plan.input_size, "--epochs", str(plan.epochs)),
            *("--batch-size", str(plan.batch_size), "--lr", f"{plan.lr:g}", "--cache", "true"),
            *("--workers", "0", "--val-every", "2"),
            *("--protocol", PROTOCOL, "--out", str(paths.run)),
        ],
        ["evaluate", "--checkpoint", str(paths.run), *test, "--json", str(paths.evaluation)],
        [
            *("predict", "--checkpoint", str(paths.run)),
            *("--rgbt", str(paths.data / "images" / plan.test_images), "--out", str(paths.predictions)),
        ],
        ["score", "--predictions", str(paths.predictions / "index"), *test, "--json", str(paths.score)],
    ]


def run_demo(out: Path, plan: DemoPlan, run: Runner, say: Callable[[str], None]) -> Path:
    """Run the demo from the start; scenes generated before are kept.

    Args:
        out: folder of the demo.
        plan: how much.
        run: runs a command.
        say: shows a line.

    Returns:
        the report.

    Raises:
        InputError: `out` holds something other than a demo, or a command failed.
    """
    paths = DemoPaths(out)
    _clear(paths, plan)
    steps: list[Step] = []
    commands = demo_commands(paths, plan)
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
    report = collect_report(
        run=paths.run,
        data=paths.data,
        evaluation=json.loads(paths.evaluation.read_text(encoding="utf-8")),
        predictions=paths.predictions / "index",
        steps=steps,
        seconds=time.perf_counter() - started,
        pictures=plan.pictures,
    )
    write_report(paths.report, report)
    return paths.report


def _clear(paths: DemoPaths, plan: DemoPlan) -> None:
    """Remove the results of an earlier demo, and nothing that is not the demo's."""
    marker = paths.out / MARKER
    if paths.out.exists() and not paths.out.is_dir():
        raise InputError(f"{paths.out}: is a file; choose another --out")
    if paths.out.is_dir() and any(paths.out.iterdir()):
        if not marker.is_file():
            raise InputError(f"{paths.out}: holds other files; choose another --out")
        for folder in (paths.run, paths.predictions):
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
