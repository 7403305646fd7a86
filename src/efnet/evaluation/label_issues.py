"""Labels that a network doubts: regions where it is as sure of another class as it usually is of that class.

Confident learning (Northcutt et al., JAIR 2021, arXiv 1911.00068), by region and off the borders of labels:

- The threshold t_k of class k is the mean probability of k over the pixels that are labelled k.
- A doubted region is a connected area of pixels labelled j where another class, k, is the most probable. It
  counts if the mean probability of k over its pixels is at least t_k.
- Its weight is its number of pixels times the mean of p_k - p_j. The score of a pair is the sum of the
  weights of its counted regions, that is, of sure and large contradictions.

Pixels closer than `border` to another label do not count: annotators draw borders within a few pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.distributed import Group
from efnet.core.errors import InputError
from efnet.core.journal import JournalWriter, changes, read_journal
from efnet.core.progress import Progress, no_progress
from efnet.data.components import areas
from efnet.data.dataset import PairDataset
from efnet.data.pairs import PairSet
from efnet.evaluation.evaluate import Work, batches
from efnet.inference.engine import Engine
from efnet.inference.preprocess import Prepared

JOURNAL_FILE = "issues.jsonl"


@dataclass(frozen=True)
class Doubt:
    """A region whose label a network doubts."""

    label: int  # class that the pixels are labelled
    likely: int  # most probable class
    pixels: int
    box: tuple[int, int, int, int]  # left, top, width and height in the label map
    p_label: float  # mean probability of the label
    p_likely: float  # mean probability of the most probable class

    @property
    def weight(self) -> float:
        """Number of pixels times the mean lead of the likely class."""
        return self.pixels * (self.p_likely - self.p_label)


@dataclass(frozen=True)
class PairDoubts:
    """One pair: every region where the network prefers another class, and its sums for the thresholds."""

    name: str
    doubts: tuple[Doubt, ...]
    pixels: tuple[int, ...]  # (K,) counted pixels of each label
    certainty: tuple[float, ...]  # (K,) sum over them of the label's probability

    def record(self) -> dict[str, Any]:
        """Return plain values for a journal."""
        rows = [[*vars(doubt).values()] for doubt in self.doubts]
        return {"name": self.name, "doubts": rows, "pixels": self.pixels, "certainty": self.certainty}

    @classmethod
    def restored(cls, record: Mapping[str, Any]) -> PairDoubts | None:
        """Read what `record` returned; None: it is damaged."""
        try:
            doubts = tuple(
                Doubt(label, likely, pixels, (box[0], box[1], box[2], box[3]), p_label, p_likely)
                for label, likely, pixels, box, p_label, p_likely in record["doubts"]
            )
            sums = tuple(map(int, record["pixels"])), tuple(map(float, record["certainty"]))
            return cls(str(record["name"]), doubts, *sums)
        except (KeyError, TypeError, ValueError, IndexError):
            return None


def find_doubts(
    name: str,
    probabilities: NDArray[np.float32],
    label: NDArray[np.uint8],
    ignored: Sequence[int] = (),
    border: int = 2,
    min_pixels: int = 20,
) -> PairDoubts:
    """Compare a label map (H, W) with the probabilities (K, H, W) of a network.

    Labels 255 and `ignored`, and pixels closer than `border` to another label, do not count. Regions below
    `min_pixels` are left out.
    """
    counted = inner(label, border) & ~np.isin(label, (*ignored, IGNORE_INDEX))
    given = np.where(counted, label, 0)
    p_label = np.take_along_axis(probabilities, given[None].astype(np.int64), axis=0)[0]
    likely = probabilities.argmax(axis=0)
    p_likely = probabilities.max(axis=0)
    classes = len(probabilities)
    pairs = np.where(counted & (likely != given), given.astype(np.int64) * classes + likely + 1, 0)
    doubts = []
    for area in areas(pairs):
        if area.value and area.pixels >= min_pixels:
            height, width = area.mask.shape
            means = (
                float(values[area.window][area.mask].mean(dtype=np.float64)) for values in (p_label, p_likely)
            )
            box = (area.left, area.top, width, height)
            doubts.append(Doubt(*divmod(area.value - 1, classes), area.pixels, box, *means))
    pixels = np.bincount(given[counted], minlength=classes)
    certainty = np.bincount(given[counted], weights=p_label[counted], minlength=classes)
    return PairDoubts(name, tuple(doubts), tuple(pixels.tolist()), tuple(certainty.tolist()))


def inner(label: NDArray[np.uint8], border: int) -> NDArray[np.bool_]:
    """Return the mask (H, W) of pixels with one label in the square that reaches `border` pixels further."""
    least = greatest = label
    for axis in (0, 1):
        if border:
            padded = [
                np.pad(values, [(border, border) if axis == side else (0, 0) for side in (0, 1)], mode="edge")
                for values in (least, greatest)
            ]
            low, high = (
                np.lib.stride_tricks.sliding_window_view(part, 2 * border + 1, axis) for part in padded
            )
            least, greatest = low.min(axis=-1), high.max(axis=-1)
    return np.asarray(least == greatest)


@dataclass(frozen=True)
class RankedPair:
    """A pair with its counted regions, the heaviest first."""

    name: str
    score: float
    doubts: tuple[Doubt, ...]

    @property
    def pixels(self) -> int:
        """Number of doubted pixels."""
        return sum(doubt.pixels for doubt in self.doubts)


@dataclass(frozen=True)
class LabelIssues:
    """The ranking of a split."""

    classes: ClassSet
    thresholds: tuple[float | None, ...]  # (K,) None: no pixel has this label
    pixels: tuple[int, ...]  # (K,) counted pixels of each label
    pairs: tuple[RankedPair, ...]  # from the most to the least doubted

    def confusions(self) -> NDArray[np.int64]:
        """Return the doubted pixels (K, K), rows label, columns most probable class."""
        counts = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        for pair in self.pairs:
            for doubt in pair.doubts:
                counts[doubt.label, doubt.likely] += doubt.pixels
        return counts


def rank(found: Sequence[PairDoubts], classes: ClassSet) -> LabelIssues:
    """Rank pairs by the weights of their sure regions; equal scores by name."""
    pixels = [sum(counts) for counts in zip(*(pair.pixels for pair in found), strict=True)]
    sums = [sum(parts) for parts in zip(*(pair.certainty for pair in found), strict=True)]
    thresholds = [total / count if count else None for total, count in zip(sums, pixels, strict=True)]
    ranked = []
    for pair in found:
        # A class that no pixel is labelled has no threshold: it was never confirmed.
        sure = [doubt for doubt in pair.doubts if _is_sure(doubt, thresholds[doubt.likely])]
        sure.sort(key=lambda doubt: (-doubt.weight, doubt.box))
        ranked.append(RankedPair(pair.name, sum(doubt.weight for doubt in sure), tuple(sure)))
    ranked.sort(key=lambda pair: (-pair.score, pair.name))
    return LabelIssues(classes, tuple(thresholds), tuple(pixels), tuple(ranked))


def _is_sure(doubt: Doubt, threshold: float | None) -> bool:
    return threshold is not None and doubt.p_likely >= threshold


def find_issues(
    engine: Engine,
    pairset: PairSet,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    border: int = 2,
    min_pixels: int = 20,
    batch_size: int = 1,
    workers: int = 0,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> LabelIssues:
    """Run a network over a labelled split and rank its pairs by how much it doubts their labels.

    Args:
        engine: the network; its classes are those of the data.
        pairset: the split, with a label for every pair.
        folder: holds the journal from which an interrupted run goes on.
        settings: plain values of all else that decides the result.
        border: see the module.
        min_pixels: least size of a region.
        batch_size: pairs in one pass of the network.
        workers: processes that read images.
        overwrite: begin anew.
        progress: called with the pairs done and of all.

    Raises:
        InputError: no pairs, a pair without label or unreadable, or a journal of other settings.
    """
    require_labels(pairset)
    path = folder / JOURNAL_FILE
    head = json.loads(json.dumps({"settings": {**settings, "border": border, "min_pixels": min_pixels}}))
    before, known = (None, {}) if overwrite or not path.exists() else read_journal(path, PairDoubts.restored)
    if before is not None and before != head:
        changed = "; ".join(changes(before.get("settings", {}), head["settings"])) or "another kind of file"
        raise InputError(
            f"{path}: of other settings ({changed}); choose another `out`, or begin anew with `overwrite`"
        )
    left = replace(pairset, pairs=tuple(pair for pair in pairset.pairs if pair.name not in known))

    with JournalWriter(path, head, resume=before is not None, overwrite=overwrite) as journal:

        def keep(number: int, _: Prepared, label: NDArray[np.uint8], shares: NDArray[np.float32]) -> None:
            name = left.pairs[number].name
            known[name] = find_doubts(name, shares, label, pairset.unscored, border, min_pixels)
            journal.append(known[name].record())
            progress(len(known), len(pairset))

        visit(engine, left, keep, batch_size=batch_size, workers=workers)
    return rank([known[pair.name] for pair in pairset.pairs], pairset.classes)


def require_labels(pairset: PairSet) -> None:
    """Raise InputError if a split has no pairs, or pairs without a label."""
    unlabelled = [pair.name for pair in pairset.pairs if pair.label is None]
    if unlabelled or not len(pairset):
        what = f"{len(unlabelled)} pairs without label (first: {unlabelled[0]})" if unlabelled else "no pairs"
        raise InputError(f"{pairset.root}: {pairset.split} has {what}; give a split with labels")


Visit = Callable[[int, Prepared, NDArray[np.uint8], NDArray[np.float32]], None]
"""Called with the place of a pair, its images, its label (H, W) and its probabilities (K, H, W)."""


def visit(engine: Engine, pairset: PairSet, keep: Visit, *, batch_size: int = 1, workers: int = 0) -> None:
    """Call `keep` with the probabilities of every pair of a split at the size of its label, in order."""
    items = PairDataset(pairset)
    work = Work(len(pairset), batch_size, Group.alone())
    for numbers, batch in zip(work.batches, batches(items, engine, work, workers), strict=True):
        sizes = [(label.shape[0], label.shape[1]) for _, label in batch]
        predictions = engine.run([prepared for prepared, _ in batch], True, sizes=sizes)
        for number, (prepared, label), prediction in zip(numbers, batch, predictions, strict=True):
            assert prediction.probabilities is not None
            keep(number, prepared, label.astype(np.uint8), prediction.probabilities)
