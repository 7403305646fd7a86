"""Whether the pairs of a data set lie on each other, estimated from a sample of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from efnet.data.align import Shift, estimate_shift, misalignment
from efnet.data.pairs import Pair, PairSet
from efnet.data.sample import read_sample
from efnet.errors import InputError

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
