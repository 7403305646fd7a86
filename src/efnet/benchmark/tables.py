"""Reports as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from efnet.benchmark.machine import summary

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
    """Of `efnet.benchmark.network.compare`."""
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
    """Of `efnet.benchmark.clustering.compare_clusterings`."""
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
    """Of `efnet.benchmark.growth.measure_growth`."""
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
