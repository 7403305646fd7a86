"""The report of an evaluation with corruptions: plain values for JSON, and the tables made from them.

Figures in the report are fractions from 0 to 1; tables show percent.

The plot of an evaluation with corruptions. Needs matplotlib, which is an extra.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from efnet.core.files import replacing
from efnet.evaluation.corruptions.suite import GROUPS, Corruption
from efnet.evaluation.metrics import Tally
from efnet.evaluation.report import Report, build_report, headline, percent, protocol_lines
from efnet.evaluation.robustness import Robustness
from efnet.reporting.plots import figure_class

TITLES = {
    "rgb": "colour camera",
    "thermal": "thermal camera",
    "between": "between the cameras",
    "missing": "one camera missing",
}


def build_robustness_report(robustness: Robustness, circumstances: Mapping[str, Any]) -> Report:
    """Everything `efnet evaluate --corrupt --json` writes.

    Returns:
        the report of the clean pairs (`build_report`), and as `robustness`: `severities`, `seed`,
        `corruptions` (name to `group`, `unit` and `levels` of its parameter, `graded`, `severity` (figures by
        severity, under `any` where it has none), `miou` (mean over the severities evaluated) and `retained`
        (`miou` as a share of the clean one)), and `groups` (group to the mean `miou` of its corruptions, and
        `retained`). None where nothing can be averaged.
    """
    report = build_report(robustness.clean, circumstances)
    clean = report["miou"]
    entries = {entry.name: _entry(entry, robustness.of(entry), clean) for entry in robustness.corruptions}
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


def _entry(
    corruption: Corruption, tallies: Mapping[int | None, Tally], clean: float | None
) -> dict[str, Any]:
    figures = {
        "any" if severity is None else str(severity): tally.scores().to_dict()
        for severity, tally in tallies.items()
    }
    mean = _mean(figure["miou"] for figure in figures.values())
    return {
        "group": corruption.group,
        "unit": corruption.unit,
        "levels": list(corruption.levels) if corruption.graded else None,
        "graded": corruption.graded,
        "severity": figures,
        "miou": mean,
        "retained": _share(mean, clean),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _share(value: float | None, clean: float | None) -> float | None:
    return None if value is None or not clean else value / clean


def robustness_rows(report: Report) -> tuple[list[str], list[tuple[str, list[list[str]]]]]:
    """Heading, and by group its title and rows, in percent; the last row of a group is its mean.

    A fault without severities has a dash at each of them.
    """
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
    """What stands beside the table: the clean figure, the protocol, and what the corruptions depend on."""
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
    table = Table(heading[0])
    for name in heading[1:]:
        table.add_column(name, justify="right")
    for title, rows in parts:
        table.add_section()
        table.add_row(title, style="bold")
        for row in rows:
            table.add_row(*row)
    return table


def robustness_markdown(report: Report) -> str:
    """A Markdown table of every corruption, with the lines that decide the figures below it."""
    heading, parts = robustness_rows(report)
    lines = [f"| {' | '.join(heading)} |", f"| --- |{' ---: |' * (len(heading) - 1)}"]
    for title, rows in parts:
        lines += [f"| {' | '.join(row)} |" for row in rows[:-1]]
        mean = [f"**{title}, mean**", *(f"**{cell}**" if cell else "" for cell in rows[-1][1:])]
        lines.append(f"| {' | '.join(mean)} |")
    return "\n".join([*lines, "", f"{'. '.join(robustness_lines(report))}.", ""])


def plot_robustness(path: str | os.PathLike[str], report: Report, title: str = "") -> None:
    """Draw mIoU against severity, a panel for each group of corruptions, all on one scale.

    Severity 0 is the clean figure, which is also a dotted line. Faults without severities are bars.

    Args:
        path: an SVG or PNG file.
        report: of `efnet.evaluation.robustness_report.build_robustness_report`.
        title: above the panels.
    """
    values = report["robustness"]
    groups = list(values["groups"])
    figure = figure_class()(figsize=(3.6 * len(groups) + 0.6, 4.2), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    clean = _percent(report["miou"])
    for panel, group in zip(panels, groups, strict=True):
        entries = {name: entry for name, entry in values["corruptions"].items() if entry["group"] == group}
        if clean is not None:
            panel.axhline(clean, linestyle=":", color="gray", label="clean")
        if all(entry["graded"] for entry in entries.values()):
            _draw_lines(panel, entries, clean, values["severities"])
        else:
            panel.bar(
                list(entries), [_percent(entry["miou"]) or 0.0 for entry in entries.values()], width=0.5
            )
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


def _draw_lines(panel: Any, entries: dict[str, Any], clean: float | None, severities: list[int]) -> None:
    """One line per corruption, from the clean figure on."""
    for number, (name, entry) in enumerate(entries.items()):
        found = [(0, clean), *((s, _percent(entry["severity"][str(s)]["miou"])) for s in severities)]
        points = [(severity, value) for severity, value in found if value is not None]
        panel.plot(*zip(*points, strict=True), "osv^Dxp*+"[number % 9] + "-", markersize=4, label=name)
    panel.set_xticks([0, *severities], ["clean", *map(str, severities)])
    panel.set_xlabel("severity")


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
