"""`efnet score`: rate label maps that any program wrote."""

from __future__ import annotations

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.reporting import (
    add_data_arguments,
    add_output_arguments,
    open_scored_split,
    progress_bar,
    write_report,
)

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
