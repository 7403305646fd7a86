"""Frames matched by time, and cameras that stand still."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from video_helpers import blobs

from efnet.video.source import FREEZE_SECONDS, Frame, FrozenWatch, match

EMPTY = np.zeros((1, 1))


def frames(times) -> list[Frame]:
    return [Frame(time, EMPTY) for time in times]


def partners(rgb, thermal, **options) -> list[float | None]:
    moments = match(frames(rgb), frames(thermal), **options)
    return [None if moment.thermal is None else moment.thermal.time for moment in moments]


times = st.lists(st.integers(0, 300), unique=True, max_size=30).map(
    lambda ticks: [tick / 10 for tick in sorted(ticks)]
)


@given(times, times, st.integers(-20, 20), st.integers(0, 30))
def test_each_colour_frame_gets_the_nearest_within_the_bound(rgb, thermal, offset, gap):
    offset, gap = offset / 10, gap / 10
    found = partners(rgb, thermal, offset=offset, max_gap=gap)
    assert len(found) == len(rgb)
    for time, partner in zip(rgb, found, strict=True):
        distances = [abs(other + offset - time) for other in thermal]
        nearest = min(distances, default=99.0)
        if partner is None:
            assert nearest > gap
        else:
            assert abs(partner + offset - time) == pytest.approx(nearest)
            assert nearest <= gap + 2e-3


def test_a_slower_camera_serves_several_frames():
    assert partners([0, 0.04, 0.08, 0.12], [0, 0.11], max_gap=0.1) == [0, 0, 0.11, 0.11]


def test_ends_without_partners():
    assert partners([0, 1, 2, 3, 4], [1.5, 2.5], max_gap=0.6) == [None, 1.5, 1.5, 2.5, None]


def test_only_as_many_frames_are_read_as_needed():
    """A camera without an end: nothing is listed."""
    read = []

    def endless(name, rate):
        number = 0
        while True:
            read.append(name)
            yield Frame(number / rate, EMPTY)
            number += 1

    moments = match(endless("rgb", 25), endless("thermal", 10), max_gap=1)
    for _ in range(50):
        next(moments)
    assert read.count("rgb") == 50
    assert read.count("thermal") <= 50 / 2.5 + 3


def test_one_camera_alone():
    assert [moment.time for moment in match(None, frames([0, 0.5]))] == [0, 0.5]
    moment = next(match(frames([0.25]), None))
    assert moment.rgb.time == 0.25
    assert moment.thermal is None


class TestFrozen:
    RATE = 10

    def run(self, rgb, thermal) -> list[set[str]]:
        watch = FrozenWatch()
        return [
            watch.update(number / self.RATE, {"rgb": one, "thermal": other})
            for number, (one, other) in enumerate(zip(rgb, thermal, strict=True))
        ]

    def test_a_picture_that_stands_while_the_other_moves(self):
        rgb = [np.roll(blobs(1, 3), number, axis=1) for number in range(40)]
        thermal = [np.roll(blobs(2), min(number, 10), axis=1) for number in range(40)]
        found = self.run(rgb, thermal)
        first = next(number for number, frozen in enumerate(found) if frozen)
        assert first == 10 + FREEZE_SECONDS * self.RATE
        assert all(frozen == {"thermal"} for frozen in found[first:])

    def test_it_ends_when_the_picture_moves_again(self):
        rgb = [np.roll(blobs(1, 3), min(number, 1), axis=1) for number in range(30)]
        rgb += [np.roll(blobs(1, 3), number, axis=1) for number in range(5)]
        thermal = [np.roll(blobs(2), number, axis=1) for number in range(35)]
        found = self.run(rgb, thermal)
        assert found[29] == {"rgb"}
        assert found[34] == set()

    def test_a_scene_that_stands_still_is_not_frozen(self):
        assert not any(self.run([blobs(1, 3)] * 40, [blobs(2)] * 40))

    def test_noise_alone_is_life(self):
        rng = np.random.default_rng(0)
        rgb = [np.roll(blobs(1, 3), number, axis=1) for number in range(40)]
        thermal = [(blobs(2) // 2 + rng.normal(40, 1.0, blobs(2).shape)).astype(np.uint8) for _ in range(40)]
        assert not any(self.run(rgb, thermal))

    def test_16_bits_and_a_short_shutter(self):
        rgb = [np.roll(blobs(1, 3), number, axis=1) for number in range(40)]
        deep = blobs(2).astype(np.uint16) * 20 + 7000
        shutter = [np.roll(deep, number - number % 10, axis=1) for number in range(40)]  # still for a second
        assert not any(self.run(rgb, shutter))
        assert self.run(rgb, [deep] * 40)[-1] == {"thermal"}

    def test_one_camera_alone_is_never_frozen(self):
        watch = FrozenWatch()
        assert not any(watch.update(number, {"rgb": blobs(1, 3)}) for number in range(10))
