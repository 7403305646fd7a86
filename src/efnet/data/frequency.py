"""Class frequencies of a split, for weights in the loss and for crops around rare classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import IGNORE_INDEX
from efnet.data.items import read_item
from efnet.data.labels import read_label
from efnet.data.pairs import ItemPair, Pair, PairSet
from efnet.data.sample import threaded

ClassWeighting = Literal["enet", "median"]  # rule by which frequencies become weights (`ClassFrequency`)


@dataclass(frozen=True)
class ClassFrequency:
    """Pixels of each of K classes in a split; unscored classes have none."""

    pixels: NDArray[np.int64]  # (K,) of the class
    pixels_around: NDArray[np.int64]  # (K,) scored pixels of the images in which the class occurs

    def weights(self, rule: ClassWeighting) -> NDArray[np.float64]:
        """Weights (K,) of the classes in a loss; 1 for a class that does not occur.

        `enet`: 1 / ln(1.02 + share of the scored pixels), at most 50 (ENet, arXiv 1606.02147).
        `median`: median frequency over the class's, where a frequency counts only the images in which the
        class occurs (arXiv 1411.4734); without a bound.

        Raises:
            ValueError: another rule.
        """
        if rule not in get_args(ClassWeighting):
            raise ValueError(f"no rule {rule!r} for class weights; there are {get_args(ClassWeighting)}")
        weights = np.ones(len(self.pixels))
        there = self.pixels > 0
        if not there.any():
            return weights
        if rule == "enet":
            weights[there] = 1 / np.log(1.02 + self.pixels[there] / self.pixels.sum())
        else:
            frequency = self.pixels[there] / self.pixels_around[there]
            weights[there] = np.median(frequency) / frequency
        return weights

    def odds(self) -> NDArray[np.float64]:
        """Odds (K,) of each class as the focus of a crop: the inverse of its pixels, 0 without any."""
        odds = np.zeros(len(self.pixels))
        there = self.pixels > 0
        odds[there] = 1 / self.pixels[there]
        return odds


def count_classes(pairset: PairSet) -> ClassFrequency:
    """Count the classes in every label of a split; an `InputError` if one cannot be read."""
    classes = pairset.classes

    def count(pair: Pair) -> NDArray[np.int64]:
        assert pair.label is not None
        if isinstance(pair, ItemPair):
            label = read_item(pair, classes, pairset.thermal_scale)[2]
        else:
            label = read_label(pair.label, classes)
        values = np.bincount(label.ravel(), minlength=IGNORE_INDEX + 1)
        values[list(pairset.unscored)] = 0
        return values[: len(classes)]

    pixels = np.zeros(len(classes), dtype=np.int64)
    around = np.zeros(len(classes), dtype=np.int64)
    for values in threaded(count, pairset.pairs):
        pixels += values
        around[values > 0] += values.sum()
    return ClassFrequency(pixels, around)
