"""What the runs of a table came to, gathered from their folders.

The report of a table: Markdown for people, plain values for programs.

Figures of the reports are fractions; Markdown shows percent, as the paper does.
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_json
from efnet.evaluation.report import Report, protocol_lines
from efnet.models.complexity import Complexity, measure
from efnet.studies.experiments.paper_tables import ExperimentRow, ExperimentTable
from efnet.studies.experiments.plan import Plan, read_plan
from efnet.studies.experiments.run import EVALUATION
from efnet.studies.leaderboard import objection
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


Cells = list[str]


def title(result: TableResult) -> str:
    """The heading; that of a tiny run says so."""
    if result.plan.budget == "full":
        return result.table.heading
    data = "generated scenes" if result.plan.generated else "the given data"
    whose = "the" if result.table.place is None else "the paper's"
    return f"TINY RUN on {data}, not {whose} {result.table.heading}"


def markdown(result: TableResult) -> str:
    """The whole report."""
    reason = result.objection()
    parts = [f"# {title(result)}", *_introduction(result, reason), _table(*_figures(result, reason is None))]
    parts += [_missing(result), _table(*_classes(result)), *_circumstances(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_dict(result: TableResult) -> dict[str, Any]:
    """Everything the report is made of, figures as fractions, the paper's as it prints them."""
    reason = result.objection()
    first = result.rows[0] if result.table.place is None else None
    return {
        "table": result.table.name,
        "title": title(result),
        "plan": result.plan.to_dict(),
        "paper_comparable": reason is None,
        "objection": reason,
        "mixed_data": result.mixed_data(),
        "rows": [_row_values(row, reason is None, first) for row in result.rows],
        "protocol": result.runs[0].report["protocol"],
    }


def _introduction(result: TableResult, reason: str | None) -> list[str]:
    plan, lines = result.plan, []
    if plan.budget == "tiny":
        lines.append(
            "A small network, few epochs, small images: this shows that the table can be made on this "
            "machine. Its figures say nothing about the rows and compare with no others."
        )
        if plan.generated:
            lines.append("All rows are on the same scenes with MFNet's classes, whatever their labels name.")
    elif result.table.place is None:
        lines.append(
            f"To {result.rows[0].row.label}: difference of mIoU, seed by seed, mean and deviation. A "
            "difference that its deviation does not carry is none."
        )
    elif reason is not None:
        lines.append(f"Not beside the paper's figures: {reason}.")
    if plan.minutes is not None:
        lines.append(
            f"Every run had about {plan.minutes:g} minutes for training and validation: its epochs follow "
            "from steps that were timed before the first run; the minutes in the table are what it took."
        )
    if plan.budget == "full" or any(plan.init.values()):
        lines.append(f"Initial weights: {_weights(result)}.")
    if plan.budget == "full":
        if plan.model:
            lines.append(f"Network: {plan.model} in place of efnet_light.")
        if result.table.note and reason is None:
            lines.append(f"Note: {result.table.note}.")
    return lines


def _weights(result: TableResult) -> str:
    """What the runs started from; by network where that differs."""
    fresh = "fresh" if result.table.place is None else "fresh (the paper's are pretrained)"
    sources = set(result.plan.init.values())
    texts = {source: fresh if source is None else f"from {source}" for source in sources}
    if len(sources) == 1:
        return texts[sources.pop()]
    return "; ".join(f"{name} {texts[source]}" for name, source in result.plan.init.items())


def _figures(result: TableResult, paper: bool) -> tuple[Cells, list[Cells]]:
    """mIoU, mAcc and size of every row; the paper's beside them where they may stand there."""
    first = result.rows[0] if result.table.place is None else None
    heading = ["", "seeds", "mIoU", *(["paper", "difference"] if paper else [])]
    heading += [] if first is None else [f"to {first.row.label}", "epochs", "minutes"]
    heading += ["mAcc", *(["paper"] if paper else []), "M param.", *(["paper"] if paper else [])]
    heading += ["GMAC of layers", "with attention", *(["paper's G op."] if paper else [])]
    return heading, [_figure_row(row, paper, first) for row in result.rows]


def _figure_row(row: RowResult, paper: bool, first: RowResult | None) -> Cells:
    miou, printed = row.spread("miou"), row.row.paper
    cells = [row.row.label, ", ".join(str(run.seed) for run in row.runs) or "-", _percent(miou)]
    if paper:
        cells += [_plain(printed.miou)]
        cells += ["-" if miou is None or printed.miou is None else f"{100 * miou.mean - printed.miou:+.2f}"]
    if first is not None:
        cells += ["" if row is first else _percent(row.gain(first)), *_duration(row)]
    cells += [_percent(row.spread("macc")), *([_plain(printed.macc)] if paper else [])]
    size = row.complexity
    cells += ["-" if size is None else f"{size.parameters / 1e6:.2f}"]
    cells += [_plain(printed.parameters)] if paper else []
    cells += ["-", "-"] if size is None else [_billions(size.layers), _billions(size.layers + size.attention)]
    return cells + ([_plain(printed.operations)] if paper else [])


def _duration(row: RowResult) -> Cells:
    """Epochs, and minutes of training and validation."""
    epochs = sorted({run.report["training"]["epochs"] for run in row.runs})
    minutes = row.minutes()
    return [
        " to ".join(dict.fromkeys(str(value) for value in (*epochs[:1], *epochs[-1:]))) or "-",
        "-" if minutes is None else f"{minutes.mean:.1f}",
    ]


def _classes(result: TableResult) -> tuple[Cells, list[Cells]]:
    """Mean IoU of every class, and mIoU by day and night, for rows with runs; one data set's classes."""
    first = result.runs[0].report
    parts = [part for part in ("day", "night") if part in first]
    names = [name for name, value in first["iou"].items() if value is not None]
    rows = []
    for row in result.rows:
        if row.runs and row.runs[0].report["iou"].keys() == first["iou"].keys():
            spreads = [row.spread(part, "miou") for part in parts]
            spreads += [row.spread("iou", name) for name in names]
            rows.append([row.row.label, *(_percent(spread, deviation=False) for spread in spreads)])
    return ["IoU, mean over seeds", *(f"mIoU {part}" for part in parts), *names], rows


def _missing(result: TableResult) -> str:
    """What has not been run, so that nobody takes a part for the whole."""
    lines = []
    for row in result.rows:
        if row.unfinished:
            lines.append(f"{row.row.label}: seed {', '.join(map(str, row.unfinished))} not finished")
        elif not row.runs:
            lines.append(f"{row.row.label}: not run")
    return f"Missing: {'; '.join(lines)}." if lines else ""


def _circumstances(result: TableResult) -> list[str]:
    """What decides the figures, once for every data set."""
    lines = [
        "mIoU and mAcc in percent, mean over seeds and, of several, their standard deviation (n - 1). The "
        "checkpoint is the best on the validation split; multiply-adds are at the size that the network sees."
    ]
    first = {run.report["protocol"]["dataset"]: run for run in reversed(result.runs)}
    for name, run in first.items():
        those = [each for each in result.runs if each.report["protocol"]["dataset"] == name]
        lines.append(_protocol(run.report, run.facts, {each.report["training"]["epochs"] for each in those}))
    machines = dict.fromkeys(_machine(run.facts) for run in result.runs)
    lines.append(f"Made with {' / '.join(machines)}.")
    lines += [
        f"CAUTION: runs on {dataset} saw different files; their figures do not compare with each other."
        for dataset in result.mixed_data()
    ]
    return lines


def _protocol(report: dict[str, Any], facts: dict[str, Any], epochs: set[int]) -> str:
    data, training = facts.get("data", {}), report["training"]
    shared = {**report, "protocol": {**report["protocol"], "checkpoint": None}}
    pairs = ", ".join(f"{values['pairs']} {values['split']}" for values in data.values())
    what, where = protocol_lines(shared)
    span = f"{min(epochs)} epochs" if len(epochs) == 1 else f"{min(epochs)} to {max(epochs)} epochs by row"
    trained = f"Recipe {training['recipe']}: {pairs} pairs, {span}"
    return f"P{what[1:]}. {where}. {trained}, batches of {training['batch_size']}."


def _machine(facts: dict[str, Any]) -> str:
    versions = facts.get("environment", {})
    return ", ".join(f"{key} {versions[key]}" for key in ("efnet", "torch", "gpu") if key in versions)


def _row_values(row: RowResult, comparable: bool, first: RowResult | None) -> dict[str, Any]:
    spreads = {key: row.spread(key) for key in ("miou", "macc")}
    names = row.runs[0].report["iou"] if row.runs else {}
    return {
        "row": row.row.name,
        "label": row.row.label,
        "config": row.row.config,
        "model": row.runs[0].report["protocol"]["model"] if row.runs else None,
        "modality": row.runs[0].report["protocol"]["modality"] if row.runs else None,
        **{key: None if spread is None else spread.to_dict() for key, spread in spreads.items()},
        "iou": {name: s.to_dict() for name in names if (s := row.spread("iou", name)) is not None},
        "to_first": None if first is None or (gain := row.gain(first)) is None else gain.to_dict(),
        "complexity": None if row.complexity is None else row.complexity.to_dict(),
        "paper": dataclasses.asdict(row.row.paper) if comparable else None,
        "seeds": [
            {
                **run.report["training"],
                "seed": run.seed,
                "miou": run.report["miou"],
                "macc": run.report["macc"],
                **_timing(run.facts),
            }
            for run in row.runs
        ],
        "unfinished": list(row.unfinished),
    }


def _timing(facts: dict[str, Any]) -> dict[str, Any]:
    result = facts.get("result", {})
    return {key: result.get(key) for key in ("best_epoch", "seconds")}


def _table(heading: Cells, rows: list[Cells]) -> str:
    lines = [f"| {' | '.join(heading)} |", f"| --- |{' ---: |' * (len(heading) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _percent(spread: Spread | None, deviation: bool = True) -> str:
    if spread is None:
        return "-"
    text = f"{100 * spread.mean:.2f}"
    return text if spread.deviation is None or not deviation else f"{text} ± {100 * spread.deviation:.2f}"


def _plain(value: float | None) -> str:
    """A figure as the paper prints it."""
    return "-" if value is None else f"{value:g}"


def _billions(operations: float) -> str:
    return f"{operations / 1e9:.3g}"
