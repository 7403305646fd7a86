"""`efnet tune`: search for better options with Optuna."""

from __future__ import annotations

import sys

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from efnet.cli import train
from efnet.cli.arguments import add_options
from efnet.core.errors import InputError
from efnet.training import Interrupted
from efnet.training.config import from_parsed
from efnet.training.logs import Reporter
from efnet.training.tuning import Tuning, read_space, tune

DESCRIPTION = (
    "Train with options drawn from a space, and write the configuration of the best trial. Takes the options "
    "of efnet train for everything else. The same command goes on with a search in --out, also after Ctrl-C."
)

_SHOWN = 10


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        out=(str, "folder of the search"),
        space="YAML file of the options to search and their ranges (default: rate and weight decay)",
        minutes=(float | None, "time for this call"),
        trials=(int | None, "trials altogether"),
        quiet=(False, "no progress"),
    )
    train.add_config_arguments(parser)


parse = train.parse


def run(args: Namespace) -> int:
    """Search; return 0, or 1 if no trial has finished yet."""
    config = from_parsed(args)
    space = None if args.space is None else read_space(args.space, config)
    if args.minutes is None and args.trials is None:
        raise InputError("give `minutes` or `trials`: the search has no end of its own")
    try:
        found = tune(
            config,
            args.out,
            space,
            minutes=args.minutes,
            trials=args.trials,
            reporter=Reporter(quiet=args.quiet),
        )
    except Interrupted:
        raise Interrupted("stopped within a trial; everything is saved. The same command goes on") from None
    Console(width=None if sys.stdout.isatty() else 110).print(_table(found))
    if found.unfinished:
        print(f"{found.unfinished} trial is unfinished; the same command goes on with it")
    if found.best is None:
        print("no trial has finished yet; give more --minutes", file=sys.stderr)
        return 1
    print(f"train with the best: efnet train --config {found.best} --out RUN")
    return 0


def _table(found: Tuning) -> Table:
    table = Table("trial", "val mIoU", "epochs")
    places = list(found.trials[0].options) if found.trials else []
    for place in places:
        table.add_column(place, justify="right")
    for trial in found.trials[:_SHOWN]:
        miou = "-" if trial.miou is None else f"{100 * trial.miou:.2f}"
        values = (trial.options.get(place) for place in places)
        cells = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in values)
        table.add_row(str(trial.number), miou, f"{trial.epochs}{' (pruned)' if trial.pruned else ''}", *cells)
    return table
