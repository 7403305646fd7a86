"""Where an evaluation stands among published results, and whether it may be put there at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from efnet.published.results import DATASETS, PublishedResult, PublishedTable, published_table


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
