"""Random choices for layouts, drawn from numpy's PCG64 alone so that they are the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_BLOCK = 1024


class Dice:
    """Scalar random choices, all made from one stream of uniform doubles.

    `Generator.choice` and its like are slow for scalars and may change between numpy releases;
    `Generator.random` on PCG64 is neither.

    Args:
        sequence: seed of the stream.
    """

    def __init__(self, sequence: np.random.SeedSequence) -> None:
        self._generator = np.random.Generator(np.random.PCG64(sequence))
        self._values: list[float] = []

    def random(self) -> float:
        """A uniform number in [0, 1)."""
        if not self._values:
            self._values = self._generator.random(_BLOCK).tolist()
        return self._values.pop()

    def uniform(self, low: float, high: float) -> float:
        """A uniform number in [low, high)."""
        return low + (high - low) * self.random()

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random() < probability

    def integer(self, low: int, high: int) -> int:
        """A uniform whole number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[int(self.random() * len(options))]

    def sign(self) -> int:
        """-1 or 1."""
        return 1 if self.random() < 0.5 else -1
