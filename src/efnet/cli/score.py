"""`efnet score`: rate label maps that any program wrote.

What `efnet evaluate` and `efnet score` share: options of the data and of the outputs, and the outputs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from efnet.cli.options import check_file_writable
from efnet.core.errors import InputError
from efnet.data.pairs import PairSet

if TYPE_CHECKING:
    from efnet.evaluation.metrics import Keep, Tally
    from efnet.evaluation.protocols import Protocol


_SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")

Advance = Callable[[int, int], None]
"""Told the number of pairs done and of all."""


def add_data_arguments(parser: ArgumentParser) -> None:
    """Declare which pairs are scored, and how."""
    parser.add_argument(
        "--dataset",
        type=str,
        required=True,
        help="mfnet, pst900, fmb, msrs, folders, or a data set's YAML file",
    )
    parser.add_argument("--root", type=str, required=True, help="the data set's folder")
    parser.add_argument("--split", type=str, default="test", help="train, val, test, ...")
    parser.add_argument(
        "--protocol", type=str | None, default=None, help="how to score (default: the data set's own)"
    )


def add_output_arguments(parser: ArgumentParser) -> None:
    """Declare what is written beside the table on the terminal."""
    parser.add_argument(
        "--json", type=str | None, default=None, help="write the report to this file (fractions)"
    )
    parser.add_argument(
        "--markdown", type=str | None, default=None, help="write a Markdown table to this file"
    )
    parser.add_argument(
        "--sheet",
        type=str | None,
        default=None,
        help="write pictures of a few pairs to this PNG: RGB, thermal, prediction, truth, errors",
    )
    parser.add_argument("--sheet-rows", type=int, default=6, help="pairs on the sheet")


def open_scored_split(args: Namespace) -> tuple[PairSet, Protocol]:
    """The split and the protocol that the options name; wrong output options are refused here too.

    Raises:
        InputError: an unknown or unfitting protocol, data set or split, a sheet that is no picture, or an
            output that could not be written.
    """
    from efnet.data.layouts import open_split
    from efnet.evaluation.protocols import get_protocol

    protocol = get_protocol(args.protocol) if args.protocol else None
    if args.sheet and Path(args.sheet).suffix.lower() not in _SHEET_SUFFIXES:
        raise InputError(f"--sheet {args.sheet}: give a file name that ends in {', '.join(_SHEET_SUFFIXES)}")
    for option in ("json", "markdown", "sheet"):
        check_file_writable(f"--{option}", args[option])
    if args.sheet_rows < 1:
        raise InputError(f"--sheet-rows {args.sheet_rows} is below 1")
    pairset = open_split(args.dataset, Path(args.root), args.split)
    protocol = protocol or get_protocol(pairset.protocol)
    protocol.check(pairset.classes)
    return pairset, protocol


@contextmanager
def progress_bar(what: str) -> Iterator[Advance]:
    """A bar on stderr, which goes away when done."""
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def write_report(
    args: Namespace,
    pairset: PairSet,
    tally: Tally,
    circumstances: Mapping[str, Any],
    again: Callable[[PairSet, Keep], object],
) -> None:
    """Print the table, then write the files that were asked for.

    Args:
        args: with the options of `add_output_arguments`.
        pairset: the split that was scored.
        tally: its counts.
        circumstances: see `build_report`.
        again: predicts (or reads) a few pairs once more and hands each prediction to the function
            given: keeping all of them for the sheet would take memory for the whole split.
    """
    from efnet.core.files import write_image, write_json, write_text
    from efnet.evaluation.report import build_report, console_table, headline, markdown, protocol_lines

    report = build_report(tally, circumstances)
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(console_table(report))
    print("\n".join([headline(report), *protocol_lines(report)]))
    if args.json:
        write_json(args.json, report)
    if args.markdown:
        write_text(args.markdown, markdown(report))
    if args.sheet:
        title = f"{pairset.dataset} {pairset.split}, protocol {tally.protocol.name}: {headline(report)}"
        write_image(args.sheet, _sheet(args, pairset, tally, again, title))
    written = [path for path in (args.json, args.markdown, args.sheet) if path]
    if written:
        print(f"wrote {', '.join(written)}", file=sys.stderr)


def _sheet(
    args: Namespace,
    pairset: PairSet,
    tally: Tally,
    again: Callable[[PairSet, Keep], object],
    title: str,
) -> Any:
    """Draw the chosen pairs, in the order of the choice."""
    from efnet.data.sample import read_sample
    from efnet.evaluation.report import percent
    from efnet.evaluation.sheet import SheetRow, choose_rows, draw_sheet

    places = choose_rows(tally, args.sheet_rows)
    if not places:
        raise InputError("no pair has a pixel that counts under this protocol; there is nothing to show")
    chosen = replace(pairset, pairs=tuple(tally.pairs[place].pair for place in places))
    maps: dict[str, tuple[Any, Any]] = {}
    again(chosen, lambda pair, prediction, truth: maps.update({pair.name: (prediction, truth)}))
    miou = tally.pair_miou()
    rows = []
    for place, pair in zip(places, chosen.pairs, strict=True):
        sample = read_sample(pair, pairset.classes, pairset.thermal_scale)
        prediction, truth = maps[pair.name]
        condition = f"{pair.condition}, " if pair.condition else ""
        note = f"{condition}mIoU {percent(miou[place])}"
        rows.append(SheetRow(pair.name, sample.rgb, sample.thermal, prediction, truth, note))
    return draw_sheet(rows, pairset.classes, tally.protocol, title)


DESCRIPTION = (
    "Compare a folder of label maps with a split's labels. A map carries the name of its pair and is an "
    "index image (grey or palette PNG) or a colour image in the data set's palette."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--predictions", type=str, required=True, help="folder of label maps, one per pair")
    add_data_arguments(parser)
    add_output_arguments(parser)


def run(args: Namespace) -> int:
    """Score; see `efnet score --help`.

    Returns:
        0.

    Raises:
        InputError: predictions are missing or do not fit the split, all of them named at once.
    """
    from efnet.evaluation.score import score_predictions

    pairset, protocol = open_scored_split(args)
    folder = Path(args.predictions)
    with progress_bar("score") as advance:
        tally, notes = score_predictions(folder, pairset, protocol, progress=advance)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    circumstances = {
        "dataset": pairset.dataset,
        "split": pairset.split,
        "predictions": args.predictions,
        "notes": notes,
    }
    write_report(
        args,
        pairset,
        tally,
        circumstances,
        again=lambda chosen, keep: score_predictions(folder, chosen, protocol, keep=keep),
    )
    return 0
