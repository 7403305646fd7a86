"""The demo: a sequence of `efnet` commands, the very ones that a user would type, and a report."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from efnet.demo.collect import collect_report
from efnet.demo.report import Step, write_report
from efnet.errors import InputError
from efnet.files import write_json

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
