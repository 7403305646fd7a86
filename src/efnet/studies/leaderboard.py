"""Published results, read from this package's files.

Percent, millions of parameters, 10^9 operations: as papers print them, not the fractions of our reports.

Where an evaluation stands among published results, and whether it may be put there at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

import yaml
from rich.table import Table

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
    text = (
        resources.files("efnet.studies").joinpath("published", f"{dataset}.yaml").read_text(encoding="utf-8")
    )
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


@dataclass(frozen=True)
class Standing:
    """An evaluation among published results.

    Attributes:
        table: the published rows.
        miou: the evaluation's, percent with two decimals.
        rank: its place, counted from 1; equal figures share the better place.
    """

    table: PublishedTable
    miou: float
    rank: int


def objection(report: Mapping[str, Any]) -> str | None:
    """Why an evaluation does not stand beside published results; None: it does.

    Args:
        report: of `efnet.evaluation.report.build_report`.
    """
    protocol = report["protocol"]
    dataset, split = protocol.get("dataset"), protocol.get("split")
    if dataset not in DATASETS:
        return f"there are no published results of data set {dataset} here, only of {', '.join(DATASETS)}"
    table = published_table(dataset)
    if split != "test":
        return f"published results are of the test split, this one is of {split}"
    if report["images"] != table.test_pairs:
        return f"the official test split has {table.test_pairs} pairs, this one {report['images']}"
    if protocol["name"] != table.protocol:
        return f"they are put together under protocol {table.protocol}, this one is {protocol['name']}"
    if protocol.get("tta"):
        return "test-time augmentation is on"
    if str(protocol.get("selected_on", "")).startswith("test"):
        return "its checkpoint was chosen on the test split"
    if report["miou"] is None:
        return "no class of the split occurs"
    return None


def standing(report: Mapping[str, Any]) -> Standing:
    """The place of an evaluation to which there is no `objection`.

    Raises:
        ValueError: there is one.
    """
    reason = objection(report)
    if reason is not None:
        raise ValueError(reason)
    table = published_table(report["protocol"]["dataset"])
    miou = round(100 * report["miou"], 2)  # as printed
    return Standing(table, miou, 1 + sum(result.miou > miou for result in table.results))


def standing_table(place: Standing, label: str, parameters: float) -> Table:
    """The published rows with the evaluation among them, the best mIoU first.

    Args:
        place: of the evaluation.
        label: what to call it.
        parameters: of its network.
    """
    table = Table(title=f"published on {place.table.dataset}, and this one", title_justify="left")
    table.add_column("rank", justify="right")
    for heading in ("method", "backbone"):
        table.add_column(heading)
    for heading in ("M param.", "G op.", "mIoU"):
        table.add_column(heading, justify="right")
    for heading in ("protocol", "source"):
        table.add_column(heading)
    ordered = sorted(place.table.results, key=lambda result: -result.miou)
    for number, result in enumerate(ordered[: place.rank - 1], 1):
        table.add_row(*_cells(number, result))
    own = ("-", f"{place.miou:.2f}", place.table.protocol, "this evaluation")
    table.add_row(str(place.rank), label, "", f"{parameters / 1e6:.2f}", *own, style="bold")
    for number, result in enumerate(ordered[place.rank - 1 :], place.rank + 1):
        table.add_row(*_cells(number, result))
    return table


def _cells(rank: int, result: PublishedResult) -> list[str]:
    source = result.source.split(", ")[0] + (" (told)" if result.seen == "told" else "")
    return [
        str(rank),
        result.method,
        result.backbone,
        *("-" if value is None else f"{value:g}" for value in (result.parameters, result.operations)),
        f"{result.miou:g}",
        result.protocol or "not known",
        source,
    ]


CAVEAT = (
    "published figures are as their sources print them; where the protocol is not known, splits and classes "
    "may differ. 'told': passed on to us, not found in the source by us"
)
"""To be printed below the table."""
