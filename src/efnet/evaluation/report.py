"""The report of an evaluation: plain values for JSON, and the tables that are printed from them.

Figures in the report are fractions from 0 to 1; tables show percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from efnet.evaluation.metrics import Scores, Tally, constant_prediction, counted, score

Report = dict[str, Any]

_PARTS = ("overall", "day", "night")


def build_report(tally: Tally, circumstances: Mapping[str, Any]) -> Report:
    """Everything `--json` writes.

    Args:
        tally: the counted pairs, with their protocol and classes.
        circumstances: what else decides the figure, joined into `protocol`: data set, split, input
            size, test-time augmentation, checkpoint and how it was chosen, ...

    Returns:
        `miou`, `macc` (fractions; None where no averaged class occurs), `iou` and `acc` (class name to
        fraction; None for classes that do not enter the mean), `day` and `night` with the same keys and
        `images` where the pairs know their condition, `confusion` (rows truth, columns prediction;
        pixels that the protocol ignores are not in it), `protocol`, `images`, and `trivial`: the figures
        of predicting one class (`trivial_class`) everywhere, and its name as `prediction`.
    """
    overall = tally.matrix()
    report: Report = tally.scores().to_dict()
    for condition in tally.conditions():
        part = tally.matrix(condition)
        report[condition] = {**tally.scores(condition).to_dict(), "images": part.images}
    trivial = trivial_scores(tally)
    report["trivial"] = {
        "prediction": tally.classes.names[trivial_class(tally)],
        "miou": trivial.miou,
        "macc": trivial.macc,
    }
    report["confusion"] = counted(overall.counts, tally.protocol).tolist()
    report["protocol"] = {**tally.protocol.to_dict(tally.classes), **circumstances}
    report["images"] = overall.images
    return report


def trivial_class(tally: Tally) -> int:
    """The class whose constant prediction real figures are compared with.

    Class 0, the unlabeled or background class; where the protocol does not average it (predicting it
    would score 0 whatever the data), the averaged class that most pixels have in truth.
    """
    averaged = tally.protocol.averaged(len(tally.classes))
    if 0 in averaged:
        return 0
    truth = tally.matrix().counts.sum(axis=1)  # of the data alone, whatever was predicted
    return max(averaged, key=lambda value: int(truth[value]))


def trivial_scores(tally: Tally) -> Scores:
    """The figures that predicting `trivial_class` at every pixel of the same pairs would get."""
    counts = constant_prediction(tally.matrix().counts, value=trivial_class(tally))
    return score(counts, tally.protocol, tally.classes)


def percent(value: float | None) -> str:
    """A fraction as percent with two decimals; a dash for None."""
    return "-" if value is None else f"{100 * value:.2f}"


def protocol_lines(report: Report) -> list[str]:
    """What decides the figures, in two lines to stand beside them: the protocol, and the circumstances."""
    protocol = report["protocol"]
    parts = [
        " ".join(str(protocol[key]) for key in ("dataset", "split") if protocol.get(key)),
        f"{report['images']} pairs",
    ]
    if "input_size" in protocol:
        size = protocol["input_size"]
        parts.append(f"input {size[0]}x{size[1]}" if size else "input at its own size")
    if "tta" in protocol:
        parts.append(f"TTA {protocol['tta']}" if protocol["tta"] else "no TTA")
    if protocol.get("checkpoint"):
        chosen = protocol.get("selected_on") or "unknown split"
        parts.append(f"checkpoint {protocol['checkpoint']} (chosen on: {chosen})")
    if protocol.get("predictions"):
        parts.append(f"predictions {protocol['predictions']}")
    return [f"protocol {protocol['summary']}", "; ".join(part for part in parts if part)]


def trivial_line(report: Report) -> str:
    """The trivial figure, to be printed beside the real one."""
    trivial = report["trivial"]
    return f"predicting {trivial['prediction']} everywhere: mIoU {percent(trivial['miou'])}"


def table_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Heading and rows, in percent: one row per class, then the mean."""
    parts = [part for part in _PARTS if part == "overall" or part in report]
    figures = [report if part == "overall" else report[part] for part in parts]
    heading = ["class"]
    for part in parts:
        prefix = "" if part == "overall" else f"{part} "
        heading += [f"{prefix}IoU", f"{prefix}acc"]
    rows = []
    for name in report["iou"]:
        row = [name]
        for figure in figures:
            row += [percent(figure["iou"][name]), percent(figure["acc"][name])]
        rows.append(row)
    mean = ["mean"]
    for figure in figures:
        mean += [percent(figure["miou"]), percent(figure["macc"])]
    return heading, [*rows, mean]


def markdown(report: Report) -> str:
    """A Markdown table of every class, with the lines that decide the figures above and below it."""
    heading, rows = table_rows(report)
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(heading)} |", f"| --- |{' ---: |' * (len(heading) - 1)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows[:-1]]
    lines.append(f"| {' | '.join(f'**{cell}**' for cell in rows[-1])} |")
    what, circumstances = protocol_lines(report)
    below = f"{what[0].upper()}{what[1:]}. {circumstances}."
    return "\n".join([f"{headline(report)}.", "", *lines, "", below, ""])


def headline(report: Report) -> str:
    """The figures in one line, the trivial one beside them."""
    return f"mIoU {percent(report['miou'])}, mAcc {percent(report['macc'])} (percent); {trivial_line(report)}"


def console_table(report: Report) -> Table:
    """The table of every class for the terminal, in percent."""
    heading, rows = table_rows(report)
    table = Table(escape(heading[0]))
    for name in heading[1:]:
        table.add_column(name, justify="right")
    for row in rows[:-1]:
        table.add_row(*(escape(cell) for cell in row))
    table.add_section()
    table.add_row(*rows[-1], style="bold")
    return table
