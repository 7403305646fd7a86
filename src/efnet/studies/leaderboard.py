"""Published results from this package's files, and the rank of an evaluation among them.

Figures are percent, millions of parameters and 10^9 operations, as papers print them, not the fractions of
our reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

import yaml
from rich.table import Table

Seen = Literal["table", "authors", "others", "told"]
"""Origin of a row: EFNet's table, its authors' publication, other authors' table, or second-hand (`told`)."""

DATASETS = ("mfnet", "pst900", "fmb")
"""Data sets with a table."""


@dataclass(frozen=True)
class PublishedResult:
    """One row."""

    method: str
    backbone: str  # encoder
    parameters: float | None  # millions; None: not given
    operations: float | None  # 10^9; None: not given; sources count differently
    miou: float  # percent
    protocol: str | None  # None: not known
    source: str  # paper and table
    seen: Seen
    network: str | None = None  # name of `create_model` that computes what the row's code does; None: none
    note: str | None = None


@dataclass(frozen=True)
class PublishedTable:
    """All rows of one data set."""

    dataset: str  # layout name
    protocol: str  # an evaluation needs the same one to be ranked
    test_pairs: int  # pairs of the official test split
    results: tuple[PublishedResult, ...]  # older ones first

    def row(self, method: str) -> PublishedResult:
        """Return the row of a method; raises KeyError if there is none."""
        return {result.method: result for result in self.results}[method]


@cache
def published_table(dataset: str) -> PublishedTable:
    """Read the table of a data set; raises KeyError if `DATASETS` lacks it."""
    if dataset not in DATASETS:
        raise KeyError(dataset)
    file = resources.files("efnet.studies").joinpath("published", f"{dataset}.yaml")
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    results = tuple(PublishedResult(**row) for row in values.pop("results"))
    for result in results:
        if result.seen not in get_args(Seen):
            raise ValueError(f"{result.method}: seen is {result.seen!r}")
    return PublishedTable(**values, results=results)


def printed_sizes(network: str) -> list[PublishedResult]:
    """Return rows that print parameters of a network of `create_model`; each pair of sizes once."""
    rows = [row for dataset in DATASETS for row in published_table(dataset).results if row.network == network]
    sizes: dict[tuple[float, float | None], PublishedResult] = {}
    for row in rows:
        if row.parameters is not None:
            sizes.setdefault((row.parameters, row.operations), row)
    # A row without operations adds nothing to one that has the same parameters with them.
    full = {parameters for parameters, operations in sizes if operations is not None}
    return [row for (size, operations), row in sizes.items() if operations is not None or size not in full]


@dataclass(frozen=True)
class Standing:
    """An evaluation among published results."""

    table: PublishedTable
    miou: float  # percent with two decimals
    rank: int  # from 1; equal figures share the better rank


def objection(report: Mapping[str, Any]) -> str | None:
    """Return why a report of `build_report` cannot be ranked among published results; None: it can."""
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
    """Rank an evaluation; raises ValueError if there is an `objection`."""
    reason = objection(report)
    if reason is not None:
        raise ValueError(reason)
    table = published_table(report["protocol"]["dataset"])
    miou = round(100 * report["miou"], 2)  # as printed
    return Standing(table, miou, 1 + sum(result.miou > miou for result in table.results))


def standing_table(place: Standing, label: str, parameters: float | None) -> Table:
    """Return the published rows with the evaluation `label` among them, the best mIoU first."""
    table = Table(title=f"published on {place.table.dataset}, and this one", title_justify="left")
    for heading in ("rank", "method", "backbone", "M param.", "G op.", "mIoU", "protocol", "source"):
        numeric = heading in ("rank", "M param.", "G op.", "mIoU")
        table.add_column(heading, justify="right" if numeric else "left")
    size = "-" if parameters is None else f"{parameters / 1e6:.2f}"
    rows = [
        [
            result.method,
            result.backbone,
            *("-" if value is None else f"{value:g}" for value in (result.parameters, result.operations)),
            f"{result.miou:g}",
            result.protocol or "not known",
            result.source.split(", ")[0] + (" (second-hand)" if result.seen == "told" else ""),
        ]
        for result in sorted(place.table.results, key=lambda result: -result.miou)
    ]
    own = [label, "", size, "-", f"{place.miou:.2f}", place.table.protocol, "this evaluation"]
    rows.insert(place.rank - 1, own)
    for rank, cells in enumerate(rows, 1):
        table.add_row(str(rank), *cells, style="bold" if cells is own else None)
    return table


CAVEAT = (
    "published figures are as their sources print them; where the protocol is not known, splits and classes "
    "may differ. 'second-hand': we have not found it in the source"
)
"""Printed below the table."""
