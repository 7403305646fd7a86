"""The report of a table, gathered from the folders of its runs: Markdown for people, JSON for programs.

Figures of the reports are fractions; Markdown shows percent, as the paper does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_json
from efnet.evaluation.intervals import PER_IMAGE, miou_interval, read_tally
from efnet.evaluation.metrics import Tally
from efnet.evaluation.report import Report, protocol_lines
from efnet.evaluation.resampling import Resampling
from efnet.models.complexity import Complexity, measure
from efnet.reporting.tables import MeanDeviation, markdown_table, percent
from efnet.studies.experiments.paper_tables import ExperimentRow, ExperimentTable
from efnet.studies.experiments.plan import Plan, read_plan
from efnet.studies.experiments.run import EVALUATION
from efnet.studies.leaderboard import objection
from efnet.training.run_folder import RunFolder


@dataclass(frozen=True)
class SeedResult:
    """One finished run: its seed, its report on the test split, and the facts of its folder."""

    seed: int
    report: Report
    facts: dict[str, Any]


@dataclass(frozen=True)
class RowResult:
    """A row of the table with all its runs."""

    row: ExperimentRow
    runs: tuple[SeedResult, ...]  # finished ones, by seed
    unfinished: tuple[int, ...]  # seeds
    complexity: Complexity | None  # of the network at its input size; None without a finished run

    def spread(self, *path: str) -> MeanDeviation | None:
        """Return the spread of a figure, such as `miou`, or `iou` and `car`; None where no run has it."""
        values = []
        for run in self.runs:
            value: Any = run.report
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                values.append(float(value))
        return MeanDeviation.of(values)

    def tallies(self) -> dict[int, Tally]:
        """Return the counts of single images by seed, of the runs whose evaluation kept them."""
        return {
            run.seed: read_tally(run.report, f"seed {run.seed} of {self.row.label}")
            for run in self.runs
            if PER_IMAGE in run.report
        }

    def interval(self, other: RowResult | None = None) -> tuple[float, float] | None:
        """Return the interval over images of the mean mIoU, or of its difference to another row's.

        The difference is over the seeds that both have. None where a run's counts are not kept.
        """
        own, theirs = self.tallies(), {} if other is None else other.tallies()
        seeds = [run.seed for run in self.runs]
        if other is not None:
            seeds = [run.seed for run in other.runs if run.seed in seeds]
        if not seeds or any(seed not in own or (other and seed not in theirs) for seed in seeds):
            return None
        return miou_interval(
            [own[seed] for seed in seeds], Resampling(), [theirs[seed] for seed in seeds] if other else ()
        )

    def minutes(self) -> MeanDeviation | None:
        """Return the measured time of training and validation; None where no run has it."""
        results = [run.facts.get("result", {}) for run in self.runs]
        return MeanDeviation.of([result["seconds"] / 60 for result in results if "seconds" in result])

    def gain(self, other: RowResult) -> MeanDeviation | None:
        """Return the difference of mIoU to another row's, seed by seed; None without a common seed."""
        theirs = {run.seed: run.report["miou"] for run in other.runs}
        pairs = [(run.report["miou"], theirs.get(run.seed)) for run in self.runs]
        return MeanDeviation.of(
            [own - their for own, their in pairs if own is not None and their is not None]
        )


@dataclass(frozen=True)
class TableResult:
    """A table with its runs so far, in the paper's order, and the plan that they share."""

    table: ExperimentTable
    plan: Plan
    rows: tuple[RowResult, ...]

    @property
    def runs(self) -> list[SeedResult]:
        """All finished runs."""
        return [run for row in self.rows for run in row.runs]

    @property
    def first(self) -> RowResult | None:
        """The row with which a study of ours compares the others; None for a table of the paper."""
        return self.rows[0] if self.table.place is None else None

    def objection(self) -> str | None:
        """Return why these figures cannot be compared with the paper's; None: they can."""
        if self.first is not None:
            return "it is a study of ours"
        if self.plan.budget == "tiny":
            return "the runs are tiny"
        return next((reason for run in self.runs if (reason := objection(run.report)) is not None), None)

    def mixed_data(self) -> list[str]:
        """Return data sets whose runs read different files, which makes their figures incomparable."""
        seen: dict[str, set[str]] = {}
        for run in self.runs:
            files = {**run.facts.get("data", {}), **run.report["data"]}
            hashes = json.dumps({part: values["sha256"] for part, values in files.items()}, sort_keys=True)
            seen.setdefault(run.report["protocol"]["dataset"], set()).add(hashes)
        return [dataset for dataset, hashes in seen.items() if len(hashes) > 1]


def collect(table: ExperimentTable, out: Path) -> TableResult:
    """Read the runs of a table from `out`; raises InputError if there are none or a file is damaged."""
    plan = read_plan(out)
    rows = tuple(_collect_row(row, out) for row in table.rows)
    init = {
        run.report["protocol"]["model"]: run.report["training"]["init"]
        for row in rows
        if not row.row.names_weights
        for run in row.runs
    }
    result = TableResult(table, replace(plan, init=init), rows)
    if not result.runs:
        raise InputError(
            f"`out` {out}: no run of {table.name} is done; start them with: efnet experiment run {table.name}"
        )
    return result


def _collect_row(row: ExperimentRow, out: Path) -> RowResult:
    runs, unfinished = [], []
    folders = {
        int(path.name[4:]): path for path in (out / row.config).glob("seed*") if _SEED.match(path.name)
    }
    for seed, folder in sorted(folders.items()):
        if (folder / EVALUATION).is_file():
            runs.append(SeedResult(seed, _read(folder / EVALUATION), RunFolder(folder).read_facts()))
        else:
            unfinished.append(seed)
    return RowResult(row, tuple(runs), tuple(unfinished), _complexity(row, runs[0]) if runs else None)


_SEED = re.compile(r"seed\d+$")


def _complexity(row: ExperimentRow, run: SeedResult) -> Complexity:
    protocol = run.report["protocol"]
    height, width = protocol["input_size"]
    return measure(protocol["model"], len(run.report["iou"]), (height, width), **row.network_options())


def _read(path: Path) -> Report:
    try:
        report: Report = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path}: damaged ({error}); delete it and run the same command again to evaluate anew"
        ) from error
    return report


def title(result: TableResult) -> str:
    """Return the heading, which marks a tiny run."""
    if result.plan.budget == "full":
        return result.table.heading
    data = "generated scenes" if result.plan.generated else "the given data"
    whose = "the paper's" if result.first is None else "the"
    return f"TINY RUN on {data}, not {whose} {result.table.heading}"


def markdown(result: TableResult) -> str:
    """Return the whole report."""
    reason = result.objection()
    parts = [f"# {title(result)}", *_introduction(result, reason), _figures(result, reason is None)]
    parts += [_missing(result), _classes(result), *_circumstances(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_dict(result: TableResult) -> dict[str, Any]:
    """Return all values of the report: ours as fractions, the paper's as it prints them."""
    reason = result.objection()
    return {
        "table": result.table.name,
        "title": title(result),
        "plan": result.plan.to_dict(),
        "paper_comparable": reason is None,
        "objection": reason,
        "mixed_data": result.mixed_data(),
        "rows": [_row_values(row, reason is None, result.first) for row in result.rows],
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
    elif result.first is not None:
        lines.append(
            f"To {result.first.row.label}: difference of mIoU, seed by seed, mean and deviation. A "
            "difference within its deviation shows no effect."
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
        if reason is None:
            lines += remarks(row.row for row in result.rows if row.runs)
    return lines


def remarks(rows: Iterable[ExperimentRow]) -> list[str]:
    """Return what a reader should know of the printed figures of these rows, a paragraph each."""
    rows = list(rows)
    beyond = ", ".join(row.label for row in rows if row.beyond)
    lines = [f"{row.label}: {row.remark}." for row in rows if row.remark]
    return [*lines, f"Not in the paper's table, printed by their own sources: {beyond}."] if beyond else lines


def _weights(result: TableResult) -> str:
    """Describe the initial weights, by network where they differ."""
    fresh = "fresh (the paper's are pretrained)" if result.first is None else "fresh"
    sources = set(result.plan.init.values())
    texts = {source: fresh if source is None else f"from {source}" for source in sources}
    if len(sources) == 1:
        return texts[sources.pop()]
    return "; ".join(f"{name} {texts[source]}" for name, source in result.plan.init.items())


def _figures(result: TableResult, paper: bool) -> str:
    """Return mIoU, mAcc and size of every row; the paper's beside them where they are comparable."""
    rows = [_figure_row(row, paper, result.first) for row in result.rows]
    return "\n".join(
        markdown_table([name for name, _ in rows[0]], [[cell for _, cell in row] for row in rows])
    )


def _figure_row(row: RowResult, paper: bool, first: RowResult | None) -> list[tuple[str, str]]:
    """Return the heading and the text of each cell."""
    miou, printed, size = row.spread("miou"), row.row.paper, row.complexity
    cells = [("", row.row.label), ("seeds", ", ".join(str(run.seed) for run in row.runs) or "-")]
    cells += [("mIoU", _percent(miou)), ("95 % interval", _bounds(row.interval()))]
    if paper:
        known = None if miou is None or printed.miou is None else 100 * miou.mean - printed.miou
        cells += [("paper", plain(printed.miou)), ("difference", "-" if known is None else f"{known:+.2f}")]
    if first is not None:
        epochs = sorted({run.report["training"]["epochs"] for run in row.runs})
        minutes = row.minutes()
        same = row is first
        cells += [(f"to {first.row.label}", "" if same else _percent(row.gain(first)))]
        cells += [("interval of that", "" if same else _bounds(row.interval(first), "+"))]
        cells += [("epochs", " to ".join(dict.fromkeys(map(str, (*epochs[:1], *epochs[-1:])))) or "-")]
        cells += [("minutes", "-" if minutes is None else f"{minutes.mean:.1f}")]
    cells += [("mAcc", _percent(row.spread("macc"))), *([("paper", plain(printed.macc))] if paper else [])]
    cells += [("M param.", "-" if size is None else f"{size.parameters / 1e6:.2f}")]
    cells += [("paper", plain(printed.parameters))] if paper else []
    cells += [("GMAC of layers", "-" if size is None else _billions(size.layers))]
    cells += [("with attention", "-" if size is None else _billions(size.layers + size.attention))]
    return cells + ([("paper's G op.", plain(printed.operations))] if paper else [])


def _classes(result: TableResult) -> str:
    """Return the mean IoU of every class, and mIoU by day and night, for rows with the same classes."""
    first = result.runs[0].report
    parts = [part for part in ("day", "night") if part in first]
    names = [name for name, value in first["iou"].items() if value is not None]
    paths = [*((part, "miou") for part in parts), *(("iou", name) for name in names)]
    rows = []
    for row in result.rows:
        if row.runs and row.runs[0].report["iou"].keys() == first["iou"].keys():
            spreads = [row.spread(*path) for path in paths]
            means = [None if spread is None else spread.mean for spread in spreads]
            rows.append([row.row.label, *map(percent, means)])
    headings = ["IoU, mean over seeds", *(f"mIoU {part}" for part in parts), *names]
    return "\n".join(markdown_table(headings, rows))


def _missing(result: TableResult) -> str:
    """List rows and seeds that have not been run, so that nobody takes a part for the whole."""
    lines = []
    for row in result.rows:
        if row.unfinished:
            lines.append(f"{row.row.label}: seed {', '.join(map(str, row.unfinished))} not finished")
        elif not row.runs:
            lines.append(f"{row.row.label}: not run")
    return f"Missing: {'; '.join(lines)}." if lines else ""


def _circumstances(result: TableResult) -> list[str]:
    """Return the settings that affect the figures, once for every data set."""
    lines = [
        "mIoU and mAcc in percent, mean over seeds and, of several, their standard deviation (n - 1). The "
        "checkpoint is the best on the validation split; multiply-adds are at the size that the network "
        "sees. Intervals of 95 % are over resampled test images for the runs at hand: they do not cover "
        "other seeds, and take frames of one drive as independent.",
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
    rules, where = protocol_lines(shared)
    span = f"{min(epochs)} epochs" if len(epochs) == 1 else f"{min(epochs)} to {max(epochs)} epochs by row"
    trained = f"Recipe {training['recipe']}: {pairs} pairs, {span}"
    return f"P{rules[1:]}. {where}. {trained}, batches of {training['batch_size']}."


def _machine(facts: dict[str, Any]) -> str:
    versions = facts.get("environment", {})
    return ", ".join(f"{key} {versions[key]}" for key in ("efnet", "torch", "gpu") if key in versions)


def _row_values(row: RowResult, comparable: bool, first: RowResult | None) -> dict[str, Any]:
    report = row.runs[0].report if row.runs else {"iou": {}, "protocol": {"model": None, "modality": None}}
    return {
        "row": row.row.name,
        "label": row.row.label,
        "config": row.row.config,
        "model": report["protocol"]["model"],
        "modality": report["protocol"]["modality"],
        "miou": _values(row.spread("miou")),
        "macc": _values(row.spread("macc")),
        "iou": {name: asdict(s) for name in report["iou"] if (s := row.spread("iou", name)) is not None},
        "interval": row.interval(),
        "to_first_interval": None if first is None or row is first else row.interval(first),
        "to_first": None if first is None else _values(row.gain(first)),
        "complexity": None if row.complexity is None else row.complexity.to_dict(),
        "paper": asdict(row.row.paper) if comparable else None,
        "seeds": [_seed_values(run) for run in row.runs],
        "unfinished": list(row.unfinished),
    }


def _seed_values(run: SeedResult) -> dict[str, Any]:
    figures = {key: run.report[key] for key in ("miou", "macc")}
    result = run.facts.get("result", {})
    timing = {key: result.get(key) for key in ("best_epoch", "seconds")}
    return {**run.report["training"], "seed": run.seed, **figures, **timing}


def _values(spread: MeanDeviation | None) -> dict[str, Any] | None:
    return None if spread is None else asdict(spread)


def _percent(spread: MeanDeviation | None) -> str:
    return "-" if spread is None else spread.percent()


def _bounds(found: tuple[float, float] | None, sign: str = "") -> str:
    """Return both ends of an interval in percent."""
    return "-" if found is None else " to ".join(f"{100 * end:{sign}.2f}" for end in found)


def plain(value: float | None) -> str:
    """Return a figure as the paper prints it."""
    return "-" if value is None else f"{value:g}"


def _billions(operations: float) -> str:
    return f"{operations / 1e9:.3g}"
