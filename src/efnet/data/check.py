"""A data set looked through split by split: what is there, and what is wrong with it.

Whether the pairs of a data set lie on each other, estimated from a sample of them.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.alignment.edges import Shift, estimate_shift, misalignment
from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.data.layouts import layout_at
from efnet.data.layouts.listing import ImageFolder, Layout
from efnet.data.pairs import Pair, PairSet
from efnet.data.sample import read_sample
from efnet.data.verify import Inspection, Progress, inspect, split_faults

SAMPLE = 24
"""Pairs looked at, evenly spaced over the data set."""

WARN_SHARE = 0.01
"""Median shift that is warned of, as a share of the image's diagonal: 8 pixels of 640x480."""


@dataclass(frozen=True)
class Misalignment:
    """The median shift of a data set's pairs.

    Attributes:
        x: pixels that thermal has to move right to lie on colour.
        y: likewise, down.
        pairs: whose edges agree clearly enough to tell.
        looked_at: how many were looked at.
        diagonal: of the colour images, in pixels.
    """

    x: float
    y: float
    pairs: int
    looked_at: int
    diagonal: float

    def warning(self) -> str | None:
        """A line for the user, if the shift is more than a few pixels."""
        length = math.hypot(self.x, self.y)
        if length <= WARN_SHARE * self.diagonal:
            return None
        return (
            f"thermal lies about {length:.0f} pixels off its colour image (it has to move {self.x:+.0f} "
            f"right and {self.y:+.0f} down; median of {self.pairs} pairs): look at some, and register them "
            "(efnet calibrate)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def estimate_misalignment(pairsets: Sequence[PairSet], sample: int = SAMPLE) -> Misalignment | None:
    """Estimate how far thermal is off colour in a data set.

    Args:
        pairsets: its splits.
        sample: how many pairs to look at.

    Returns:
        the median shift; None where too few pairs are clear enough. Pairs that cannot be read are left out.
    """
    # By file: splits may share pairs, and mirrored copies say nothing new.
    pairs = {pair.rgb: (pair, pairset) for pairset in pairsets for pair in pairset.pairs if not pair.flip}
    chosen = list(pairs.values())
    step = max(1, math.ceil(len(chosen) / sample))
    found = list(_shifts(chosen[::step]))
    middle = misalignment([shift for shift, _ in found])
    if middle is None:
        return None
    return Misalignment(
        x=round(middle.x, 2),
        y=round(middle.y, 2),
        pairs=sum(shift.confident for shift, _ in found),
        looked_at=len(found),
        diagonal=max(diagonal for _, diagonal in found),
    )


def _shifts(chosen: Sequence[tuple[Pair, PairSet]]) -> Iterator[tuple[Shift, float]]:
    """Shift and image diagonal of each pair that can be read."""

    def look(item: tuple[Pair, PairSet]) -> tuple[Shift, float] | None:
        pair, pairset = item
        try:
            sample = read_sample(pair, pairset.classes, pairset.thermal_scale)
        except InputError:  # told as a problem elsewhere
            return None
        return estimate_shift(sample.rgb, sample.thermal), math.hypot(*sample.thermal.shape)

    pool = ThreadPoolExecutor(max_workers=2)
    try:
        yield from (found for found in pool.map(look, chosen) if found is not None)
    finally:
        pool.shutdown(cancel_futures=True)


_DISJOINT_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SplitReport:
    """One split's contents.

    Attributes:
        split: its name.
        pairs: how many.
        labelled: how many of them have a label file.
        conditions: `day` and `night` to number of pairs; empty where unknown.
        sizes: (H, W) to number of pairs.
        thermal_kinds: how thermal is stored to number of pairs.
        thermal_range: least and greatest raw thermal value.
        label_kinds: how labels are stored to number of pairs.
        label_pixels: (256,) pixels of each label value.
        problems: one line each, naming the file and the remedy.
    """

    split: str
    pairs: int
    labelled: int
    conditions: dict[str, int]
    sizes: dict[tuple[int, int], int]
    thermal_kinds: dict[str, int]
    thermal_range: tuple[float, float] | None
    label_kinds: dict[str, int]
    label_pixels: NDArray[np.int64]
    problems: tuple[str, ...]

    def to_dict(self, classes: ClassSet) -> dict[str, Any]:
        """Plain values for JSON."""
        labelled = max(1, int(self.label_pixels.sum()))
        return {
            "pairs": self.pairs,
            "labelled": self.labelled,
            **self.conditions,
            "sizes": {f"{height}x{width}": count for (height, width), count in self.sizes.items()},
            "thermal": self.thermal_kinds,
            "thermal_range": None if self.thermal_range is None else list(self.thermal_range),
            "labels": self.label_kinds,
            "label_values": [int(value) for value in np.flatnonzero(self.label_pixels)],
            "class_pixels": {
                name: int(count) for name, count in zip(classes.names, self.label_pixels, strict=False)
            },
            "class_share": {
                name: float(count / labelled)
                for name, count in zip(classes.names, self.label_pixels, strict=False)
            },
            "ignored_pixels": int(self.label_pixels[IGNORE_INDEX]),
            "problems": list(self.problems),
        }


@dataclass(frozen=True)
class DatasetReport:
    """A data set's contents.

    Attributes:
        dataset: layout name.
        root: its folder.
        classes: of its labels.
        splits: in the layout's order.
        warnings: what is odd but no fault, such as files on no list.
        misalignment: how far thermal is off colour, by the edges of a sample of pairs; None: not clear.
    """

    dataset: str
    root: Path
    classes: ClassSet
    splits: tuple[SplitReport, ...]
    warnings: tuple[str, ...] = field(default=())
    misalignment: Misalignment | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """All splits' problems, each once."""
        return tuple(dict.fromkeys(line for split in self.splits for line in split.problems))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "dataset": self.dataset,
            "root": str(self.root),
            "classes": self.classes.to_dict(),
            "splits": {split.split: split.to_dict(self.classes) for split in self.splits},
            "problems": list(self.problems),
            "warnings": list(self.warnings),
            "misalignment": None if self.misalignment is None else self.misalignment.to_dict(),
        }


def check(
    dataset: str,
    root: str | os.PathLike[str],
    splits: Sequence[str] = (),
    *,
    progress: Progress | None = None,
) -> DatasetReport:
    """Look through a data set, decoding every file once.

    Args:
        dataset: a layout name, or the path of a data set's YAML file.
        root: its folder.
        splits: which; empty: all, and files on no list and overlaps between splits are looked for too.
        progress: told how far it is, in pairs of all splits together.

    Returns:
        the report; faults are in it, not raised.

    Raises:
        InputError: the layout, a split or the folder is not there at all.
    """
    root = Path(root)
    layout = layout_at(dataset, root)
    # With no list and no folder at all, opening `train` says what is missing.
    names = tuple(splits) or tuple(name for name in layout.splits(root) if name != "trainval") or ("train",)
    pairsets = [layout.open(root, name) for name in names]
    inspections = _inspect_all(pairsets, progress)
    reports = tuple(
        _report(pairset, inspections[start : start + len(pairset)])
        for pairset, start in zip(pairsets, np.cumsum([0, *map(len, pairsets)])[:-1], strict=True)
    )
    warnings = [] if splits else [*_absent(names), *overlaps(pairsets), *_unlisted(layout, root, pairsets)]
    warnings += [
        f"{report.split}: none of its {report.pairs} pairs is labelled"
        for report in reports
        if report.pairs and not report.labelled
    ]
    off = estimate_misalignment(pairsets)
    if off is not None and (line := off.warning()):
        warnings.append(line)
    return DatasetReport(layout.name, root, layout.class_set(root), reports, tuple(warnings), off)


def _inspect_all(pairsets: Sequence[PairSet], progress: Progress | None) -> list[Inspection]:
    """Inspections of all splits' pairs, one after the other; files shared between splits are read once."""
    if not pairsets:
        return []
    first = pairsets[0]
    everything = PairSet(
        first.dataset,
        first.root,
        "+".join(pairset.split for pairset in pairsets),
        tuple(pair for pairset in pairsets for pair in pairset.pairs),
        first.classes,
        first.protocol,
    )
    return list(inspect(everything, progress=progress))


def _report(pairset: PairSet, inspections: Sequence[Inspection]) -> SplitReport:
    pixels = np.zeros(256, dtype=np.int64)
    for inspection in inspections:
        if inspection.label_pixels is not None:
            pixels += inspection.label_pixels
    ranges = [found.thermal_range for found in inspections if found.thermal_range is not None]
    problems = split_faults(pairset, require_labels=False)
    problems += [fault for inspection in inspections for fault in inspection.faults]
    return SplitReport(
        split=pairset.split,
        pairs=len(pairset),
        labelled=sum(pair.label is not None for pair in pairset.pairs),
        conditions=dict(Counter(pair.condition for pair in pairset.pairs if pair.condition)),
        sizes=dict(Counter(found.size for found in inspections if found.size)),
        thermal_kinds=dict(Counter(found.thermal_kind for found in inspections if found.thermal_kind)),
        thermal_range=(min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None,
        label_kinds=dict(Counter(found.label_kind for found in inspections if found.label_kind)),
        label_pixels=pixels,
        problems=tuple(dict.fromkeys(problems)),
    )


def _absent(names: Sequence[str]) -> list[str]:
    """The usual splits that are not there."""
    return [f"there is no split '{split}'" for split in _DISJOINT_SPLITS if split not in names]


def overlaps(pairsets: Sequence[PairSet]) -> list[str]:
    """Files shared between train, val and test: figures on the later one would measure memory."""
    disjoint = [pairset for pairset in pairsets if pairset.split in _DISJOINT_SPLITS]
    found = []
    for one, other in combinations(disjoint, 2):
        shared = {pair.rgb for pair in one.pairs} & {pair.rgb for pair in other.pairs}
        if shared:
            example = min(shared).name
            found.append(f"{one.split} and {other.split} share {len(shared)} images, such as {example}")
    return found


def _unlisted(layout: Layout, root: Path, pairsets: Sequence[PairSet]) -> list[str]:
    """Images in the data set's folders that belong to no pair of any split."""
    used = {
        path
        for pairset in pairsets
        for pair in pairset.pairs
        for path in (pair.rgb, pair.thermal, pair.label)
        if path is not None
    }
    found = []
    for folder in layout.image_folders(root):
        spare = sorted(set(ImageFolder.read(folder).files.values()) - used)
        if spare:
            listed = ", ".join(path.name for path in spare[:3]) + (", ..." if len(spare) > 3 else "")
            found.append(f"{folder}: {len(spare)} images belong to no pair of any split: {listed}")
    return found
