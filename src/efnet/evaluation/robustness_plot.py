"""The plot of an evaluation with corruptions. Needs matplotlib, which is an extra."""

from __future__ import annotations

import os
from typing import Any

from efnet.evaluation.report import Report
from efnet.evaluation.robustness_report import TITLES
from efnet.figure import figure_class
from efnet.files import replacing


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
