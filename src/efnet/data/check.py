"""A report on a data set: contents and faults of each split, and the median misalignment of its pairs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.alignment.edges import Shift, estimate_shift, misalignment
from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.data.archive import file_of, tar_of
from efnet.data.images import PathLike
from efnet.data.layouts import layout_at
from efnet.data.layouts.facts import fewer_or_more
from efnet.data.layouts.listing import Layout
from efnet.data.layouts.patterns import images_below
from efnet.data.pairs import Pair, PairSet
from efnet.data.sample import read_sample, threaded
from efnet.data.verify import Inspection, Progress, inspect, split_faults

WARN_SHARE = 0.01  # least median shift that gives a warning, of the image's diagonal: 8 pixels of 640x480


@dataclass(frozen=True)
class Misalignment:
    """The median shift of a data set's pairs."""

    x: float  # pixels that thermal has to move right to lie on colour
    y: float  # likewise, down
    pairs: int  # number whose edges agree clearly
    looked_at: int  # number examined
    diagonal: float  # of the colour images, in pixels

    def warning(self) -> str | None:
        """Return a line for the user if the shift is more than a few pixels."""
        length = math.hypot(self.x, self.y)
        if length <= WARN_SHARE * self.diagonal:
            return None
        return (
            f"thermal lies about {length:.0f} pixels off its colour image (it has to move {self.x:+.0f} "
            f"right and {self.y:+.0f} down; median of {self.pairs} pairs): look at some, and register them "
            "(efnet calibrate)"
        )


def estimate_misalignment(pairsets: Sequence[PairSet], sample: int = 24) -> Misalignment | None:
    """Estimate the median shift between thermal and colour images of a data set, given by its splits.

    `sample` evenly spaced pairs are examined, without those that cannot be read; None: too few are clear.
    """
    # By file: splits may share pairs, and mirrored copies say nothing new.
    pairs = {pair.rgb: (pair, pairset) for pairset in pairsets for pair in pairset.pairs if not pair.flip}
    chosen = list(pairs.values())
    step = max(1, math.ceil(len(chosen) / sample))
    found = [entry for entry in threaded(_shift, chosen[::step], workers=2) if entry is not None]
    middle = misalignment([shift for shift, _ in found])
    if middle is None:
        return None
    confident, diagonal = sum(shift.confident for shift, _ in found), max(length for _, length in found)
    return Misalignment(round(middle.x, 2), round(middle.y, 2), confident, len(found), diagonal)


def _shift(item: tuple[Pair, PairSet]) -> tuple[Shift, float] | None:
    """Shift and image diagonal of a pair; None: it cannot be read, which is reported as a fault."""
    pair, pairset = item
    try:
        sample = read_sample(pair, pairset.classes, pairset.thermal_scale)
    except InputError:
        return None
    return estimate_shift(sample.rgb, sample.thermal), math.hypot(*sample.thermal.shape)


_DISJOINT_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SplitReport:
    """Contents of one split."""

    split: str  # its name
    pairs: int  # their number
    labelled: int  # number of pairs with a label file
    conditions: dict[str, int]  # `day` and `night` to number of pairs; empty where unknown
    sizes: dict[tuple[int, int], int]  # (H, W) to number of pairs
    thermal_kinds: dict[str, int]  # how thermal is stored to number of pairs
    thermal_range: tuple[float, float] | None  # least and greatest raw thermal value
    thermal_units: dict[str, int]  # units that raw thermal values look like to number of pairs
    label_kinds: dict[str, int]  # how labels are stored to number of pairs
    label_pixels: NDArray[np.int64]  # (256,) pixels of each label value
    problems: tuple[str, ...]  # one line each, naming the file and the remedy

    def to_dict(self, classes: ClassSet) -> dict[str, Any]:
        """Plain values for JSON."""
        labelled = max(1, int(self.label_pixels.sum()))
        counts = dict(zip(classes.names, self.label_pixels, strict=False))
        return {
            "pairs": self.pairs,
            "labelled": self.labelled,
            **self.conditions,
            "sizes": {f"{height}x{width}": count for (height, width), count in self.sizes.items()},
            "thermal": self.thermal_kinds,
            "thermal_range": None if self.thermal_range is None else list(self.thermal_range),
            "thermal_units": self.thermal_units,
            "labels": self.label_kinds,
            "label_values": [int(value) for value in np.flatnonzero(self.label_pixels)],
            "class_pixels": {name: int(count) for name, count in counts.items()},
            "class_share": {name: float(count / labelled) for name, count in counts.items()},
            "ignored_pixels": int(self.label_pixels[IGNORE_INDEX]),
            "problems": list(self.problems),
        }


@dataclass(frozen=True)
class DatasetReport:
    """Contents of a data set."""

    dataset: str  # layout name
    root: Path  # its folder
    classes: ClassSet  # of its labels
    splits: tuple[SplitReport, ...]  # in the layout's order
    warnings: tuple[str, ...] = ()  # oddities that are not faults, such as files on no list
    misalignment: Misalignment | None = None  # None: too few pairs with clear edges
    notes: tuple[str, ...] = ()  # splits of public sets with another number of pairs than the official ones

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
            "notes": list(self.notes),
            "misalignment": None if self.misalignment is None else asdict(self.misalignment),
        }


def check(
    dataset: str, root: PathLike, splits: Sequence[str] = (), *, progress: Progress | None = None
) -> DatasetReport:
    """Inspect a data set, decoding every file once; the report contains the faults.

    Args:
        dataset: a layout name, or the path of a data set's YAML file.
        root: its folder.
        splits: their names; empty: all, and then also overlaps between splits and files on no list.
        progress: called with the pairs done and their total, over all splits.

    Raises:
        InputError: the layout, a split or the folder does not exist.
    """
    root = Path(root)
    layout = layout_at(dataset, root)
    # With no list and no folder at all, opening `train` says what is missing.
    names = tuple(splits) or tuple(name for name in layout.splits(root) if name != "trainval") or ("train",)
    pairsets = [layout.open(root, name) for name in names]
    # All splits in one pass: files that splits share are read once.
    everything = tuple(pair for pairset in pairsets for pair in pairset.pairs)
    inspections = list(inspect(replace(pairsets[0], pairs=everything), progress=progress))
    reports = tuple(
        _report(pairset, inspections[start : start + len(pairset)])
        for pairset, start in zip(pairsets, np.cumsum([0, *map(len, pairsets)])[:-1], strict=True)
    )
    absent = [f"there is no split '{split}'" for split in _DISJOINT_SPLITS if split not in names]
    warnings = [] if splits else [*absent, *overlaps(pairsets), *_unlisted(layout, root, pairsets)]
    bare = [report for report in reports if report.pairs and not report.labelled]
    warnings += [f"{report.split}: none of its {report.pairs} pairs is labelled" for report in bare]
    if (black_and_white := _black_and_white(reports, pairsets[0].classes)) is not None:
        warnings.append(f"{root}: {black_and_white}")
    off = estimate_misalignment(pairsets)
    if off is not None and (line := off.warning()):
        warnings.append(line)
    warnings += _grouped(inspections)
    return DatasetReport(
        layout.name, root, layout.class_set(root), reports, tuple(warnings), off, _counts(pairsets)
    )


def _black_and_white(reports: Sequence[SplitReport], classes: ClassSet) -> str | None:
    """Describe labels whose only values are 0 and the ignored one: masks of black and white, most likely."""
    pixels = sum(report.label_pixels for report in reports)
    if list(np.flatnonzero(pixels)) != [0, IGNORE_INDEX]:
        return None
    return (
        f"the labels hold 0 and {IGNORE_INDEX} alone, and {IGNORE_INDEX} is ignored; if white means "
        f"'{classes.names[1]}', give 'palette: [[0, 0, 0], [255, 255, 255]]' in dataset.yaml"
    )


def _grouped(inspections: Sequence[Inspection]) -> list[str]:
    """Return one line for each kind of note, with a file and the number of others."""
    files: dict[str, dict[Path, None]] = {}
    for inspection in inspections:
        for text, path in inspection.notes:
            files.setdefault(text, {})[path] = None
    return [
        f"{next(iter(paths))}: {text}"
        + (f" (so have {len(paths) - 1} other files)" if len(paths) > 1 else "")
        for text, paths in files.items()
    ]


def _report(pairset: PairSet, inspections: Sequence[Inspection]) -> SplitReport:
    pixels = np.zeros(256, dtype=np.int64)
    problems = split_faults(pairset, require_labels=False)
    for inspection in inspections:
        problems += inspection.faults
        if inspection.label_pixels is not None:
            pixels += inspection.label_pixels
    ranges = [found.thermal_range for found in inspections if found.thermal_range is not None]
    return SplitReport(
        split=pairset.split,
        pairs=len(pairset),
        labelled=sum(pair.label is not None for pair in pairset.pairs),
        conditions=dict(Counter(pair.condition for pair in pairset.pairs if pair.condition)),
        sizes=dict(Counter(found.size for found in inspections if found.size)),
        thermal_kinds=dict(Counter(found.thermal_kind for found in inspections if found.thermal_kind)),
        thermal_range=(min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None,
        thermal_units=dict(Counter(found.thermal_unit for found in inspections if found.thermal_unit)),
        label_kinds=dict(Counter(found.label_kind for found in inspections if found.label_kind)),
        label_pixels=pixels,
        problems=tuple(dict.fromkeys(problems)),
    )


def overlaps(pairsets: Sequence[PairSet]) -> list[str]:
    """List images shared between train, val and test: scores on the later split would measure memory."""
    disjoint = [pairset for pairset in pairsets if pairset.split in _DISJOINT_SPLITS]
    found = []
    for one, other in combinations(disjoint, 2):
        shared = {pair.rgb for pair in one.pairs} & {pair.rgb for pair in other.pairs}
        if shared:
            example = min(shared).name
            found.append(f"{one.split} and {other.split} share {len(shared)} images, such as {example}")
    return found


def _counts(pairsets: Sequence[PairSet]) -> tuple[str, ...]:
    """List the splits of public sets that have another number of pairs than their authors publish."""
    return tuple(line for line in map(fewer_or_more, pairsets) if line is not None)


def _unlisted(layout: Layout, root: Path, pairsets: Sequence[PairSet]) -> list[str]:
    """Describe images in the data set's folders that belong to no pair."""
    pairs = (pair for pairset in pairsets for pair in pairset.pairs)
    paths = {path for pair in pairs for path in (pair.rgb, pair.thermal, pair.label) if path is not None}
    used = {path if tar_of(path) else file_of(path) for path in paths}
    found = []
    for folder in layout.image_folders(root):
        spare = sorted(set(images_below(folder)) - used)
        if spare:
            listed = ", ".join(path.name for path in spare[:3]) + (", ..." if len(spare) > 3 else "")
            found.append(f"{folder}: {len(spare)} images belong to no pair of any split: {listed}")
    return found
