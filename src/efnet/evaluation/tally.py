"""One confusion matrix per pair, summed over a split or over its day or night part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from efnet.classes import ClassSet
from efnet.data.pairs import Condition, Pair
from efnet.errors import InputError
from efnet.evaluation.confusion import ConfusionMatrix, Counts, LabelMap, Scores, score
from efnet.evaluation.protocols import Protocol
from efnet.evaluation.resize import resize_nearest

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
