"""`efnet experiment list`: the paper's tables, their rows and the configuration of each."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

DESCRIPTION = (
    "List the paper's tables, and a study of ours, with our rows, what the paper prints for each, and the "
    "configuration file of each, which efnet train --config takes."
)


def add_arguments(parser: ArgumentParser) -> None:
    """There are no options."""


def run(args: Namespace) -> int:
    """Print the list.

    Returns:
        0.
    """
    from efnet.studies.experiments.paper_tables import list_tables

    for table in list_tables():
        print(f"{table.name}  {table.heading}")
        for row in table.rows:
            paper = "" if row.paper.miou is None else f"mIoU {row.paper.miou:4.1f} in the paper  "
            print(f"  {row.name:<9} {paper}{row.path}")
    return 0
