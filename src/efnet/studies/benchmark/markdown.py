"""Reports as Markdown.

The plots of `--mode growth` and `--mode forward`. They need matplotlib, which is an extra.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from efnet.core.files import replacing
from efnet.reporting.plots import figure_class
from efnet.studies.benchmark.measure import summary

NOT_MEASURED = "not measured"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, columns aligned for the terminal; the first one to the left."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return [line(headings), rule, *map(line, rows)]


def head(report: dict[str, Any]) -> list[str]:
    """Circumstances, and the matrix-multiply rate if there is one for the whole run."""
    lines = [summary(report["machine"])]
    if report.get("gemm"):
        rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in report["gemm"].items())
        lines.append(f"matrix multiply in the same run: {rates}")
    return [*lines, ""]


def network_tables(report: dict[str, Any]) -> str:
    """Of `efnet.studies.benchmark.networks.compare`."""
    rows = report["rows"]
    first = rows[0]
    what = "step of training" if first["training"] else "forward pass"
    size = f"{first['size'][0]}x{first['size'][1]}"
    given = f", {first['pairs']} given pairs in turn" if first["pairs"] else ""
    lines = [f"{what}, {size}, batch {first['batch']}, precision {first['precision']}{given}", *head(report)]
    done = [row for row in rows if "error" not in row]
    headings = ["model", "ms", "quartiles", "p90", "pairs/s", "GMAC", "times limit", "parameters", "peak MB"]
    extras = {name: cell for name, (wanted, cell) in _EXTRAS.items() if any(map(wanted, done))}
    lines += table(
        [*headings, *extras], [[*_network_row(row), *(cell(row) for cell in extras.values())] for row in done]
    )
    lines += [f"{row['label']}: does not work here ({row['error']})" for row in rows if "error" in row]
    for row in done:
        if "breakdown" in row:
            lines += ["", *breakdown_table(row)]
    return "\n".join(lines)


def _network_row(row: dict[str, Any]) -> list[str]:
    return [
        row["label"],
        milliseconds(row["seconds"]["median"]),
        quartiles(row["seconds"]),
        milliseconds(row["seconds"]["p90"]),
        f"{row['pairs_per_second']:.2f}",
        f"{row['multiply_adds'] / 1e9:.1f}",
        f"{row['times_limit']:.2f}",
        f"{row['parameters'] / 1e6:.2f} M",
        megabytes(row.get("memory"), "peak"),
    ]


def _agreement(row: dict[str, Any], which: str) -> str:
    share = row["agreement"][which]
    return "-" if share is None else percent(share)


def _miou(row: dict[str, Any]) -> str:
    miou = row.get("miou")
    return "-" if miou is None else f"{100 * miou:.2f}"


def _ratio(row: dict[str, Any]) -> str:
    ratio = row.get("times_plain")
    return "-" if ratio is None else f"{ratio:.2f}"


_EXTRAS: dict[str, tuple[Callable[[dict[str, Any]], bool], Callable[[dict[str, Any]], str]]] = {
    "to PyTorch": (lambda row: bool(row["file"]) and row["times_plain"] is not None, _ratio),
    "classes agree": (lambda row: "agreement" in row, lambda row: _agreement(row, "overall")),
    "worst pair": (lambda row: "agreement" in row, lambda row: _agreement(row, "worst")),
    "mIoU": (lambda row: row.get("miou") is not None, _miou),
}
"""Columns that are there if a row has what they show: heading, whether a row has it, and its cell."""


def breakdown_table(row: dict[str, Any]) -> list[str]:
    """Where the time of one contestant goes."""
    found = row["breakdown"]
    parts = [
        [part["name"], milliseconds(part["seconds"]), f"{100 * part['share']:.1f} %"]
        for part in found["parts"]
    ]
    parts.append(["whole", milliseconds(found["seconds"]), "100.0 %"])
    return [
        *table([f"parts of {row['label']}", "ms", "share"], parts),
        f"clustering: {100 * found['clustering_share']:.1f} % of the whole",
    ]


def clustering_tables(report: dict[str, Any]) -> str:
    """Of `efnet.studies.benchmark.scaling.compare_clusterings`."""
    headings = ["case", "batch", "N", "C", "tau", "dense ms", "ours ms", "faster", "dense MB", "ours MB"]
    headings += ["same centres", "same assignment"]
    rows = []
    for row in report["rows"]:
        agreement, seconds = row["agreement"], row["seconds"]
        rows.append(
            [
                row["name"],
                str(row["batch"]),
                str(row["tokens"]),
                str(row["channels"]),
                str(row["tau"]),
                milliseconds(seconds["dense"]["median"]) if "dense" in seconds else "-",
                milliseconds(seconds["ours"]["median"]),
                f"{row['faster']:.1f}" if row["faster"] else "-",
                megabytes(row["memory"].get("dense"), "added") if "dense" in seconds else "-",
                megabytes(row["memory"].get("ours"), "added"),
                f"{100 * agreement['centers']:.2f} %" if agreement else "-",
                f"{100 * agreement['assignments']:.2f} %" if agreement else "-",
            ]
        )
    lines = ["efnet.ops.dpc_knn against the dense formulation", *head(report), *table(headings, rows)]
    return "\n".join(
        [*lines, *(f"{row['name']}: {row['skipped']}" for row in report["rows"] if row["skipped"])]
    )


def growth_tables(report: dict[str, Any]) -> str:
    """Of `efnet.studies.benchmark.scaling.measure_growth`."""
    headings = ["size", "ours ms", "quartiles", "dense ms", "ours MB", "dense MB", "ours ms/Mpixel"]
    rows = []
    for row in report["rows"]:
        seconds, memory = row["seconds"], row["memory"]
        rows.append(
            [
                f"{row['size'][0]}x{row['size'][1]}",
                milliseconds(seconds["ours"]["median"]),
                quartiles(seconds["ours"]),
                milliseconds(seconds["dense"]["median"]) if "dense" in seconds else "-",
                megabytes(memory.get("ours"), "peak"),
                megabytes(memory.get("dense"), "peak") if "dense" in seconds else "-",
                f"{1e9 * seconds['ours']['median'] / row['pixels']:.0f}",
            ]
        )
    title = f"growth of {report['model']}, batch {report['batch']}, precision {report['precision']}"
    lines = [title, *head(report), *table(headings, rows)]
    lines += [
        f"{row['size'][0]}x{row['size'][1]}: {row['skipped']}" for row in report["rows"] if row["skipped"]
    ]
    for name, found in report["slopes"].items():
        if found["time"] is not None:
            memory = "" if found["memory"] is None else f", memory {found['memory']:.2f}"
            lines.append(f"exponent against pixels, {name}: time {found['time']:.2f}{memory} (1 is linear)")
    return "\n".join(lines)


def milliseconds(seconds: float) -> str:
    """With three digits that mean something."""
    return f"{1e3 * seconds:.1f}" if seconds < 0.1 else f"{1e3 * seconds:.0f}"


def percent(share: float) -> str:
    """With the digits that tell it from all; all alone is 100 %."""
    return "100 %" if share == 1 else f"{min(100 * share, 99.9999):.4f} %"


def quartiles(spread: dict[str, float]) -> str:
    """Lower and upper."""
    return f"{milliseconds(spread['low'])} - {milliseconds(spread['high'])}"


def megabytes(peak: dict[str, int] | None, which: str) -> str:
    """In units of a million bytes."""
    return NOT_MEASURED if peak is None else f"{peak[which] / 1e6:.0f}"


_MARKERS = {"plain": "o", "compile": "v", "cuda-graph": "^", "program": "P", "onnx": "s", "openvino": "D"}
"""Those of other variants, such as of lower precision, are crosses."""


def plot_growth(path: str | os.PathLike[str], report: dict[str, Any]) -> None:
    """Draw time and memory against pixels, both on logarithmic axes, beside lines of slope 1.

    Args:
        path: an SVG or PNG file.
        report: of `efnet.studies.benchmark.scaling.measure_growth`.
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
        reports: of `efnet.studies.benchmark.networks.compare`, perhaps with `miou` in rows.
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
