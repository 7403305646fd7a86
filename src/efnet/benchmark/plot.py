"""The plot of `--mode growth`. Needs matplotlib, which is an extra."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from efnet.errors import InputError
from efnet.files import replacing

SUFFIXES = (".svg", ".png")


def check_plot(path: str | os.PathLike[str]) -> None:
    """Refuse what could not be drawn, before anything is measured.

    Raises:
        InputError: another suffix than SVG's or PNG's, or matplotlib is not installed.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise InputError(f"--plot {path}: give a file name that ends in {' or '.join(SUFFIXES)}")
    _figure_class()


def _figure_class() -> Any:
    try:
        # Not pyplot: a figure by itself needs no window system.
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise InputError("--plot needs matplotlib: pip install 'efnet[plot]'") from error


def plot_growth(path: str | os.PathLike[str], report: dict[str, Any]) -> None:
    """Draw time and memory against pixels, both on logarithmic axes, beside lines of slope 1.

    Args:
        path: an SVG or PNG file.
        report: of `efnet.benchmark.growth.measure_growth`.
    """
    figure = _figure_class()(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    rows = report["rows"]
    for panel, title, unit, scale in (
        (panels[0], "time of a forward pass", "s", 1.0),
        (panels[1], "memory on top of the process", "MB", 1e-6),
    ):
        for name, label, style in (("ours", "efnet", "o-"), ("dense", "dense clustering", "s--")):
            points = [(row["pixels"], scale * value) for row in rows if (value := _value(row, name, unit))]
            if points:
                panel.plot(*zip(*points, strict=True), style, label=label)
            if name == "ours" and points:
                ends = [points[0][0], points[-1][0]]
                linear = [points[0][1] * end / points[0][0] for end in ends]
                panel.plot(ends, linear, ":", color="gray", label="linear in pixels")
        _dress(panel, f"{title} ({unit})", rows)
    figure.suptitle(f"{report['model']}, batch {report['batch']}, {report['machine']['device']}", fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary)


def _value(row: dict[str, Any], name: str, unit: str) -> float | None:
    """What one panel shows of a row; None: not measured."""
    if unit == "s":
        spread = row["seconds"].get(name)
        return None if spread is None else float(spread["median"])
    memory = row["memory"].get(name)
    return None if memory is None else float(memory["added"])


def _dress(panel: Any, title: str, rows: list[dict[str, Any]]) -> None:
    """Axes, grid and legend."""
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_title(title, fontsize=10)
    panel.set_xticks(
        [row["pixels"] for row in rows], [f"{row['size'][0]}x{row['size'][1]}" for row in rows], fontsize=8
    )
    panel.minorticks_off()
    panel.grid(visible=True, color="0.9")
    panel.legend(fontsize=8)
