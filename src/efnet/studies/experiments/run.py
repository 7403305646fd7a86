"""Train and evaluate the rows of a table, one after another; what is done stays done.

A finished run on the test split: what `efnet evaluate` would report, and which data it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from efnet.core.devices import pick_device
from efnet.core.errors import InputError
from efnet.core.files import write_json
from efnet.data.layouts import open_split
from efnet.data.verify import verify
from efnet.evaluation.evaluate import check_classes, evaluate
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import Report, build_report
from efnet.models.base import SegmentationModel
from efnet.models.checkpoint import load_checkpoint
from efnet.scenes import write_dataset
from efnet.studies.experiments.paper_tables import ExperimentRow, ExperimentTable
from efnet.studies.experiments.plan import TINY, Plan, claim, refuse_changes
from efnet.studies.experiments.time_budget import fix_epochs
from efnet.training.config import TrainConfig
from efnet.training.logs import Reporter
from efnet.training.network import build_network
from efnet.training.run_folder import RunFolder, fingerprint
from efnet.training.train import train


def evaluate_run(config: TrainConfig, folder: RunFolder, progress: Callable[[int, int], None]) -> Report:
    """Score the checkpoint that a run chose on its validation split.

    Args:
        config: of the run; its protocol, else the data set's default.
        folder: of the run.
        progress: told the number of pairs done and of all.

    Returns:
        the report of `build_report`, as `data` the fingerprint of the test split, and as `training` how the
        checkpoint came about.

    Raises:
        InputError: there is no such split, or a file of it is wrong.
    """
    pairs = open_split(config.data.dataset, Path(config.data.root), "test")
    verify(pairs)
    model = load_checkpoint(folder.path)
    check_classes(model.classes, pairs)
    device = pick_device(config.device)
    tally = evaluate(
        model.to(device),
        replace(pairs, thermal_scale=model.input.thermal_scale),
        get_protocol(config.validation.protocol or pairs.protocol),
        device=device,
        precision=config.precision,
        workers=config.data.workers,
        input_size=model.input.size,
        progress=progress,
    )
    report = build_report(tally, _circumstances(config, folder, model))
    return {**report, "data": fingerprint(test=pairs), "training": _training(config)}


def _training(config: TrainConfig) -> dict[str, Any]:
    """What of the configuration a report tells."""
    return {
        "recipe": config.recipe,
        "epochs": config.schedule.epochs,
        "batch_size": config.data.batch_size * config.data.accumulate,
        "init": config.network.init,
        "seed": config.seed,
    }


def _circumstances(config: TrainConfig, folder: RunFolder, model: SegmentationModel) -> dict[str, Any]:
    """What decides the figure beside the protocol; the keys are those of `efnet evaluate`."""
    return {
        "dataset": config.data.dataset,
        "split": "test",
        "checkpoint": str(folder.path),
        "model": model.name,
        "modality": model.modality,
        "selected_on": model.training_summary.get("selected_on"),
        "input_size": list(model.input.size) if model.input.size else None,
        "tta": None,
        "precision": config.precision,
    }


EVALUATION = "evaluation.json"
"""The report on the test split, in the folder of a run; it is there when the run is done."""

SCENES = "scenes"
"""Generated scenes, in the folder of the experiments."""

Advance = Callable[[int, int], None]
"""Told what is done and of how many."""

Bar = Callable[[str], AbstractContextManager[Advance]]
"""Opens a progress bar."""

Stage = Literal["new", "begun", "trained", "done"]


@dataclass(frozen=True)
class Cell:
    """One row with one seed.

    Attributes:
        row: of the table.
        seed: of the run.
        config: of the run.
        folder: of the run.
    """

    row: ExperimentRow
    seed: int
    config: TrainConfig
    folder: RunFolder

    @property
    def evaluation(self) -> Path:
        """The report on the test split."""
        return self.folder.path / EVALUATION

    def stage(self) -> Stage:
        """How far it is."""
        if self.evaluation.is_file():
            return "done"
        if not self.folder.config.is_file():
            return "new"
        if self.folder.is_finished():
            return "trained"
        return "begun" if self.folder.has_state() else "new"

    def drop_state(self) -> None:
        """If the run's facts say that it is trained: without them the state alone does."""
        if self.folder.is_finished():
            self.folder.drop_state()


def run_folder(out: Path, row: ExperimentRow, seed: int) -> RunFolder:
    """Where a row is trained with a seed; rows that are one network share it."""
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
    """Train and evaluate rows of a table; the same call goes on after an interruption.

    Every row is trained with the first seed before any is with the second. A run that is evaluated keeps its
    best checkpoint and not the state of its training, which is several times as large.

    Args:
        table: which.
        out: folder of the experiments; several tables may share it, and then their common rows.
        plan: what all runs share.
        roots: folder of each data set that is needed; none for generated scenes.
        seeds: of the runs.
        rows: names of rows; None: all.
        device: as of `efnet train`.
        workers: processes that read images.
        reporter: told of the progress.
        bar: opens the progress bars of what is not training.

    Returns:
        the runs, all done.

    Raises:
        InputError: wrong options, data that cannot be used, or runs that began otherwise.
        KeyboardInterrupt: stopped; the message says that the same command goes on.
    """
    reporter = reporter or Reporter()
    _check_seeds(seeds)
    chosen = table.choose(rows)
    plan = plan.settled(chosen)
    _require_roots(plan, chosen, roots)
    claim(out, plan)
    if plan.generated:
        roots = {"mfnet": out / SCENES}
        _write_scenes(out / SCENES, bar)
    for dataset in {plan.dataset(row) for row in chosen}:
        # What is used last is looked at first: not after days of training.
        verify(open_split(dataset, roots[dataset], "test"), headers_only=True)
    configs = {
        row.config: plan.config(row, seeds[0], roots[plan.dataset(row)], device, workers) for row in chosen
    }
    epochs = {} if plan.minutes is None else fix_epochs(out, plan.minutes, configs, reporter, bar)
    cells = [
        Cell(
            row,
            seed,
            plan.config(row, seed, roots[plan.dataset(row)], device, workers, epochs.get(row.config)),
            run_folder(out, row, seed),
        )
        for seed in seeds
        for row in chosen
    ]
    for cell in cells:
        refuse_changes(cell.folder, cell.config)
    _require_weights(cells)
    for number, cell in enumerate(cells, 1):
        _run(cell, f"[{number}/{len(cells)}] {table.name} {cell.row.name}, seed {cell.seed}", reporter, bar)
    return cells


def _run(cell: Cell, name: str, reporter: Reporter, bar: Bar) -> None:
    """Whatever is left to do of a cell."""
    stage = cell.stage()
    try:
        if stage == "done":
            reporter.say(f"{name}: done before ({cell.folder.path})")
            cell.drop_state()  # of a process that ended before it came to that
            return
        if stage in ("new", "begun"):
            reporter.say(f"{name}: {'training' if stage == 'new' else 'going on with'} {cell.folder.path}")
            if stage == "new":
                for path in (cell.folder.facts, cell.folder.config):
                    path.unlink(missing_ok=True)  # of a start that ended before there was a state
            train(cell.config, cell.folder.path, resume=stage == "begun", reporter=reporter)
        reporter.say(f"{name}: evaluating on the test split")
        with bar("evaluate") as advance:
            report = evaluate_run(cell.config, cell.folder, advance)
        write_json(cell.evaluation, report)
        cell.drop_state()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped at {name}; what is done is saved, the same command goes on"
        ) from None
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {' '.join(map(str, seeds))}: give different numbers, each 0 or more")


def _require_roots(plan: Plan, rows: Sequence[ExperimentRow], roots: Mapping[str, Path]) -> None:
    """Refuse to start where a row's data set has no folder."""
    if plan.generated:
        return
    for row in rows:
        if plan.dataset(row) not in roots:
            raise InputError(
                f"row {row.name} needs {plan.dataset(row)}: give --root {plan.dataset(row)}=DIR, or leave it "
                "out with --rows"
            )


def _require_weights(cells: Sequence[Cell]) -> None:
    """Load the weights that runs will start from: a wrong file shows now, not after days of other rows.

    Raises:
        InputError: a file cannot be read, or is of another network; the message names both.
    """
    begin = [cell.config for cell in cells if cell.config.network.init is not None and cell.stage() == "new"]
    for config in {(config.network, config.data.dataset): config for config in begin}.values():
        classes = open_split(config.data.dataset, Path(config.data.root), "test").classes
        try:
            build_network(config.network, classes)
        except InputError as error:
            raise InputError(f"--init {config.network.name}: {error}") from error


def _write_scenes(root: Path, bar: Bar) -> None:
    with bar("rendering scenes") as advance:
        write_dataset(root, TINY.train, TINY.val, TINY.test, size=TINY.scene_size, progress=advance)
