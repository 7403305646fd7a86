"""Train and evaluate the rows of a table, one after another; finished runs are kept.

A budget of time becomes epochs: a few steps of each row are timed before its first run.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from efnet.core.errors import InputError
from efnet.core.files import write_json
from efnet.core.progress import Progress
from efnet.data.layouts import open_split
from efnet.data.pairs import PairSet
from efnet.data.verify import verify
from efnet.evaluation.evaluate import check_classes, evaluate
from efnet.evaluation.intervals import add_evidence
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import Report, build_report
from efnet.evaluation.resampling import Resampling
from efnet.inference.predictor import Predictor
from efnet.models.base import SegmentationModel
from efnet.models.checkpoint import load_checkpoint
from efnet.scenes import write_dataset
from efnet.studies.experiments.paper_tables import ExperimentRow, ExperimentTable
from efnet.studies.experiments.plan import TINY, Plan, claim, refuse_changes
from efnet.training import train
from efnet.training.config import TrainConfig
from efnet.training.logs import Reporter, read_rows
from efnet.training.run_folder import RunFolder, fingerprint
from efnet.training.step import build_network
from efnet.training.trainer import Trainer

EVALUATION = "evaluation.json"
"""The report on the test split, in the folder of a run; the run is done once it exists."""

SCENES = "scenes"
"""Generated scenes, in the folder of the experiments."""

PACE = "pace.json"
"""Timed steps and the epochs that follow from them, in the folder of the experiments."""

ROUNDS = 2
"""Turns of every row when steps are timed, so that a busy minute does not affect one row alone."""

_STEPS = 4
"""Steps of an epoch of the measurement, which uses the pairs of so many batches."""

_EPOCHS = 2
"""Epochs of the measurement; the first one warms up and does not count."""

_VALIDATED = 8
"""Pairs of the validation split that the measurement uses."""

Bar = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress bar."""

Stage = Literal["new", "begun", "trained", "done"]


@dataclass(frozen=True)
class Cell:
    """One row with one seed: the configuration and the folder of its run."""

    row: ExperimentRow
    seed: int
    config: TrainConfig
    folder: RunFolder

    @property
    def evaluation(self) -> Path:
        """The report on the test split."""
        return self.folder.path / EVALUATION

    def stage(self) -> Stage:
        """Return how far the run is."""
        if self.evaluation.is_file():
            return "done"
        if not self.folder.config.is_file():
            return "new"
        if self.folder.is_finished():
            return "trained"
        return "begun" if self.folder.has_state() else "new"

    def drop_state(self) -> None:
        """Delete the training state, unless it alone shows that the run is trained."""
        if self.folder.is_finished():
            self.folder.drop_state()


def run_folder(out: Path, row: ExperimentRow, seed: int) -> RunFolder:
    """Return the folder of a row with a seed; rows that are one network share it."""
    return RunFolder(out / row.config / f"seed{seed}")


def run_table(
    table: ExperimentTable,
    out: Path,
    plan: Plan,
    roots: Mapping[str, Path],
    *,
    seeds: Sequence[int] = (0,),
    rows: list[str] | None = None,
    device: str = "auto",
    workers: int = 2,
    reporter: Reporter | None = None,
    bar: Bar,
) -> list[Cell]:
    """Train and evaluate rows of a table; the same call continues after an interruption.

    Every row is trained with the first seed before any is with the second. A run that is evaluated keeps its
    best checkpoint and not its training state, which is several times as large.

    Several tables may share the folder `out`, and then their common rows. `roots` has the folder of each data
    set, unless scenes are generated. `bar` opens the progress bars of everything but training.

    Raises:
        InputError: wrong options, unusable data, or runs that began with other settings.
        KeyboardInterrupt: stopped; the same command continues.
    """
    reporter = reporter or Reporter()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f"`seeds` {' '.join(map(str, seeds))}: give different numbers, each 0 or more")
    chosen = table.choose(rows)
    plan = plan.settled(chosen)
    for row in () if plan.generated else chosen:
        if plan.dataset(row) not in roots:
            raise InputError(
                f"row {row.name} needs {plan.dataset(row)}: give `root` {plan.dataset(row)}=DIR, or leave it "
                "out with `rows`"
            )
    claim(out, plan)
    if plan.generated:
        roots = {"mfnet": out / SCENES}
        with bar("rendering scenes") as progress:
            write_dataset(
                out / SCENES, TINY.train, TINY.val, TINY.test, size=TINY.scene_size, progress=progress
            )
    for dataset in {plan.dataset(row) for row in chosen}:
        # The test split is used last but checked first, not after days of training.
        verify(open_split(dataset, roots[dataset], "test"), headers_only=True)

    def configure(row: ExperimentRow, seed: int, epochs: int | None = None) -> TrainConfig:
        return plan.config(row, seed, roots[plan.dataset(row)], device, workers, epochs)

    epochs: dict[str, int] = {}
    if plan.minutes is not None:
        configs = {row.config: configure(row, seeds[0]) for row in chosen}
        epochs = fix_epochs(out, plan.minutes, configs, reporter, bar)
    cells = [
        Cell(row, seed, configure(row, seed, epochs.get(row.config)), run_folder(out, row, seed))
        for seed in seeds
        for row in chosen
    ]
    for cell in cells:
        refuse_changes(cell.folder, cell.config)
    _require_weights(cells)
    for number, cell in enumerate(cells, 1):
        _run(cell, f"[{number}/{len(cells)}] {table.name} {cell.row.name}, seed {cell.seed}", reporter, bar)
    return cells


def _require_weights(cells: Sequence[Cell]) -> None:
    """Load the weights that runs will start from, so that a wrong file is found before any training."""
    new = [cell.config for cell in cells if cell.config.network.init is not None and cell.stage() == "new"]
    for config in {(config.network, config.data.dataset): config for config in new}.values():
        classes = open_split(config.data.dataset, Path(config.data.root), "test").classes
        try:
            build_network(config.network, classes)
        except InputError as error:
            raise InputError(f"`init` {config.network.name}: {error}") from error


def _run(cell: Cell, name: str, reporter: Reporter, bar: Bar) -> None:
    """Do the rest of a run."""
    stage = cell.stage()
    try:
        if stage == "done":
            reporter.say(f"{name}: done before ({cell.folder.path})")
            cell.drop_state()  # of a process that ended too early to do so
            return
        if stage in ("new", "begun"):
            reporter.say(f"{name}: {'training' if stage == 'new' else 'going on with'} {cell.folder.path}")
            if stage == "new":
                for path in (cell.folder.facts, cell.folder.config):
                    path.unlink(missing_ok=True)  # of a start that ended before there was a state
            train(cell.config, cell.folder.path, resume=stage == "begun", reporter=reporter)
        reporter.say(f"{name}: evaluating on the test split")
        with bar("evaluate") as progress:
            report = evaluate_run(cell.config, cell.folder, progress)
        write_json(cell.evaluation, report)
        cell.drop_state()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped at {name}; what is done is saved, the same command goes on"
        ) from None
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def evaluate_run(config: TrainConfig, folder: RunFolder, progress: Progress) -> Report:
    """Score the best checkpoint of a run on the test split, by the run's protocol or the data set's.

    Returns the report of `evaluate_model` with `training`, the settings. Raises InputError if the split is
    missing or one of its files is wrong.
    """
    report = evaluate_model(load_checkpoint(folder.path), config, folder.path, progress)
    training = {
        "recipe": config.recipe,
        "epochs": config.schedule.epochs,
        "batch_size": config.data.pass_size * config.data.accumulate,
        "init": config.network.init,
        "seed": config.seed,
    }
    return {**report, "training": training}


def evaluate_model(
    model: SegmentationModel, config: TrainConfig, checkpoint: Path, progress: Progress
) -> Report:
    """Score a network on the test split of a configuration's data.

    Returns the report of `build_report` with `data`, the split's fingerprint. Raises InputError as
    `evaluate_run` does.
    """
    pairs = open_split(config.data.dataset, Path(config.data.root), "test")
    verify(pairs)
    check_classes(model.classes, pairs)
    tally = evaluate(
        Predictor(model, config.device, config.precision),
        replace(pairs, thermal_scale=model.input.thermal_scale),
        get_protocol(config.validation.protocol or pairs.protocol),
        workers=config.data.workers,
        progress=progress,
        boundaries=True,
    )
    report = build_report(tally, _circumstances(config, checkpoint, model))
    add_evidence(report, tally, Resampling())
    return {**report, "data": fingerprint(test=pairs)}


def _circumstances(config: TrainConfig, checkpoint: Path, model: SegmentationModel) -> dict[str, Any]:
    """Return the settings of a report, with the keys that `efnet evaluate` uses."""
    return {
        "dataset": config.data.dataset,
        "split": "test",
        "checkpoint": str(checkpoint),
        "model": model.name,
        "modality": model.modality,
        "selected_on": model.training_summary.get("selected_on"),
        "input_size": list(model.input.size) if model.input.size else None,
        "tta": None,
        "precision": config.precision,
    }


@dataclass(frozen=True)
class Timing:
    """One timed turn of a row."""

    training: tuple[float, ...]  # seconds per pair, reading included, of each epoch but the first
    validation: float  # seconds per pair


@dataclass(frozen=True)
class Pace:
    """Epochs that a row makes in a budget of time, and median seconds per pair over all turns."""

    epochs: int
    training: float
    validation: float

    @classmethod
    def of(cls, timings: Sequence[Timing], pairs: tuple[int, int], every: int, minutes: float) -> Pace:
        """Compute the epochs, at least one, from the pairs of an epoch and of a validation `every` epochs."""
        training = statistics.median(value for timing in timings for value in timing.training)
        validation = statistics.median(timing.validation for timing in timings)
        epoch = pairs[0] * training + pairs[1] * validation / every
        return cls(max(1, round(60 * minutes / epoch)), training, validation)


def fix_epochs(
    out: Path, minutes: float, configs: Mapping[str, TrainConfig], reporter: Reporter, bar: Bar
) -> dict[str, int]:
    """Return the epochs of each configuration: as fixed before, or else by a measurement.

    A measurement is a small run in a temporary folder: few pairs, two epochs, one validation. If stopped, it
    keeps nothing. Raises InputError if the data or the file of earlier measurements is unusable.
    """
    known = _read_paces(out)
    new = {name: config for name, config in configs.items() if name not in known}
    timings: dict[str, list[Timing]] = {name: [] for name in new}
    with bar("measuring steps") as progress:
        for turn in range(ROUNDS * len(new)):
            progress(turn, ROUNDS * len(new))
            name = list(new)[turn % len(new)]
            timings[name].append(_measure(new[name], out))
    for name, config in new.items():
        known[name] = Pace.of(timings[name], _pairs(config), config.validation.every, minutes)
        reporter.say(
            f"{name}: {known[name].training:.3f} s per pair, so {known[name].epochs} epochs in "
            f"{minutes:g} minutes"
        )
    if new:
        known |= _read_paces(out)  # runs of what another process measured meanwhile may have begun
        write_json(out / PACE, {name: asdict(pace) for name, pace in known.items()})
    return {name: known[name].epochs for name in configs}


def _read_paces(out: Path) -> dict[str, Pace]:
    if not (out / PACE).is_file():
        return {}
    try:
        values: dict[str, Any] = json.loads((out / PACE).read_text(encoding="utf-8"))
        return {name: Pace(**pace) for name, pace in values.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{out / PACE}: damaged ({error}); choose another folder") from error


def _splits(config: TrainConfig) -> tuple[PairSet, PairSet]:
    data, root = config.data, Path(config.data.root)
    return open_split(data.dataset, root, data.train_split), open_split(data.dataset, root, data.val_split)


def _pairs(config: TrainConfig) -> tuple[int, int]:
    """Return the pairs that an epoch trains on (whole batches only), and that a validation scores."""
    train, val = _splits(config)
    batch = min(len(train), config.data.pass_size * config.data.accumulate)
    return len(train) // batch * batch, len(val)


def _measure(config: TrainConfig, out: Path) -> Timing:
    """Train briefly on the first pairs."""
    train, val = _splits(config)
    few = _STEPS * config.data.pass_size * config.data.accumulate
    short = replace(
        config,
        schedule=replace(config.schedule, epochs=_EPOCHS),
        validation=replace(config.validation, every=_EPOCHS),
    )
    splits = replace(train, pairs=train.pairs[:few]), replace(val, pairs=val.pairs[:_VALIDATED])
    with tempfile.TemporaryDirectory(prefix=".pace-", dir=out) as name:
        folder = RunFolder(name)
        trainer = Trainer(short, folder, splits, Reporter(quiet=True))
        try:
            trainer.begin(resume=False)
            trainer.run()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "stopped while steps were measured; the same command starts anew"
            ) from None
        rows = read_rows(folder, _EPOCHS)
    pairs = trainer.order.batches_per_epoch * trainer.order.batch_size
    training = tuple(1 / row["pairs_per_second"] for row in rows[1:])
    spent = rows[-1]["seconds"] - rows[-2]["seconds"] - pairs * training[-1]
    return Timing(training, max(0.0, spent) / len(splits[1]))
