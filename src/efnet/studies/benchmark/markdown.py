"""Reports of the benchmark as Markdown, and the plots of modes growth and forward (matplotlib, an extra)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from efnet.core.files import replacing
from efnet.reporting.plots import figure_class
from efnet.reporting.tables import markdown_table, percent
from efnet.studies.benchmark.measure import summary

Row = dict[str, Any]


def head(report: dict[str, Any]) -> list[str]:
    """Return the circumstances, and the rates of products and memory where they are of the whole run."""
    lines = [summary(report["machine"])]
    if report.get("gemm"):
        rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in report["gemm"].items())
        bandwidth = f"; copy in memory: {report['bandwidth'] / 1e9:.1f} GB/s" if "bandwidth" in report else ""
        lines.append(f"matrix multiply in the same run: {rates}{bandwidth}")
    return [*lines, ""]


def network_tables(report: dict[str, Any]) -> str:
    """Format a report of `efnet.studies.benchmark.networks.compare`."""
    rows = report["rows"]
    first = rows[0]
    kind = "step of training" if first["training"] else "forward pass"
    given = f", {first['pairs']} given pairs in turn" if first["pairs"] else ""
    title = f"{kind}, {_size(first)}, batch {first['batch']}, precision {first['precision']}{given}"
    done = [row for row in rows if "error" not in row]
    cells = _NETWORK | {name: cell for name, (wanted, cell) in _EXTRAS.items() if any(map(wanted, done))}
    lines = [title, *head(report), *_table(cells, done)]
    lines += [f"{row['label']}: does not work here ({row['error']})" for row in rows if "error" in row]
    for row in done:
        if "breakdown" in row:
            lines += ["", *_breakdown(row)]
    return "\n".join(lines)


def _breakdown(row: Row) -> list[str]:
    """Format the parts of one contestant."""
    found = row["breakdown"]
    parts = [*found["parts"], {"name": "whole", "seconds": found["seconds"], "share": 1.0}]
    cells = [
        [part["name"], milliseconds(part["seconds"]), f"{percent(part['share'], 1)} %"] for part in parts
    ]
    return [
        *markdown_table([f"parts of {row['label']}", "ms", "share"], cells, aligned=True),
        f"clustering: {percent(found['clustering_share'], 1)} % of the whole",
    ]


def clustering_tables(report: dict[str, Any]) -> str:
    """Format a report of `efnet.studies.benchmark.scaling.compare_clusterings`."""
    lines = ["efnet.ops.dpc_knn against the dense formulation", *head(report)]
    lines += _table(_CLUSTERING, report["rows"])
    return "\n".join(
        [*lines, *(f"{row['name']}: {row['skipped']}" for row in report["rows"] if row["skipped"])]
    )


def growth_tables(report: dict[str, Any]) -> str:
    """Format a report of `efnet.studies.benchmark.scaling.measure_growth`."""
    title = f"growth of {report['model']}, batch {report['batch']}, precision {report['precision']}"
    lines = [title, *head(report), *_table(_GROWTH, report["rows"])]
    lines += [f"{_size(row)}: {row['skipped']}" for row in report["rows"] if row["skipped"]]
    for name, found in report["slopes"].items():
        if found["time"] is not None:
            memory = "" if found["memory"] is None else f", memory {found['memory']:.2f}"
            lines.append(f"exponent against pixels, {name}: time {found['time']:.2f}{memory} (1 is linear)")
    return "\n".join(lines)


def milliseconds(seconds: float) -> str:
    """Return milliseconds, with a decimal below 100."""
    return f"{1e3 * seconds:.1f}" if seconds < 0.1 else f"{1e3 * seconds:.0f}"


def agreement_percent(share: float | None) -> str:
    """Return a share with digits enough to distinguish it from 1; only 1 is 100 %."""
    if share is None:
        return "-"
    return "100 %" if share == 1 else f"{min(100 * share, 99.9999):.4f} %"


def _size(row: Row) -> str:
    return f"{row['size'][0]}x{row['size'][1]}"


def _quartiles(row: Row, name: str | None = None) -> str:
    seconds = row["seconds"] if name is None else row["seconds"][name]
    return f"{milliseconds(seconds['low'])} - {milliseconds(seconds['high'])}"


def _time(row: Row, name: str) -> str:
    """Return the median of a contestant; a dash where it was left out."""
    return milliseconds(row["seconds"][name]["median"]) if name in row["seconds"] else "-"


def _megabytes(peak: dict[str, int] | None, key: str) -> str:
    return "not measured" if peak is None else f"{peak[key] / 1e6:.0f}"


def _memory(row: Row, name: str, key: str) -> str:
    return _megabytes(row["memory"].get(name), key) if name in row["seconds"] else "-"


def _shared(row: Row, key: str) -> str:
    return f"{percent(row['agreement'][key])} %" if row["agreement"] else "-"


Cell = Callable[[Row], str]

_NETWORK: dict[str, Cell] = {
    "model": lambda row: str(row["label"]),
    "ms": lambda row: milliseconds(row["seconds"]["median"]),
    "quartiles": _quartiles,
    "p90": lambda row: milliseconds(row["seconds"]["p90"]),
    "pairs/s": lambda row: f"{row['pairs_per_second']:.2f}",
    "GMAC": lambda row: f"{row['multiply_adds'] / 1e9:.1f}",
    "MB moved": lambda row: f"{row['bytes_moved'] / 1e6:.0f}",
    "times limit": lambda row: f"{row['times_limit']:.2f}",
    "limited by": lambda row: str(row["limited_by"]),
    "parameters": lambda row: f"{row['parameters'] / 1e6:.2f} M",
    "peak MB": lambda row: _megabytes(row.get("memory"), "peak"),
}
"""Columns: heading and cell; likewise below."""

_EXTRAS: dict[str, tuple[Callable[[Row], bool], Cell]] = {
    "to PyTorch": (
        lambda row: bool(row["file"]) and row["times_plain"] is not None,
        lambda row: "-" if row.get("times_plain") is None else f"{row['times_plain']:.2f}",
    ),
    "classes agree": (
        lambda row: "agreement" in row,
        lambda row: agreement_percent(row["agreement"]["overall"]),
    ),
    "worst pair": (lambda row: "agreement" in row, lambda row: agreement_percent(row["agreement"]["worst"])),
    "mIoU": (lambda row: row.get("miou") is not None, lambda row: percent(row.get("miou"))),
}
"""Columns that appear if any row has the figure: heading, whether a row has it, and its cell."""

_CLUSTERING: dict[str, Cell] = {
    "case": lambda row: str(row["name"]),
    "batch": lambda row: str(row["batch"]),
    "N": lambda row: str(row["tokens"]),
    "C": lambda row: str(row["channels"]),
    "tau": lambda row: str(row["tau"]),
    "dense ms": lambda row: _time(row, "dense"),
    "ours ms": lambda row: _time(row, "ours"),
    "faster": lambda row: f"{row['faster']:.1f}" if row["faster"] else "-",
    "dense MB": lambda row: _memory(row, "dense", "added"),
    "ours MB": lambda row: _memory(row, "ours", "added"),
    "same centres": lambda row: _shared(row, "centers"),
    "same assignment": lambda row: _shared(row, "assignments"),
}

_GROWTH: dict[str, Cell] = {
    "size": _size,
    "ours ms": lambda row: _time(row, "ours"),
    "quartiles": lambda row: _quartiles(row, "ours"),
    "dense ms": lambda row: _time(row, "dense"),
    "ours MB": lambda row: _memory(row, "ours", "peak"),
    "dense MB": lambda row: _memory(row, "dense", "peak"),
    "ours ms/Mpixel": lambda row: f"{1e9 * row['seconds']['ours']['median'] / row['pixels']:.0f}",
}


def _table(cells: dict[str, Cell], rows: Sequence[Row]) -> list[str]:
    return markdown_table(list(cells), [[cell(row) for cell in cells.values()] for row in rows], aligned=True)


_MARKERS = {"plain": "o", "compile": "v", "cuda-graph": "^", "program": "P", "onnx": "s", "openvino": "D"}
"""Markers of variants; others, such as those of lower precision, are crosses."""


@contextmanager
def _panels(path: str | os.PathLike[str], count: int, size: tuple[float, float]) -> Iterator[tuple[Any, Any]]:
    """Yield a figure with `count` panels side by side, each of `size` inches, and write it to `path`."""
    figure = figure_class()(figsize=(size[0] * count, size[1]), layout="constrained")
    yield figure, figure.subplots(1, count, squeeze=False)[0]
    with replacing(path) as temporary:
        figure.savefig(temporary)


def _dress(panel: Any, title: str) -> None:
    """Add title, grid and legend, and make the horizontal axis logarithmic."""
    panel.set_xscale("log")
    panel.set_title(title, fontsize=10)
    panel.grid(visible=True, color="0.9")
    panel.legend(fontsize=8)


def plot_growth(path: str | os.PathLike[str], report: dict[str, Any]) -> None:
    """Draw time and memory of a report of `measure_growth` against pixels, as SVG or PNG.

    Both axes are logarithmic; lines of slope 1 are beside the points.
    """
    rows = report["rows"]
    quantities = (
        ("seconds", "median", 1.0, "time of a forward pass (s)"),
        ("memory", "added", 1e-6, "memory on top of the process (MB)"),
    )
    with _panels(path, 2, (5, 4.2)) as (figure, panels):
        for panel, (kind, key, unit, title) in zip(panels, quantities, strict=True):
            for name, label, style in (("ours", "efnet", "o-"), ("dense", "dense clustering", "s--")):
                points = [(row["pixels"], unit * row[kind][name][key]) for row in rows if row[kind].get(name)]
                if not points:
                    continue
                panel.plot(*zip(*points, strict=True), style, label=label)
                if name == "ours":
                    ends = [points[0][0], points[-1][0]]
                    linear = [points[0][1] * end / points[0][0] for end in ends]
                    panel.plot(ends, linear, ":", color="gray", label="linear in pixels")
            _dress(panel, title)
            panel.set_yscale("log")
            panel.set_xticks([row["pixels"] for row in rows], list(map(_size, rows)), fontsize=8)
            panel.minorticks_off()
        title = f"{report['model']}, batch {report['batch']}, {report['machine']['device']}"
        figure.suptitle(title, fontsize=10)


def plot_latency(path: str | os.PathLike[str], reports: Sequence[dict[str, Any]]) -> None:
    """Draw a panel per size: accuracy where a row has it, else parameters, against latency.

    Takes reports of `compare` and writes SVG or PNG. A contestant is a point at its median with a bar from
    p10 to p90; its runtime decides the marker.
    """
    with _panels(path, len(reports), (6.4, 4.8)) as (_, panels):
        for panel, report in zip(panels, reports, strict=True):
            draw_latency(panel, report)


def draw_latency(panel: Any, report: dict[str, Any]) -> None:
    """Draw one panel of `plot_latency`."""
    rows = [row for row in report["rows"] if "error" not in row]
    scored = [row for row in rows if row.get("miou") is not None]
    shown = scored or rows
    for variant in dict.fromkeys(row["variant"] for row in rows):
        those = [row for row in shown if row["variant"] == variant]
        seconds = [row["seconds"] for row in those]
        middle = [1e3 * spread["median"] for spread in seconds]
        bars = [[1e3 * abs(spread["median"] - spread[end]) for spread in seconds] for end in ("p10", "p90")]
        heights = [100 * row["miou"] if scored else row["parameters"] / 1e6 for row in those]
        label = "PyTorch" if variant == "plain" else variant
        panel.errorbar(middle, heights, xerr=bars, fmt=_MARKERS.get(variant, "x"), label=label, capsize=2)
        for row, x, y in zip(those, middle, heights, strict=True):
            name = Path(row["model"]).name
            panel.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
    first, machine = report["rows"][0], report["machine"]
    where = machine.get("gpu") or f"{machine['threads']} threads"
    _dress(panel, f"{_size(first)}, batch {first['batch']}, {where}")
    panel.set_xlabel("latency (ms)", fontsize=9)
    panel.set_ylabel("mIoU (%)" if scored else "parameters (M)", fontsize=9)
    if not scored:
        panel.set_yscale("log")
