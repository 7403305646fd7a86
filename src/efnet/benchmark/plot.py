"""The plots of `--mode growth` and `--mode forward`. They need matplotlib, which is an extra."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from efnet.figure import figure_class
from efnet.files import replacing

_MARKERS = {"plain": "o", "compile": "v", "cuda-graph": "^", "program": "P", "onnx": "s", "openvino": "D"}
"""Those of other variants, such as of lower precision, are crosses."""


def plot_growth(path: str | os.PathLike[str], report: dict[str, Any]) -> None:
    """Draw time and memory against pixels, both on logarithmic axes, beside lines of slope 1.

    Args:
        path: an SVG or PNG file.
        report: of `efnet.benchmark.growth.measure_growth`.
    """
    figure = figure_class()(figsize=(10, 4.2), layout="constrained")
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


def plot_latency(path: str | os.PathLike[str], reports: Sequence[dict[str, Any]]) -> None:
    """Draw a panel per size: accuracy where a row has it, else parameters, against latency.

    A contestant is a point at its median with a bar from p10 to p90; what runs it gives the marker.

    Args:
        path: an SVG or PNG file.
        reports: of `efnet.benchmark.network.compare`, perhaps with `miou` in rows.
    """
    figure = figure_class()(figsize=(6.4 * len(reports), 4.8), layout="constrained")
    panels = figure.subplots(1, len(reports), squeeze=False)[0]
    for panel, report in zip(panels, reports, strict=True):
        _latency_panel(panel, report)
    with replacing(path) as temporary:
        figure.savefig(temporary)


def _latency_panel(panel: Any, report: dict[str, Any]) -> None:
    rows = [row for row in report["rows"] if "error" not in row]
    scored = any(row.get("miou") is not None for row in rows)
    for variant in dict.fromkeys(row["variant"] for row in rows):
        those = [row for row in rows if row["variant"] == variant]
        those = [row for row in those if not scored or row.get("miou") is not None]
        seconds = [row["seconds"] for row in those]
        middle = [1e3 * spread["median"] for spread in seconds]
        bars = [[1e3 * abs(spread["median"] - spread[end]) for spread in seconds] for end in ("p10", "p90")]
        heights = [100 * row["miou"] if scored else row["parameters"] / 1e6 for row in those]
        label = "PyTorch" if variant == "plain" else variant
        panel.errorbar(middle, heights, xerr=bars, fmt=_MARKERS.get(variant, "x"), label=label, capsize=2)
        for row, x, y in zip(those, middle, heights, strict=True):
            name = Path(row["model"]).name
            panel.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
    first = report["rows"][0]
    panel.set_xscale("log")
    panel.set_xlabel("latency (ms)", fontsize=9)
    panel.set_ylabel("mIoU (%)" if scored else "parameters (M)", fontsize=9)
    if not scored:
        panel.set_yscale("log")
    machine = report["machine"]
    where = machine.get("gpu") or f"{machine['threads']} threads"
    size = f"{first['size'][0]}x{first['size'][1]}"
    panel.set_title(f"{size}, batch {first['batch']}, {where}", fontsize=10)
    panel.grid(visible=True, color="0.9")
    panel.legend(fontsize=8)


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
