"""The report of a table: Markdown for people, plain values for programs.

Figures of the reports are fractions; Markdown shows percent, as the paper does.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from efnet.evaluation.report import protocol_lines
from efnet.experiments.results import RowResult, Spread, TableResult

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
