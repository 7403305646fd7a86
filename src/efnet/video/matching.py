"""Which thermal frame belongs to which colour frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from efnet.video.source import Frame


@dataclass(frozen=True, eq=False)
class Moment:
    """What both cameras saw at one time.

    Attributes:
        number: of the leading frame, from 0.
        time: of the leading frame, in seconds: the colour frame, or the thermal one where there is no colour.
        rgb: the colour frame; None: there is no such camera.
        thermal: the thermal frame nearest in time; None: there is none within the bound, or no such camera.
    """

    number: int
    time: float
    rgb: Frame | None
    thermal: Frame | None


def match(
    rgb: Iterable[Frame] | None, thermal: Iterable[Frame] | None, offset: float = 0.0, max_gap: float = 0.1
) -> Iterator[Moment]:
    """Give every colour frame the thermal frame nearest in time.

    A thermal frame may serve several colour frames (a slower camera) or none (a faster one). Only two thermal
    frames are held at a time.

    Args:
        rgb: frames in the order of their times; None: thermal frames lead.
        thermal: likewise; None: colour alone.
        offset: seconds added to thermal times.
        max_gap: greatest difference of times in seconds; beyond it a colour frame has no partner.
    """
    if rgb is None:
        for number, frame in enumerate(thermal or ()):
            yield Moment(number, frame.time, None, frame)
        return
    waiting = iter(thermal or ())
    before: Frame | None = None
    after = next(waiting, None)
    for number, frame in enumerate(rgb):
        while after is not None and after.time + offset <= frame.time:
            before, after = after, next(waiting, None)
        near = [other for other in (before, after) if other is not None]
        partner = min(near, key=lambda other: abs(other.time + offset - frame.time), default=None)
        # A thousandth more: time stamps are rounded to the containers' ticks.
        if partner is not None and abs(partner.time + offset - frame.time) > max_gap + 1e-3:
            partner = None
        yield Moment(number, frame.time, frame, partner)
