"""`efnet data check`: what a data set holds, and what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path

import jsonargparse
from rich.console import Console
from rich.progress import Progress as ProgressBar
from rich.table import Table

from efnet.cli.options import check_file_writable
from efnet.core.classes import IGNORE_INDEX
from efnet.core.files import write_json
from efnet.data.check import DatasetReport, SplitReport, check
from efnet.data.layouts import layout_names


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    """Declare the options of `efnet data check`."""
    parser.add_argument(
        "--dataset",
        type=str,
        required=True,
        help=f"{', '.join(layout_names())}, or the path of a dataset.yaml",
    )
    parser.add_argument("--root", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--split", type=str, default=None, help="look at this split alone")
    parser.add_argument("--json", type=Path, default=None, help="write the report to this file as well")


def run(args: jsonargparse.Namespace) -> int:
    """Look through the data set and print what is there.

    Returns:
        0, or 1 if there are problems.
    """
    check_file_writable("--json", args.json)
    with ProgressBar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading pairs", total=None)
        report = check(
            args.dataset,
            args.root,
            [args.split] if args.split else (),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print_report(report)
    if args.json is not None:
        write_json(args.json, report.to_dict())
    return 1 if report.problems else 0


def print_report(report: DatasetReport) -> None:
    """Print the report to standard output: splits, class pixels, warnings, problems."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(f"{report.dataset} at {report.root}", markup=False)
    console.print(_splits_table(report))
    if any(split.label_pixels.any() for split in report.splits):
        console.print(_classes_table(report))
    if report.misalignment is not None:
        off = report.misalignment
        print(f"thermal is off by {off.x:+.1f}, {off.y:+.1f} pixels (x, y; median of {off.pairs} pairs)")
    for warning in report.warnings:
        print(f"warning: {warning}")
    for problem in report.problems:
        print(f"problem: {problem}")
    count = len(report.problems)
    print(f"{count} problem{'' if count == 1 else 's'}" if count else "no problems")


def _splits_table(report: DatasetReport) -> Table:
    table = Table(title="Splits", title_justify="left")
    for heading in (
        "split",
        "pairs",
        "labelled",
        "day",
        "night",
        "height x width",
        "thermal",
        "raw range",
        "labels",
    ):
        table.add_column(
            heading, justify="right" if heading in ("pairs", "labelled", "day", "night") else "left"
        )
    table.add_column("problems", justify="right")
    for split in report.splits:
        table.add_row(
            split.split,
            str(split.pairs),
            str(split.labelled),
            *(str(split.conditions[key]) if key in split.conditions else "-" for key in ("day", "night")),
            _counted({f"{height}x{width}": count for (height, width), count in split.sizes.items()}),
            _counted(split.thermal_kinds),
            "-" if split.thermal_range is None else "{:g} to {:g}".format(*split.thermal_range),
            _counted(split.label_kinds),
            str(len(split.problems)),
        )
    return table


def _classes_table(report: DatasetReport) -> Table:
    table = Table(title="Share of label pixels, %", title_justify="left")
    table.add_column("value", justify="right")
    table.add_column("class")
    splits = [split for split in report.splits if split.label_pixels.any()]
    for split in splits:
        table.add_column(split.split, justify="right")
    rows = [*enumerate(report.classes.names), (IGNORE_INDEX, "(ignored)")]
    for value, name in rows:
        table.add_row(str(value), name, *(_share(split, value) for split in splits))
    return table


def _share(split: SplitReport, value: int) -> str:
    count = int(split.label_pixels[value])
    return f"{100 * count / int(split.label_pixels.sum()):.3f}" if count else "-"


def _counted(kinds: dict[str, int]) -> str:
    """The kinds; with their counts if there are several."""
    if len(kinds) == 1:
        return next(iter(kinds))
    return ", ".join(f"{kind} ({count})" for kind, count in kinds.items()) or "-"
