"""`efnet experiment report`: the table that a folder of experiments makes, beside the paper's figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from efnet.studies.experiments.paper_tables import ExperimentTable

DESCRIPTION = (
    "Write one of the paper's tables from finished runs: mean and deviation over seeds, beside the paper's "
    "figures where the protocol is the same. Rows that were not run are named."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("table", type=str, help="name of a table (efnet experiment list)")
    parser.add_argument("--out", type=str, required=True, help="folder of the runs")


def run(args: Namespace) -> int:
    """Write the report.

    Returns:
        0.

    Raises:
        InputError: no such table, or no run of it is done.
    """
    from efnet.studies.experiments.paper_tables import get_table

    return report_table(get_table(args.table), Path(args.out))


def report_table(table: ExperimentTable, out: Path) -> int:
    """Print the report of a table and write it beside its runs, as Markdown and JSON.

    Returns:
        0.

    Raises:
        InputError: no run of it is done.
    """
    from efnet.core.files import write_json, write_text
    from efnet.studies.experiments.results import collect, markdown, to_dict

    result = collect(table, out)
    text = markdown(result)
    print(text, end="")
    files = [out / f"{table.name}.md", out / f"{table.name}.json"]
    write_text(files[0], text)
    write_json(files[1], to_dict(result))
    print(f"wrote {files[0]}, {files[1]}", file=sys.stderr)
    return 0
