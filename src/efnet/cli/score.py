"""`efnet score`: score label maps that any program wrote.

Also the options of data and outputs, and the writing of outputs, which `efnet evaluate` shares.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from efnet.cli.arguments import ROOT, add_options, check_minima, check_outputs, dataset_option, say_written
from efnet.core.errors import InputError
from efnet.core.progress import progress_bar
from efnet.data.pairs import PairSet

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.table import Table

    from efnet.evaluation.metrics import Keep, Tally
    from efnet.evaluation.protocols import Protocol
    from efnet.evaluation.report import Report
    from efnet.evaluation.resampling import Resampling


_SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")


def add_data_arguments(parser: ArgumentParser) -> None:
    """Declare which pairs are scored, and how."""
    add_options(
        parser,
        dataset=dataset_option(),
        root=ROOT,
        split=("test", "train, val, test, ..."),
        protocol="how to score (default: the data set's own)",
    )


def add_output_arguments(parser: ArgumentParser) -> None:
    """Declare what is written beside the table on the terminal."""
    add_options(
        parser,
        json="write the report to this file (fractions)",
        markdown="write a Markdown table to this file",
        sheet="write pictures of a few pairs to this PNG: RGB, thermal, prediction, truth, errors",
        sheet_rows=(6, "pairs on the sheet"),
        worst=(
            int | None,
            "--sheet: in place of a selection, so many pairs of the lowest own mIoU, worst first",
        ),
        confusion="draw the confusion matrix to this SVG",
    )
    add_resampling_arguments(parser)


def add_resampling_arguments(parser: ArgumentParser) -> None:
    """Declare how intervals are computed."""
    add_options(
        parser,
        groups="images that belong together, such as a drive's, are resampled together: a file of lines "
        r"name,group, or a regular expression that matches the group in a name, such as '^(\d{3})'",
        resamples=(10_000, "bootstrap resamples, and label swaps of a test"),
        level=(0.95, "of the intervals"),
        resample_seed=(0, "of resampling"),
    )


def read_resampling(args: Namespace, names: Sequence[str]) -> Resampling:
    """Return how to resample the images of these names."""
    from efnet.evaluation.resampling import Resampling, read_groups

    check_minima(args, resample_seed=0)
    groups = None if args.groups is None else read_groups(args.groups, names)
    return Resampling(args.level, args.resamples, args.resample_seed, groups)


def open_scored_split(args: Namespace) -> tuple[PairSet, Protocol]:
    """Open the split and the protocol that the options name, and refuse wrong output options."""
    from efnet.evaluation.protocols import get_protocol, open_with_protocol

    if args.protocol:
        get_protocol(args.protocol)
    if args.sheet and Path(args.sheet).suffix.lower() not in _SHEET_SUFFIXES:
        raise InputError(f"--sheet {args.sheet}: give a file name that ends in {', '.join(_SHEET_SUFFIXES)}")
    if args.confusion and Path(args.confusion).suffix.lower() != ".svg":
        raise InputError(f"--confusion {args.confusion}: give a file name that ends in .svg")
    check_outputs(args, "json", "markdown", "sheet", "confusion")
    check_minima(args, sheet_rows=1, worst=1)
    if args.worst is not None and not args.sheet:
        raise InputError("--worst chooses the pairs of the sheet; give --sheet FILE.png too")
    pairset, protocol = open_with_protocol(args.dataset, args.root, args.split, args.protocol)
    read_resampling(args, [pair.name for pair in pairset.pairs])  # refuse wrong groups before the long run
    return pairset, protocol


def write_report(
    args: Namespace,
    pairset: PairSet,
    tally: Tally,
    circumstances: Mapping[str, Any],
    again: Callable[[PairSet, Keep], object],
    more: Mapping[str, Any] | None = None,
) -> Report:
    """Print the table, write the requested files, and return the report, to which `more` is added.

    `again` predicts (or reads) the few pairs of the sheet again and calls a function with each prediction,
    because keeping all predictions would take memory for the whole split.
    """
    from efnet.data.sample import read_sample
    from efnet.evaluation import report as reports
    from efnet.evaluation.intervals import add_evidence
    from efnet.evaluation.sheet import SheetRow, choose_rows, draw_sheet, worst_rows
    from efnet.reporting.tables import percent

    plan = read_resampling(args, [entry.pair.name for entry in tally.pairs])
    report = add_evidence({**reports.build_report(tally, circumstances), **(more or {})}, tally, plan)
    summary = reports.headline(report)

    def sheet() -> Image:
        places = choose_rows(tally, args.sheet_rows)
        if args.worst is not None:
            places = worst_rows(tally, args.worst)
        if not places:
            raise InputError("no pair has a pixel that counts under this protocol; there is nothing to show")
        chosen = replace(pairset, pairs=tuple(tally.pairs[place].pair for place in places))
        maps: dict[str, tuple[Any, Any]] = {}
        again(chosen, lambda pair, prediction, truth: maps.update({pair.name: (prediction, truth)}))
        miou, drawn = tally.pair_miou(), []
        for place, pair in zip(places, chosen.pairs, strict=True):
            sample = read_sample(pair, pairset.classes, pairset.thermal_scale, pairset.registered)
            note = f"{f'{pair.condition}, ' if pair.condition else ''}mIoU {percent(miou[place])}"
            drawn.append(SheetRow(pair.name, sample.rgb, sample.thermal, *maps[pair.name], note))
        title = f"{pairset.dataset} {pairset.split}, protocol {tally.protocol.name}: {summary}"
        return draw_sheet(drawn, pairset.classes, tally.protocol, title)

    lines = [summary, *reports.evidence_lines(report), *reports.protocol_lines(report)]
    write_outputs(args, report, reports.console_table(report), lines, reports.markdown, sheet)
    return report


def write_outputs(
    args: Namespace,
    report: Report,
    table: Table,
    lines: Sequence[str],
    markdown: Callable[[Report], str],
    sheet: Callable[[], Image],
) -> None:
    """Print a table with lines below it, and write the requested files."""
    from efnet.core.files import write_image, write_json, write_text

    Console(width=None if sys.stdout.isatty() else 110).print(table)
    print("\n".join(lines))
    if args.json:
        write_json(args.json, report)
    if args.markdown:
        write_text(args.markdown, markdown(report))
    if args.sheet:
        write_image(args.sheet, sheet())
    if args.confusion:
        from efnet.reporting.score_charts import chart_file, confusion_chart

        title = f"{report['protocol']['dataset']} {report['protocol']['split']}, {report['images']} pairs"
        names = list(report["iou"])
        write_text(args.confusion, chart_file(confusion_chart(report["confusion"], names, title)))
    say_written(args, "json", "markdown", "sheet", "confusion", "reliability", "plot")


DESCRIPTION = (
    "Compare a folder of label maps with a split's labels. A map carries the name of its pair and is an "
    "index image (grey or palette PNG) or a colour image in the data set's palette."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(parser, predictions=(str, "folder of label maps, one per pair"))
    add_data_arguments(parser)
    add_output_arguments(parser)


def run(args: Namespace) -> int:
    """Score; return 0."""
    from efnet.evaluation.score import score_predictions

    pairset, protocol = open_scored_split(args)
    folder = Path(args.predictions)
    with progress_bar("score") as advance:
        tally, notes = score_predictions(folder, pairset, protocol, progress=advance, boundaries=True)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    about = {"dataset": pairset.dataset, "split": pairset.split, "predictions": args.predictions}

    def again(chosen: PairSet, keep: Keep) -> object:
        return score_predictions(folder, chosen, protocol, keep=keep)

    write_report(args, pairset, tally, {**about, "notes": notes}, again)
    return 0
