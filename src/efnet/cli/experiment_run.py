"""`efnet experiment run`: train and evaluate the rows of one of the paper's tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.experiment_report import report_table
from efnet.cli.options import parse_size
from efnet.cli.score import progress_bar
from efnet.core.errors import InputError

DESCRIPTION = (
    "Train and evaluate the rows of one of the paper's tables, and write its report. After Ctrl-C the same "
    "command goes on; what is done is skipped."
)

FRESH = "fresh"
"""In place of a file: the network starts without weights."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "table", type=str, help="table1 to table7, baseline, study, rivals or recipes (efnet experiment list)"
    )
    parser.add_argument(
        "--out", type=str, required=True, help="folder of the runs; tables that share it share common rows"
    )
    parser.add_argument(
        "--root",
        type=str,
        nargs="+",
        default=[],
        help="the data set's folder, or several as mfnet=DIR pst900=DIR fmb=DIR",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the runs")
    parser.add_argument("--rows", type=str, nargs="+", default=[], help="some rows of the table alone")
    parser.add_argument(
        "--budget",
        type=str,
        default="full",
        help="full, or tiny: few epochs of small images, on generated scenes without --root",
    )
    parser.add_argument(
        "--init",
        type=str,
        nargs="+",
        default=[],
        help="weights to start from, as of efnet train; for several networks NAME=FILE each, or NAME=fresh",
    )
    parser.add_argument("--epochs", type=int | None, default=None, help="in place of the recipe's")
    parser.add_argument(
        "--minutes",
        type=float | None,
        default=None,
        help="train each run for about so long: a few steps of each row are timed first and fix its epochs",
    )
    parser.add_argument("--size", type=str | None, default=None, help="HxW in place of the recipe's")
    parser.add_argument("--recipe", type=str | None, default=None, help="in place of recipe paper")
    parser.add_argument("--model", type=str | None, default=None, help="preset in place of efnet_light")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--precision", type=str, default="32", help="32 or bf16 (autocast)")
    parser.add_argument("--workers", type=int, default=2, help="processes that read images")
    parser.add_argument("--quiet", action="store_true", help="no progress of the training")


def run(args: Namespace) -> int:
    """Run the table; see `efnet experiment run --help`.

    Returns:
        0.

    Raises:
        InputError: the options or the data are wrong, or the folder holds runs that began otherwise.
    """
    from efnet.core.devices import check_precision, pick_device
    from efnet.studies.experiments.paper_tables import get_table
    from efnet.studies.experiments.plan import Plan, check_budget
    from efnet.studies.experiments.run import run_table
    from efnet.training.logs import Reporter

    table = get_table(args.table)
    pick_device(args.device)
    if args.workers < 0:
        raise InputError(f"--workers {args.workers} is below 0")
    budget = check_budget(args.budget)
    chosen = table.choose(args.rows or None)
    plan = Plan(
        budget=budget,
        generated=budget == "tiny" and not args.root,
        recipe=args.recipe,
        model=args.model,
        epochs=args.epochs,
        minutes=args.minutes,
        size=None if args.size is None else parse_size(args.size),
        precision=check_precision(args.precision),
    )
    plan = dataclasses.replace(plan, init=read_init(args.init, list(plan.settled(chosen).init)))
    run_table(
        table,
        Path(args.out),
        plan,
        read_roots(args.root, {plan.dataset(row) for row in table.rows}),
        seeds=args.seeds,
        rows=args.rows or None,
        device=args.device,
        workers=args.workers,
        reporter=Reporter(quiet=args.quiet),
        bar=progress_bar,
    )
    return report_table(table, Path(args.out))


def read_roots(words: list[str], datasets: set[str]) -> dict[str, Path]:
    """Folders of data sets from the words of `--root`.

    Args:
        words: `DIR` for a table on one data set, or `NAME=DIR`.
        datasets: that the table is on.

    Raises:
        InputError: a plain folder where the table is on several data sets, or two for one data set.
    """
    roots: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or name not in ("mfnet", "pst900", "fmb"):
            if len(datasets) > 1:
                several = " ".join(f"{dataset}=DIR" for dataset in sorted(datasets))
                raise InputError(f"--root {word}: the table is on several data sets; give --root {several}")
            name, folder = next(iter(datasets)), word
        if name in roots:
            raise InputError(f"--root {word}: there is a folder for {name} already")
        roots[name] = Path(folder)
    return roots


def read_init(words: list[str], networks: list[str]) -> dict[str, str | None]:
    """Weights by network from the words of `--init`; None: fresh ones.

    A comparison of networks of which some are pretrained must be meant: each of them is named, or none.

    Args:
        words: `FILE` for one network, or `NAME=FILE` and `NAME=fresh`.
        networks: of the rows that are run.

    Raises:
        InputError: a plain file for several networks, one named twice, or one left out.
    """
    from efnet.models.registry import list_models

    init: dict[str, str | None] = {}
    for word in words:
        name, equals, source = word.partition("=")
        if equals and name not in list_models() and "/" not in name and not Path(word).exists():
            raise InputError(
                f"--init {word}: there is no network {name}; the rows are of {', '.join(networks)}"
            )
        if not equals or name not in list_models():
            if len(networks) > 1:
                several = " ".join(f"{network}=FILE" for network in networks)
                raise InputError(
                    f"--init {word}: the rows are of several networks; give --init {several} (or =fresh), or "
                    "choose rows with --rows"
                )
            name, source = networks[0], word
        if name not in networks:
            raise InputError(
                f"--init {word}: the rows that are run are of {', '.join(networks)}; leave it out, or choose "
                "rows with --rows"
            )
        if name in init:
            raise InputError(f"--init {word}: {name} has weights already; give one file for it")
        if not source:
            raise InputError(f"--init {word}: names no file; give one, or {name}={FRESH}")
        init[name] = None if source == FRESH else source
    missing = [network for network in networks if words and network not in init]
    if missing:
        raise InputError(f"--init: nothing for {', '.join(missing)}; give NAME=FILE, or NAME=fresh")
    return init
