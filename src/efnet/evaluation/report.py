"""The reports of an evaluation, without and with corruptions: values for JSON, tables, and a plot.

Figures in a report are fractions from 0 to 1; tables show percent. The plot needs matplotlib, an extra.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from efnet.core.files import replacing
from efnet.evaluation.corruptions.suite import GROUPS
from efnet.evaluation.metrics import Tally, constant_prediction, counted, score
from efnet.evaluation.robustness import Robustness
from efnet.reporting.plots import figure_class
from efnet.reporting.tables import markdown_table, percent

Report = dict[str, Any]


def build_report(tally: Tally, circumstances: Mapping[str, Any]) -> Report:
    """Build the report of an evaluation, plain values.

    `circumstances` is the rest that decides the figure and joins `protocol`: data set, split, input size,
    test-time augmentation, checkpoint and how it was chosen. Returns `miou`, `macc` (fractions; None where no
    averaged class occurs), `iou` and `acc` (class name to fraction; None for classes that do not enter the
    mean), `day` and `night` with the same keys and `images` where the pairs know their condition, `confusion`
    (rows truth, columns prediction, without the pixels that the protocol ignores), `protocol`, `images`, and
    `trivial`: the figures of predicting one class everywhere, and its name as `prediction`.
    """
    overall = tally.matrix()
    report: Report = tally.scores().to_dict()
    for condition in tally.conditions():
        part = tally.matrix(condition)
        report[condition] = {**tally.scores(condition).to_dict(), "images": part.images}
    # Class 0, the unlabeled or background class; where the protocol does not average it (predicting it would
    # score 0 whatever the data), the averaged class that most pixels have in truth.
    averaged = tally.protocol.averaged(len(tally.classes))
    truth = overall.counts.sum(axis=1)  # of the data alone, whatever was predicted
    value = 0 if 0 in averaged else max(averaged, key=lambda value: int(truth[value]))
    trivial = score(constant_prediction(overall.counts, value), tally.protocol, tally.classes)
    report["trivial"] = {"prediction": tally.classes.names[value], "miou": trivial.miou, "macc": trivial.macc}
    report["confusion"] = counted(overall.counts, tally.protocol).tolist()
    report["protocol"] = {**tally.protocol.to_dict(tally.classes), **circumstances}
    report["images"] = overall.images
    return report


def protocol_lines(report: Report) -> list[str]:
    """Two lines to stand beside the figures: the protocol, and the circumstances."""
    protocol = report["protocol"]
    parts = [
        " ".join(str(protocol[key]) for key in ("dataset", "split") if protocol.get(key)),
        f"{report['images']} pairs",
    ]
    if "input_size" in protocol:
        size = protocol["input_size"]
        parts.append(f"input {size[0]}x{size[1]}" if size else "input at its own size")
    if "tile" in protocol:
        height, width, overlap = protocol["tile"]
        parts.append(f"tiles of {height}x{width} that share {overlap} pixels")
    if "homography" in protocol:
        parts.append("thermal aligned by a homography")
    if "missing" in protocol:
        parts.append(f"dead images: {protocol['missing']}")
    if "tta" in protocol:
        parts.append(f"TTA {protocol['tta']}" if protocol["tta"] else "no TTA")
    if protocol.get("checkpoint"):
        chosen = protocol.get("selected_on") or "unknown split"
        parts.append(f"checkpoint {protocol['checkpoint']} (chosen on: {chosen})")
    if protocol.get("predictions"):
        parts.append(f"predictions {protocol['predictions']}")
    return [f"protocol {protocol['summary']}", "; ".join(part for part in parts if part)]


def headline(report: Report) -> str:
    """The figures in one line, with the interval of mIoU if it is known, and the trivial figure."""
    trivial = report["trivial"]
    return (
        f"mIoU {percent(report['miou'])}{_bracketed(report)}, mAcc {percent(report['macc'])} (percent); "
        f"predicting {trivial['prediction']} everywhere: mIoU {percent(trivial['miou'])}"
    )


def _bracketed(report: Report) -> str:
    """The interval of mIoU in brackets; empty if the report has none."""
    bounds = report.get("interval", {}).get("miou")
    return "" if bounds is None else f" [{percent(bounds[0])}, {percent(bounds[1])}]"


_FEW = 5  # units with a class: one resample in e^5 = 148 or more has none of them


def evidence_lines(report: Report) -> list[str]:
    """Lines about the intervals, boundary IoU and calibration, as far as the report has them."""
    lines = []
    if "interval" in report:
        lines += _interval_lines(report)
    if "boundary" in report:
        lines.append(
            f"boundary: IoU within {100 * report['boundary']['dilation']:g} % of the image's diagonal of the "
            "outlines"
        )
    if "calibration" in report:
        found = report["calibration"]
        loss = "-" if found["nll"] is None else f"{found['nll']:.4f}"
        lines.append(
            f"calibration: ECE {percent(found['ece'])} % ({len(found['bins'])} bins), "
            f"NLL {loss}, at temperature {found['temperature']:.4g}"
        )
    return lines


def _interval_lines(report: Report) -> list[str]:
    """How the intervals were found, and the classes in few images."""
    plan = report["interval"]
    if plan["miou"] is None:
        return [f"no interval of mIoU: fewer than two {plan['unit']}s have pixels that count"]
    caution = "images of a group stay together"
    if plan["unit"] == "image":
        caution = "it takes images as independent, which frames of one drive are not"
    lines = [
        f"[..]: {100 * plan['level']:g} % interval, {plan['method']} over {plan['units']} {plan['unit']}s, "
        f"{plan['resamples']} resamples, seed {plan['seed']}; {caution}; it does not cover the training seed"
    ]
    averaged = {name: count for name, count in plan["with"].items() if report["iou"][name] is not None}
    rare = [f"{name} in {count}" for name, count in averaged.items() if count < _FEW]
    if rare:
        lines.append(
            f"few {plan['unit']}s decide the interval: {', '.join(rare)} of {plan['units']}; a resample "
            "without them counts 0 where the class is predicted"
        )
    return lines


def table_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Heading and rows, in percent: one row per class, then the mean."""
    parts = [part for part in ("overall", "day", "night") if part == "overall" or part in report]
    figures = [report if part == "overall" else report[part] for part in parts]
    prefixes = ["" if part == "overall" else f"{part} " for part in parts]
    heading = ["class", *(f"{prefix}{key}" for prefix in prefixes for key in ("IoU", "acc"))]
    rows = [
        [name, *(percent(figure[key][name]) for figure in figures for key in ("iou", "acc"))]
        for name in report["iou"]
    ]
    mean = ["mean", *(percent(figure[key]) for figure in figures for key in ("miou", "macc"))]
    rows.append(mean)
    if "boundary" in report:
        edges = report["boundary"]
        heading.insert(3, "boundary IoU")
        for row, value in zip(rows, (*edges["iou"].values(), edges["miou"]), strict=True):
            row.insert(3, percent(value))
    return heading, rows


def interval_row(report: Report, heading: Sequence[str]) -> list[str]:
    """The row of intervals below the means, in percent; empty if the report has none."""
    if "interval" not in report:
        return []
    parts = {"": report, **{f"{part} ": report[part] for part in ("day", "night") if part in report}}
    found = {
        f"{prefix}{name}": part["interval"][key]
        for prefix, part in parts.items()
        for name, key in (("IoU", "miou"), ("acc", "macc"))
    }
    if "boundary" in report:
        found["boundary IoU"] = report["boundary"]["interval"]["miou"]
    cells = [found.get(name) for name in heading[1:]]
    texts = ["-" if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}" for bounds in cells]
    return [f"{100 * report['interval']['level']:g} % interval", *texts]


def markdown(report: Report) -> str:
    """A Markdown table of every class, with the lines that decide the figures above and below it."""
    heading, rows = table_rows(report)
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rows[-1] = [f"**{cell}**" for cell in rows[-1]]
    if bounds := interval_row(report, heading):
        rows.append(bounds)
    protocol, circumstances = protocol_lines(report)
    below = f"{protocol[0].upper()}{protocol[1:]}. {circumstances}."
    more = [f"{line[0].upper()}{line[1:]}." for line in evidence_lines(report)]
    return "\n".join([f"{headline(report)}.", "", *markdown_table(heading, rows), "", below, *more, ""])


def console_table(report: Report) -> Table:
    """The table of every class for the terminal, in percent."""
    heading, rows = table_rows(report)
    table = _console_table(heading)
    for row in rows[:-1]:
        table.add_row(*(escape(cell) for cell in row))
    table.add_section()
    table.add_row(*rows[-1], style="bold")
    if bounds := interval_row(report, heading):
        table.add_row(*bounds)
    return table


def _console_table(heading: Sequence[str]) -> Table:
    table = Table(escape(heading[0]))
    for name in heading[1:]:
        table.add_column(name, justify="right")
    return table


TITLES = {
    "rgb": "colour camera",
    "thermal": "thermal camera",
    "between": "between the cameras",
    "missing": "one camera missing",
}


def build_robustness_report(robustness: Robustness, circumstances: Mapping[str, Any]) -> Report:
    """Return the report of an evaluation with corruptions.

    Returns the report of the clean pairs (`build_report`), and as `robustness`: `severities`, `seed`,
    `corruptions` (name to `group`, `unit` and `levels` of its parameter, `graded`, `severity` (figures by
    severity, under `any` where it has none), `miou` (mean over the severities evaluated) and `retained`
    (`miou` as a share of the clean one)), and `groups` (group to the mean `miou` of its corruptions, and
    `retained`). None where nothing can be averaged.
    """
    report = build_report(robustness.clean, circumstances)
    clean = report["miou"]
    entries: dict[str, Any] = {}
    for corruption in robustness.corruptions:
        figures = {
            "any" if severity is None else str(severity): tally.scores().to_dict()
            for severity, tally in robustness.of(corruption).items()
        }
        mean = _mean(figure["miou"] for figure in figures.values())
        entries[corruption.name] = {
            "group": corruption.group,
            "unit": corruption.unit,
            "levels": list(corruption.levels) if corruption.graded else None,
            "graded": corruption.graded,
            "severity": figures,
            "miou": mean,
            "retained": _share(mean, clean),
        }
    groups = {}
    for group in GROUPS:
        found = [entry["miou"] for entry in entries.values() if entry["group"] == group]
        if found:
            mean = _mean(found)
            groups[group] = {"corruptions": len(found), "miou": mean, "retained": _share(mean, clean)}
    report["robustness"] = {
        "severities": list(robustness.severities),
        "seed": robustness.seed,
        "corruptions": entries,
        "groups": groups,
    }
    return report


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _share(value: float | None, clean: float | None) -> float | None:
    return None if value is None or not clean else value / clean


def robustness_rows(report: Report) -> tuple[list[str], list[tuple[str, list[list[str]]]]]:
    """Heading, and title and rows by group, in percent; means come last, faults not graded have dashes."""
    values = report["robustness"]
    severities = [str(severity) for severity in values["severities"]]
    heading = ["mIoU", *severities, "mean", "retained"]
    parts = []
    for group, figure in values["groups"].items():
        rows = []
        for name, entry in values["corruptions"].items():
            if entry["group"] == group:
                cells = [percent(entry["severity"].get(key, {}).get("miou")) for key in severities]
                rows.append([name, *cells, percent(entry["miou"]), _retained(entry)])
        empty = [""] * len(severities)
        rows.append(["mean", *empty, percent(figure["miou"]), _retained(figure)])
        parts.append((TITLES[group], rows))
    return heading, parts


def _retained(figure: Mapping[str, Any]) -> str:
    value = figure["retained"]
    return "-" if value is None else f"{100 * value:.1f} %"


def robustness_lines(report: Report) -> list[str]:
    """Lines to stand beside the table: the clean figure, the protocol, and what the corruptions depend on."""
    values = report["robustness"]
    limit = report["protocol"].get("limit")
    pairs = f"{report['images']} of {limit['of']} pairs, at even steps; " if limit else ""
    return [
        f"clean: {headline(report)}",
        *protocol_lines(report),
        f"{pairs}corruptions drawn with seed {values['seed']}, before resizing; retained: mean over "
        "severities as a share of clean",
    ]


def robustness_table(report: Report) -> Table:
    """The table for the terminal, in percent."""
    heading, parts = robustness_rows(report)
    table = _console_table(heading)
    for title, rows in parts:
        table.add_section()
        table.add_row(title, style="bold")
        for row in rows:
            table.add_row(*row)
    return table


def robustness_markdown(report: Report) -> str:
    """A Markdown table of every corruption, with the lines that decide the figures below it."""
    heading, parts = robustness_rows(report)
    table: list[list[str]] = []
    for title, rows in parts:
        mean = [f"**{title}, mean**", *(f"**{cell}**" if cell else "" for cell in rows[-1][1:])]
        table += [*rows[:-1], mean]
    lines = markdown_table(heading, table)
    return "\n".join([*lines, "", f"{'. '.join(robustness_lines(report))}.", ""])


def plot_robustness(path: str | os.PathLike[str], report: Report, title: str = "") -> None:
    """Draw mIoU against severity to an SVG or PNG file, a panel for each group of corruptions, on one scale.

    Severity 0 is the clean figure, which is also a dotted line. Faults without severities are bars.
    """
    values = report["robustness"]
    groups = list(values["groups"])
    figure = figure_class()(figsize=(3.6 * len(groups) + 0.6, 4.2), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    clean = report["miou"]
    for panel, group in zip(panels, groups, strict=True):
        entries = {name: entry for name, entry in values["corruptions"].items() if entry["group"] == group}
        if clean is not None:
            panel.axhline(100 * clean, linestyle=":", color="gray", label="clean")
        if all(entry["graded"] for entry in entries.values()):
            severities = values["severities"]
            for number, (name, entry) in enumerate(entries.items()):
                found = [(0, clean), *((s, entry["severity"][str(s)]["miou"]) for s in severities)]
                points = [(severity, 100 * value) for severity, value in found if value is not None]
                panel.plot(
                    *zip(*points, strict=True), "osv^Dxp*+"[number % 9] + "-", markersize=4, label=name
                )
            panel.set_xticks([0, *severities], ["clean", *map(str, severities)])
            panel.set_xlabel("severity")
        else:
            panel.bar(list(entries), [100 * (entry["miou"] or 0.0) for entry in entries.values()], width=0.5)
        panel.set_title(TITLES[group], fontsize=10)
        panel.grid(visible=True, axis="y", color="0.9")
        panel.set_axisbelow(True)
        panel.legend(fontsize=7)
    panels[0].set_ylabel("mIoU (percent)")
    panels[0].set_ylim(bottom=0)
    if title:
        figure.suptitle(title, fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary)
