"""The confusion matrix, and the scores that a protocol makes of it.

K classes; a matrix is int64 (K, K), rows truth, columns prediction. Scores are fractions from 0 to 1;
only printed tables show percent.

Nearest-pixel resizing of label maps.

One confusion matrix per pair, summed over a split or over its day or night part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.data.pairs import Condition, Pair
from efnet.evaluation.protocols import Protocol

Counts = NDArray[np.int64]
LabelMap = NDArray[np.integer[Any]]


def confusion_matrix(truth: LabelMap, prediction: LabelMap, num_classes: int) -> Counts:
    """Count the pixels of one pair of label maps.

    Args:
        truth: (H, W), 0..K-1, or 255 where a pixel is left out.
        prediction: (H, W), 0..K-1; 255 is allowed where truth is 255.
        num_classes: K.

    Returns:
        int64 (K, K), rows truth, columns prediction.

    Raises:
        InputError: the sizes differ or a value is out of range.
    """
    if truth.shape != prediction.shape:
        raise InputError(
            f"truth is {_size(truth)} but the prediction {_size(prediction)}; they must be equal"
        )
    # Both values in one 16-bit code: a single pass that also shows every value out of range.
    codes = _as_bytes(truth, "truth").astype(np.uint16) << 8 | _as_bytes(prediction, "prediction")
    table = np.bincount(codes.ravel(), minlength=1 << 16).reshape(256, 256)
    kept, known = table[:num_classes], table[:num_classes, :num_classes]
    outside = int(table[num_classes:IGNORE_INDEX].sum())
    if outside:
        values = num_classes + np.flatnonzero(table[num_classes:IGNORE_INDEX].sum(axis=1))
        raise InputError(_out_of_range("truth", values, outside, num_classes))
    strange = table[:, num_classes:].sum(axis=0)
    strange[-1] = kept[:, IGNORE_INDEX].sum()  # 255 counts as strange only on labelled pixels
    if strange.any():
        values = num_classes + np.flatnonzero(strange)
        raise InputError(_out_of_range("the prediction", values, int(strange.sum()), num_classes))
    return known.astype(np.int64)


def _as_bytes(values: LabelMap, what: str) -> NDArray[np.uint8]:
    """Label values as uint8, refused where that would change them."""
    if values.dtype == np.uint8:
        return values  # type: ignore[return-value]
    if not np.issubdtype(values.dtype, np.integer):
        raise InputError(f"{what} holds {values.dtype} values; label maps hold whole numbers")
    if values.size and (values.min() < 0 or values.max() > IGNORE_INDEX):
        raise InputError(f"{what} holds {values.min()}..{values.max()}; label values lie between 0 and 255")
    return values.astype(np.uint8)


def _size(values: NDArray[Any]) -> str:
    return "x".join(str(length) for length in values.shape)


def _out_of_range(what: str, values: NDArray[Any], pixels: int, num_classes: int) -> str:
    shown = ", ".join(str(value) for value in values[:8]) + (", ..." if len(values) > 8 else "")
    return (
        f"{what} holds {shown} at {pixels} pixels, outside 0..{num_classes - 1} "
        f"({IGNORE_INDEX} marks pixels of truth that are left out)"
    )


class ConfusionMatrix:
    """Accumulates `confusion_matrix` over pairs; two of them merge with `+`.

    Attributes:
        counts: int64 (K, K), rows truth, columns prediction.
        images: number of pairs counted.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts: Counts = np.zeros((num_classes, num_classes), dtype=np.int64)
        self.images = 0

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.counts)

    def update(self, truth: LabelMap, prediction: LabelMap) -> Counts:
        """Count one pair (H, W) and return its own matrix (K, K).

        Raises:
            InputError: as `confusion_matrix`; nothing is counted then.
        """
        counts = confusion_matrix(truth, prediction, self.num_classes)
        self.counts += counts
        self.images += 1
        return counts

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """The matrix of both sets of pairs together."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"matrices of {self.num_classes} and {other.num_classes} classes do not merge")
        merged = ConfusionMatrix(self.num_classes)
        merged.counts = self.counts + other.counts
        merged.images = self.images + other.images
        return merged

    @classmethod
    def merged(cls, matrices: Iterable[ConfusionMatrix], num_classes: int) -> ConfusionMatrix:
        """The sum of any number of matrices, also of none."""
        return sum(matrices, start=cls(num_classes))


@dataclass(frozen=True)
class Scores:
    """What a protocol makes of one matrix, as fractions.

    Attributes:
        miou: mean IoU over the averaged classes; None where none of them occurs.
        macc: mean recall under the same rule.
        iou: every class name to its IoU; None for classes that do not enter the mean.
        acc: the same for recall.
    """

    miou: float | None
    macc: float | None
    iou: dict[str, float | None]
    acc: dict[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a report."""
        return {"miou": self.miou, "macc": self.macc, "iou": dict(self.iou), "acc": dict(self.acc)}


def counted(counts: Counts, protocol: Protocol) -> Counts:
    """The matrix (K, K) with the pixels that the protocol ignores removed."""
    kept = counts.copy()
    kept[list(protocol.ignored_truth)] = 0
    kept[:, list(protocol.ignored_prediction)] = 0
    return kept


def iou(counts: Counts) -> NDArray[np.float64]:
    """Per-class IoU (K,) of a matrix (K, K): TP / (TP + FP + FN); NaN for a class in neither map."""
    correct = np.diag(counts)
    return _ratio(correct, counts.sum(axis=0) + counts.sum(axis=1) - correct)


def accuracy(counts: Counts) -> NDArray[np.float64]:
    """Per-class recall (K,) of a matrix (K, K): TP / (TP + FN); NaN for a class absent from truth."""
    return _ratio(np.diag(counts), counts.sum(axis=1))


def _ratio(part: Counts, whole: Counts) -> NDArray[np.float64]:
    ratio = np.full(len(whole), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def score(counts: Counts, protocol: Protocol, classes: ClassSet) -> Scores:
    """Score a matrix (K, K) under a protocol.

    Raises:
        InputError: the protocol is not made for this class set.
    """
    protocol.check(classes)
    kept = counted(counts, protocol)
    mean_iou, ious = _mean(iou(kept), protocol, classes)
    mean_accuracy, accuracies = _mean(accuracy(kept), protocol, classes)
    return Scores(miou=mean_iou, macc=mean_accuracy, iou=ious, acc=accuracies)


def _mean(
    values: NDArray[np.float64], protocol: Protocol, classes: ClassSet
) -> tuple[float | None, dict[str, float | None]]:
    """The mean over the averaged classes, and each class's own value (None where it is not averaged)."""
    named: dict[str, float | None] = dict.fromkeys(classes.names)
    for value in protocol.averaged(len(classes)):
        number = float(values[value])
        if not np.isnan(number):
            named[classes.names[value]] = number
        elif protocol.absent == "zero":
            named[classes.names[value]] = 0.0
    entering = [number for number in named.values() if number is not None]
    return (sum(entering) / len(entering) if entering else None), named


def constant_prediction(counts: Counts, value: int = 0) -> Counts:
    """The matrix (K, K) that predicting `value` at every pixel of the same truth gives."""
    constant = np.zeros_like(counts)
    constant[:, value] = counts.sum(axis=1)
    return constant


def resize_nearest(values: LabelMap, size: tuple[int, int]) -> LabelMap:
    """Bring a label map (H, W) to `size`, each pixel taking the value under its centre.

    Pixel i of n looks at source pixel floor((i + 1/2) * N / n): the grid of bilinear resizing with
    `align_corners=False`, so that labels and resized logits lie on each other. Computed in whole
    numbers, so exact at any size. The same map comes back where nothing is to do.
    """
    height, width = values.shape
    if (height, width) == size:
        return values
    rows, columns = _centres(height, size[0]), _centres(width, size[1])
    resized: LabelMap = values[rows[:, None], columns[None, :]]
    return resized


def _centres(old: int, new: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return ((2 * np.arange(new) + 1) * old) // (2 * new)


Keep = Callable[[Pair, LabelMap, LabelMap], None]
"""Called with a pair, its prediction and its truth, both (h, w) at the scored size."""


@dataclass(frozen=True)
class PairCounts:
    """The matrix int64 (K, K) of one pair."""

    pair: Pair
    counts: Counts


@dataclass
class Tally:
    """What was counted so far, pair by pair; every figure of a report is a sum over these.

    Attributes:
        classes: meaning of the label values.
        protocol: decides the size at which maps are compared, and the scores.
        pairs: in the order in which they were added.
    """

    classes: ClassSet
    protocol: Protocol
    pairs: list[PairCounts] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.protocol.check(self.classes)

    def scored_size(self, label_shape: tuple[int, ...]) -> tuple[int, int]:
        """Height and width at which a pair with a label (H, W) is compared."""
        return self.protocol.size or (label_shape[0], label_shape[1])

    def add(self, pair: Pair, truth: LabelMap, prediction: LabelMap) -> PairCounts:
        """Count one pair; maps that are not at the scored size are brought there, nearest pixel.

        Args:
            pair: which one; its condition sorts it into day or night.
            truth: (H, W) label, 255 where ignored.
            prediction: (h, w) class of each pixel.

        Raises:
            InputError: a value is out of range; the message names the pair.
        """
        size = self.scored_size(truth.shape)
        matrix = ConfusionMatrix(len(self.classes))
        try:
            counts = matrix.update(resize_nearest(truth, size), resize_nearest(prediction, size))
        except InputError as error:
            raise InputError(f"pair {pair.name}: {error}") from error
        self.pairs.append(PairCounts(pair, counts))
        return self.pairs[-1]

    def matrix(self, condition: Condition | None = None) -> ConfusionMatrix:
        """The sum over all pairs, or over those of one condition."""
        total = ConfusionMatrix(len(self.classes))
        for entry in self.pairs:
            if condition is None or entry.pair.condition == condition:
                total.counts += entry.counts
                total.images += 1
        return total

    def conditions(self) -> tuple[Condition, ...]:
        """`day` and `night`, as far as pairs of that condition were counted."""
        known: tuple[Condition, ...] = ("day", "night")
        present = {entry.pair.condition for entry in self.pairs}
        return tuple(condition for condition in known if condition in present)

    def scores(self, condition: Condition | None = None) -> Scores:
        """The protocol's figures for all pairs, or for those of one condition."""
        return score(self.matrix(condition).counts, self.protocol, self.classes)

    def pair_miou(self) -> list[float]:
        """Each pair's own mIoU under the protocol, NaN where none of its classes is averaged.

        For ranking pairs only: its mean over the pairs is not the mIoU of the split.
        """
        own = (score(entry.counts, self.protocol, self.classes).miou for entry in self.pairs)
        return [np.nan if value is None else value for value in own]
