"""What the runs of a table came to, gathered from their folders."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efnet.errors import InputError
from efnet.evaluation.report import Report
from efnet.experiments.manifest import read_plan
from efnet.experiments.plan import Plan
from efnet.experiments.run import EVALUATION
from efnet.experiments.tables import ExperimentRow, ExperimentTable
from efnet.models.complexity import Complexity, measure
from efnet.published.standing import objection
from efnet.texts import parse_json
from efnet.training.run_folder import RunFolder


@dataclass(frozen=True)
class Spread:
    """Mean and deviation over seeds.

    Attributes:
        mean: of the values.
        deviation: standard deviation of a sample (n - 1); None for a single value.
    """

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        """Of some values; None of no values."""
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def to_dict(self) -> dict[str, float | None]:
        """Plain values for JSON."""
        return {"mean": self.mean, "deviation": self.deviation}


@dataclass(frozen=True)
class SeedResult:
    """One finished run.

    Attributes:
        seed: of the run.
        report: on the test split.
        facts: what the run folder says of itself.
    """

    seed: int
    report: Report
    facts: dict[str, Any]


@dataclass(frozen=True)
class RowResult:
    """A row of the table with all its runs.

    Attributes:
        row: of the table.
        runs: the finished ones, by seed.
        unfinished: seeds of those that are not.
        complexity: of the network at the size that it sees; None without a finished run.
    """

    row: ExperimentRow
    runs: tuple[SeedResult, ...]
    unfinished: tuple[int, ...]
    complexity: Complexity | None

    def spread(self, *path: str) -> Spread | None:
        """Of a figure of the reports, such as `miou`, or `iou` and `car`; None where no run has it."""
        values = []
        for run in self.runs:
            value: Any = run.report
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                values.append(float(value))
        return Spread.of(values)

    def minutes(self) -> Spread | None:
        """Measured time of training and validation; None where no run knows it."""
        results = [run.facts.get("result", {}) for run in self.runs]
        return Spread.of([result["seconds"] / 60 for result in results if "seconds" in result])

    def gain(self, other: RowResult) -> Spread | None:
        """By how much its mIoU exceeds another row's, seed by seed; None where no seed is common."""
        theirs = {run.seed: run.report["miou"] for run in other.runs}
        pairs = [(run.report["miou"], theirs.get(run.seed)) for run in self.runs]
        return Spread.of([own - their for own, their in pairs if own is not None and their is not None])


@dataclass(frozen=True)
class TableResult:
    """A table with what was run of it.

    Attributes:
        table: of the paper.
        plan: what its runs share.
        rows: in the paper's order.
    """

    table: ExperimentTable
    plan: Plan
    rows: tuple[RowResult, ...]

    @property
    def runs(self) -> list[SeedResult]:
        """All finished runs."""
        return [run for row in self.rows for run in row.runs]

    def objection(self) -> str | None:
        """Why the paper's figures do not stand beside these; None: they do."""
        if self.table.place is None:
            return "it is a study of ours"
        if self.plan.budget == "tiny":
            return "the runs are tiny"
        return next((reason for run in self.runs if (reason := objection(run.report)) is not None), None)

    def mixed_data(self) -> list[str]:
        """Data sets of which runs saw different files, which makes their figures incomparable."""
        seen: dict[str, set[str]] = {}
        for run in self.runs:
            files = {**run.facts.get("data", {}), **run.report["data"]}
            hashes = json.dumps({part: values["sha256"] for part, values in files.items()}, sort_keys=True)
            seen.setdefault(run.report["protocol"]["dataset"], set()).add(hashes)
        return [dataset for dataset, hashes in seen.items() if len(hashes) > 1]


def collect(table: ExperimentTable, out: Path) -> TableResult:
    """Read the runs of a table.

    Args:
        table: which.
        out: folder of the experiments.

    Raises:
        InputError: there are none, or a file of theirs is damaged.
    """
    plan = read_plan(out)
    rows = tuple(_collect_row(row, out) for row in table.rows)
    init = {
        run.report["protocol"]["model"]: run.report["training"]["init"] for row in rows for run in row.runs
    }
    result = TableResult(table, dataclasses.replace(plan, init=init), rows)
    if not result.runs:
        raise InputError(
            f"--out {out}: no run of {table.name} is done; start them with: efnet experiment run {table.name}"
        )
    return result


def _collect_row(row: ExperimentRow, out: Path) -> RowResult:
    runs, unfinished = [], []
    for folder in sorted(
        (out / row.config).glob("seed*"), key=lambda folder: (len(folder.name), folder.name)
    ):
        if not re.fullmatch(r"seed\d+", folder.name):
            continue
        seed = int(folder.name.removeprefix("seed"))
        if (folder / EVALUATION).is_file():
            runs.append(SeedResult(seed, _read(folder / EVALUATION), RunFolder(folder).read_facts()))
        else:
            unfinished.append(seed)
    return RowResult(row, tuple(runs), tuple(unfinished), _complexity(row, runs[0]) if runs else None)


def _complexity(row: ExperimentRow, run: SeedResult) -> Complexity:
    protocol = run.report["protocol"]
    height, width = protocol["input_size"]
    options = row.network_options()
    return measure(protocol["model"], len(run.report["iou"]), (height, width), **options)


def _read(path: Path) -> Report:
    try:
        report: Report = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path}: damaged ({error}); delete it and run the same command again to evaluate anew"
        ) from error
    return report
