"""Published results, read from this package's files.

Percent, millions of parameters, 10^9 operations: as papers print them, not the fractions of our reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

import yaml

Seen = Literal["table", "authors", "told"]
"""How a row got here: from the table that it names, from what its authors published, or by hearsay."""

DATASETS = ("mfnet", "pst900", "fmb")
"""Data sets with a table."""


@dataclass(frozen=True)
class PublishedResult:
    """One row.

    Attributes:
        method: name of the network.
        backbone: of its encoder.
        parameters: millions; None: not given.
        operations: 10^9; None: not given. Sources differ in what counts as one.
        miou: percent.
        protocol: name of the protocol it was scored under; None: not known.
        source: paper and table.
        seen: how the row got here.
        note: what else a reader should know.
    """

    method: str
    backbone: str
    parameters: float | None
    operations: float | None
    miou: float
    protocol: str | None
    source: str
    seen: Seen
    note: str | None = None


@dataclass(frozen=True)
class PublishedTable:
    """All rows of one data set.

    Attributes:
        dataset: layout name.
        protocol: the protocol under which figures of one's own are put among them.
        test_pairs: pairs of the official test split.
        results: the rows, older ones first.
    """

    dataset: str
    protocol: str
    test_pairs: int
    results: tuple[PublishedResult, ...]

    def row(self, method: str) -> PublishedResult:
        """The row of that method.

        Raises:
            KeyError: there is none.
        """
        for result in self.results:
            if result.method == method:
                return result
        raise KeyError(method)


@cache
def published_table(dataset: str) -> PublishedTable:
    """The table of a data set.

    Raises:
        KeyError: there is none; `DATASETS` lists those there are.
    """
    if dataset not in DATASETS:
        raise KeyError(dataset)
    text = resources.files("efnet.published").joinpath(f"{dataset}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    return PublishedTable(
        values["dataset"],
        values["protocol"],
        values["test_pairs"],
        tuple(_result(row) for row in values["results"]),
    )


def _result(row: dict[str, Any]) -> PublishedResult:
    result = PublishedResult(**row)
    if result.seen not in get_args(Seen):
        raise ValueError(f"{result.method}: seen is {result.seen!r}")
    return result
