"""`efnet experiment run`, `report` and `list`: the paper's tables, row by row."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import DEVICE, PRECISION, add_options, check_minima
from efnet.cli.options import parse_size
from efnet.core.errors import InputError
from efnet.core.progress import progress_bar

if TYPE_CHECKING:
    from efnet.studies.experiments.paper_tables import ExperimentTable
    from efnet.studies.experiments.plan import Plan

FRESH = "fresh"
"""In place of a file: the network starts from fresh weights."""


class Run:
    """`efnet experiment run`."""

    DESCRIPTION = (
        "Train and evaluate the rows of one of the paper's tables, and write its report. After Ctrl-C the "
        "same command goes on; what is done is skipped."
    )

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "table",
            type=str,
            help="table1 to table7, baseline, study, readings, rivals or recipes (efnet experiment list)",
        )
        add_options(
            parser,
            out=(str, "folder of the runs; tables that share it share common rows"),
            root=([], "the data set's folder, or several as mfnet=DIR pst900=DIR fmb=DIR"),
            seeds=([0], "seeds of the runs"),
            rows=([], "some rows of the table alone"),
            budget=("full", "full, or tiny: few epochs of small images, on generated scenes without --root"),
            init=(
                [],
                "weights to start from, as of efnet train; for several networks NAME=FILE each, or "
                "NAME=fresh",
            ),
            epochs=(int | None, "in place of the recipe's"),
            minutes=(
                float | None,
                "train each run for about so long: a few steps of each row are timed first and fix its "
                "epochs",
            ),
            size="HxW in place of the recipe's",
            recipe="in place of recipe paper",
            model="preset in place of efnet_light",
            device=DEVICE,
            precision=PRECISION,
            workers=(2, "processes that read images"),
            quiet=(False, "no progress of the training"),
            official=(
                str | None,
                "train nothing: score the authors' files in this folder, DATASET/NETWORK.pth or the one file "
                "in DATASET/NETWORK/; rows without one are skipped",
            ),
        )

    @staticmethod
    def run(args: Namespace) -> int:
        """Run the table and write its report; return 0."""
        from efnet.core.devices import check_precision, pick_device
        from efnet.studies.experiments.paper_tables import get_table
        from efnet.studies.experiments.plan import Plan, check_budget
        from efnet.studies.experiments.run import run_table
        from efnet.training.logs import Reporter

        table = get_table(args.table)
        pick_device(args.device)
        check_minima(args, workers=0)
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
        if args.official is not None:
            return score_official(table, args, plan)
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


class Report:
    """`efnet experiment report`."""

    DESCRIPTION = (
        "Write one of the paper's tables from finished runs: mean and deviation over seeds, beside the "
        "paper's figures where the protocol is the same. Rows that were not run are named."
    )

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("table", type=str, help="name of a table (efnet experiment list)")
        add_options(parser, out=(str, "folder of the runs"))

    @staticmethod
    def run(args: Namespace) -> int:
        """Write the report; return 0."""
        from efnet.studies.experiments.paper_tables import get_table

        return report_table(get_table(args.table), Path(args.out))


class List:
    """`efnet experiment list`."""

    DESCRIPTION = (
        "List the paper's tables, and a study of ours, with our rows, what the paper prints for each, and "
        "the configuration file of each, which efnet train --config takes."
    )

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare no options."""

    @staticmethod
    def run(args: Namespace) -> int:
        """Print the list; return 0."""
        from efnet.studies.experiments.paper_tables import list_tables

        for table in list_tables():
            print(f"{table.name}  {table.heading}")
            for row in table.rows:
                paper = "" if row.paper.miou is None else f"mIoU {row.paper.miou:4.1f} printed  "
                print(f"  {row.name:<9} {paper}{row.path}")
                if row.remark:
                    print(f"{'':<12}{row.remark}")
        return 0


def score_official(table: ExperimentTable, args: Namespace, plan: Plan) -> int:
    """Score the authors' files of a table's rows, print the report and write it to `--out`; return 0."""
    from efnet.studies.experiments.official import official_markdown, official_values, run_official
    from efnet.training.logs import Reporter

    training: dict[str, Any] = dict.fromkeys(("recipe", "model", "epochs", "minutes", "size"))
    training |= {"init": [], "seeds": [0], "budget": "full"}
    given = [f"--{name}" for name, default in training.items() if getattr(args, name) != default]
    if given:
        raise InputError(f"--official trains nothing; leave out {', '.join(given)}")
    out = Path(args.out)
    results = run_official(
        table,
        out,
        Path(args.official),
        plan,
        read_roots(args.root, {plan.dataset(row) for row in table.rows}),
        rows=args.rows or None,
        device=args.device,
        workers=args.workers,
        reporter=Reporter(quiet=args.quiet),
        bar=progress_bar,
    )
    return _write(
        out, f"{table.name}-official", official_markdown(table, results), official_values(table, results)
    )


def report_table(table: ExperimentTable, out: Path) -> int:
    """Print the report of a table and write it beside its runs, as Markdown and JSON; return 0."""
    from efnet.studies.experiments.results import collect, markdown, to_dict

    result = collect(table, out)
    return _write(out, table.name, markdown(result), to_dict(result))


def _write(out: Path, name: str, text: str, values: dict[str, Any]) -> int:
    """Print a report, and write it as Markdown and JSON; return 0."""
    from efnet.core.files import write_json, write_text

    print(text, end="")
    page, figures = out / f"{name}.md", out / f"{name}.json"
    write_text(page, text)
    write_json(figures, values)
    print(f"wrote {page}, {figures}", file=sys.stderr)
    return 0


def read_roots(words: list[str], datasets: set[str]) -> dict[str, Path]:
    """Read the folders of a table's data sets: `DIR` for a table on one data set, or `NAME=DIR`."""
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
    """Read `FILE` for one network, or `NAME=FILE` and `NAME=fresh`: files by network; None: fresh weights.

    If any network has weights, every one must be named, so that none is forgotten in a comparison.
    """
    from efnet.models.registry import list_models

    init: dict[str, str | None] = {}
    for word in words:
        name, equals, source = word.partition("=")
        is_model = bool(equals) and name in list_models()
        if equals and not is_model and "/" not in name and not Path(word).exists():
            raise InputError(
                f"--init {word}: there is no network {name}; the rows are of {', '.join(networks)}"
            )
        if not is_model:
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
