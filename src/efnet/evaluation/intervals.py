"""Intervals and per-image counts in the report of an evaluation, and tallies read back from reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_json
from efnet.data.pairs import Condition, Pair
from efnet.evaluation.boundary import DILATION
from efnet.evaluation.metrics import Counts, PairCounts, Tally
from efnet.evaluation.protocols import Protocol, get_protocol
from efnet.evaluation.resampling import (
    Floats,
    Kind,
    Resampling,
    Runs,
    bootstrap,
    boundary_sums,
    figures,
    interval,
    region_sums,
)

Report = dict[str, Any]
Bounds = list[float] | None

PER_IMAGE = "per_image"
"""Key of a report that holds the counts of each image."""


def add_evidence(report: Report, tally: Tally, plan: Resampling) -> Report:
    """Add intervals, boundary IoU and the counts of each image to a report of `build_report`.

    Adds `interval`: the settings of `Resampling`, `units`, the interval [low, high] of `miou`, `macc` and
    each class's `iou`, and `with`, the number of units that have a class in truth; the same without settings
    in `day` and `night`; `boundary` (`dilation`, `miou`, `iou`, `interval`) where the tally counted it; and
    `per_image`, which `read_tally` turns into a tally again. An interval is None where the figure does not
    exist, or fewer than two units have the class in truth.
    """
    report["interval"] = {**plan.describe(), **_intervals(tally, tally.pairs, plan)}
    for condition in tally.conditions():
        part = [entry for entry in tally.pairs if entry.pair.condition == condition]
        report[condition]["interval"] = _intervals(tally, part, plan)
    edges = boundary_sums(tally.pairs)
    if edges is not None:
        runs, units = Runs.of([edges]), plan.units(_names(tally.pairs))
        values = [_number(value) for value in runs.figures(tally.protocol)]
        bounds = _bounds(runs, units, tally.protocol, plan, "iou")
        names = tally.classes.names
        report["boundary"] = {
            "dilation": DILATION,
            "miou": values[0],
            "iou": dict(zip(names, values[1:], strict=True)),
            "interval": {"miou": bounds[0], "iou": dict(zip(names, bounds[1:], strict=True))},
        }
    report[PER_IMAGE] = [_record(entry) for entry in tally.pairs]
    return report


def miou_interval(
    runs: Sequence[Tally], plan: Resampling, other: Sequence[Tally] = ()
) -> tuple[float, float] | None:
    """Return the interval of the mean mIoU of several runs, or of its difference to those of another network.

    None where the runs were not counted on the same images in the same order, or there is one unit alone.
    """
    first = runs[0]
    names = _names(first.pairs)
    units = plan.units(names)
    alone = occupied(region_sums(first.pairs, first.protocol), units) < 2
    if alone or any(_names(tally.pairs) != names for tally in (*runs, *other)):
        return None
    drawn = [
        bootstrap(
            Runs.of([region_sums(tally.pairs, tally.protocol) for tally in part]), units, first.protocol, plan
        )[:, :1]
        for part in (runs, other)
        if part
    ]
    return interval(drawn[0] - drawn[1] if other else drawn[0], plan.level)[0]


def _names(pairs: Sequence[PairCounts]) -> list[str]:
    return [entry.pair.name for entry in pairs]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _intervals(tally: Tally, pairs: Sequence[PairCounts], plan: Resampling) -> dict[str, Any]:
    units = plan.units(_names(pairs))
    runs = Runs.of([region_sums(pairs, tally.protocol)])
    iou = _bounds(runs, units, tally.protocol, plan, "iou")
    acc = _bounds(runs, units, tally.protocol, plan, "acc")
    names = tally.classes.names
    classes = dict(zip(names, iou[1:], strict=True))
    seen = dict(zip(names, class_units(runs.sums[0], units), strict=True))
    return {"units": int(units.max()) + 1, "miou": iou[0], "macc": acc[0], "iou": classes, "with": seen}


def _bounds(
    runs: Runs, units: NDArray[np.int64], protocol: Protocol, plan: Resampling, kind: Kind
) -> list[Bounds]:
    """Intervals of the mean and of each class."""
    if occupied(runs.sums[0], units) < 2:
        return [None] * (1 + runs.sums.shape[-1])
    found = interval(bootstrap(runs, units, protocol, plan, kind), plan.level)
    common = [count > 1 for count in class_units(runs.sums[0], units)]
    own = figures(runs.sums[0].sum(axis=0), protocol, kind)
    return [
        None if bounds is None or not kept or math.isnan(value) else list(bounds)
        for bounds, kept, value in zip(found, (True, *common), own, strict=True)
    ]


def class_units(sums: Floats, units: NDArray[np.int64]) -> list[int]:
    """Return for each class how many units have it in truth, of sums (N, 3, K)."""
    truth = np.zeros((int(units.max()) + 1, sums.shape[-1]))
    np.add.at(truth, units, sums[:, 1])
    return [int(count) for count in (truth > 0).sum(axis=0)]


def occupied(sums: Floats, units: NDArray[np.int64]) -> int:
    """Return how many units have a pixel of truth that counts, of sums (N, 3, K)."""
    return len(np.unique(units[sums[:, 1].sum(axis=1) > 0]))


def _record(entry: PairCounts) -> dict[str, Any]:
    """One image as plain values; counts are row by row in one text, so that a report stays readable."""
    record = {"name": entry.pair.name, "condition": entry.pair.condition, "counts": _text(entry.counts)}
    return record if entry.boundary is None else {**record, "boundary": _text(entry.boundary)}


def _text(counts: Counts) -> str:
    return " ".join(map(str, counts.ravel().tolist()))


def read_report(path: str | Path) -> Report:
    """Read a report that was written as JSON; raises InputError for another file."""
    path = Path(path)
    try:
        report = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a report of efnet evaluate ({error}); write it again") from error
    if not isinstance(report, dict) or not {"miou", "iou", "protocol"} <= report.keys():
        raise InputError(f"{path}: not a report of efnet evaluate or efnet score; write one with `json`")
    return report


def read_tally(report: Report, where: str) -> Tally:
    """Return the counts of a report that has `per_image`; `where` names it in errors.

    Raises InputError: no such counts (an older report), counts that do not make the report's confusion
    matrix, or a protocol that is not this version's.
    """
    if PER_IMAGE not in report:
        raise InputError(
            f"{where}: has no counts of single images (an older version wrote it, or another command); "
            "evaluate again with `json`"
        )
    try:
        names = tuple(report["iou"])
        classes = ClassSet(names, ClassSet.generic(len(names)).palette)
        protocol = get_protocol(report["protocol"]["name"])
        tally = Tally(classes, protocol, [_restored(record, len(names)) for record in report[PER_IMAGE]])
        known = {key: report["protocol"][key] for key in protocol.to_dict(classes)}
        total = tally.scores().miou
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: a damaged report ({error!r}); evaluate again with `json`") from error
    if known != protocol.to_dict(classes):
        raise InputError(
            f"{where}: protocol {protocol.name} had other rules when it was written; evaluate again"
        )
    same = total == report["miou"] or (
        total is not None and report["miou"] is not None and math.isclose(total, report["miou"], rel_tol=1e-9)
    )
    if not same:
        raise InputError(f"{where}: its images do not add up to its mIoU; evaluate again with `json`")
    return tally


def _restored(record: dict[str, Any], num_classes: int) -> PairCounts:
    condition: Condition | None = record["condition"]
    if condition not in (None, "day", "night"):
        raise ValueError(f"condition {condition}")
    pair = Pair(str(record["name"]), Path(record["name"]), None, None, condition=condition)
    edges = record.get("boundary")
    return PairCounts(
        pair,
        _numbers(record["counts"], (num_classes, num_classes)),
        None if edges is None else _numbers(edges, (3, num_classes)),
    )


def _numbers(text: str, shape: tuple[int, int]) -> Counts:
    counts = np.array([int(word) for word in text.split()], dtype=np.int64).reshape(shape)
    if (counts < 0).any():
        raise ValueError("a negative count")
    return counts
