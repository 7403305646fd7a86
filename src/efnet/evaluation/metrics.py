"""The confusion matrix of each pair, its sum over a split, and the scores that a protocol makes of it.

K classes; a matrix is int64 (K, K), rows truth, columns prediction. Scores are fractions from 0 to 1;
only printed tables show percent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.data.pairs import Condition, Pair
from efnet.evaluation.boundary import boundary_counts
from efnet.evaluation.protocols import Protocol

Counts = NDArray[np.int64]
LabelMap = NDArray[np.integer[Any]]


def confusion_matrix(truth: LabelMap, prediction: LabelMap, num_classes: int) -> Counts:
    """Count the pixels of one pair of label maps (H, W): int64 (K, K), rows truth, columns prediction.

    Truth holds 0..K-1, or 255 where a pixel is left out; the prediction may be 255 there too. Raises
    InputError where the sizes differ or a value is out of range.
    """
    if truth.shape != prediction.shape:
        one, other = ("x".join(map(str, values.shape)) for values in (truth, prediction))
        raise InputError(f"truth is {one} but the prediction {other}; they must be equal")
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


def _out_of_range(what: str, values: NDArray[Any], pixels: int, num_classes: int) -> str:
    shown = ", ".join(str(value) for value in values[:8]) + (", ..." if len(values) > 8 else "")
    return (
        f"{what} holds {shown} at {pixels} pixels, outside 0..{num_classes - 1} "
        f"({IGNORE_INDEX} marks pixels of truth that are left out)"
    )


class ConfusionMatrix:
    """Accumulates `confusion_matrix` in `counts` over a number of `images`."""

    def __init__(self, num_classes: int) -> None:
        self.counts: Counts = np.zeros((num_classes, num_classes), dtype=np.int64)
        self.images = 0

    def update(self, truth: LabelMap, prediction: LabelMap) -> Counts:
        """Count one pair (H, W), return its matrix (K, K); raises InputError as `confusion_matrix` does."""
        counts = confusion_matrix(truth, prediction, len(self.counts))
        self.counts += counts
        self.images += 1
        return counts


@dataclass(frozen=True)
class Scores:
    """The scores of one matrix under a protocol, as fractions."""

    miou: float | None  # mean IoU over the averaged classes; None where none of them occurs
    macc: float | None  # mean recall, likewise
    iou: dict[str, float | None]  # every class name to its IoU; None for classes outside the mean
    acc: dict[str, float | None]  # to its recall

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a report."""
        return asdict(self)


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
    """Score a matrix (K, K); raises InputError if the protocol is not made for this class set."""
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
    `align_corners=False`, so that labels and resized logits lie on each other. Whole numbers make it exact.
    """
    height, width = values.shape
    if (height, width) == size:
        return values
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(values.shape, size, strict=True)
    )
    resized: LabelMap = values[rows[:, None], columns[None, :]]
    return resized


Keep = Callable[[Pair, LabelMap, LabelMap], None]
"""Called with a pair, its prediction and its truth, both (h, w) at the scored size."""


@dataclass(frozen=True)
class PairCounts:
    """The matrix int64 (K, K) of one pair, and on request its counts for boundary IoU."""

    pair: Pair
    counts: Counts
    boundary: Counts | None = None  # (3, K), see `boundary.boundary_counts`


@dataclass
class Tally:
    """The counts so far, pair by pair in the order of adding; every figure is a sum over these."""

    classes: ClassSet
    protocol: Protocol
    pairs: list[PairCounts] = field(default_factory=list)
    boundaries: bool = False  # also count for boundary IoU

    def __post_init__(self) -> None:
        self.protocol.check(self.classes)

    def scored_size(self, label_shape: tuple[int, ...]) -> tuple[int, int]:
        """Height and width at which a pair with a label (H, W) is compared."""
        return self.protocol.size or (label_shape[0], label_shape[1])

    def add(self, pair: Pair, truth: LabelMap, prediction: LabelMap) -> PairCounts:
        """Count one pair; maps that are not at the scored size are brought there, nearest pixel.

        The label is (H, W), 255 where ignored, the prediction (h, w). Raises InputError for a value out of
        range; the message names the pair.
        """
        size = self.scored_size(truth.shape)
        truth, prediction = resize_nearest(truth, size), resize_nearest(prediction, size)
        try:
            counts = confusion_matrix(truth, prediction, len(self.classes))
        except InputError as error:
            raise InputError(f"pair {pair.name}: {error}") from error
        edges = None
        if self.boundaries:
            edges = boundary_counts(truth, prediction, len(self.classes), self.protocol)
        self.pairs.append(PairCounts(pair, counts, edges))
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
        present = {entry.pair.condition for entry in self.pairs}
        return tuple(condition for condition in get_args(Condition) if condition in present)

    def scores(self, condition: Condition | None = None) -> Scores:
        """The protocol's figures for all pairs, or for those of one condition."""
        return score(self.matrix(condition).counts, self.protocol, self.classes)

    def pair_miou(self) -> list[float]:
        """Each pair's own mIoU (NaN: no averaged class), for ranking: their mean is not the split's."""
        own = (score(entry.counts, self.protocol, self.classes).miou for entry in self.pairs)
        return [np.nan if value is None else value for value in own]
