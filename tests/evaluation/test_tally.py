import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scoring_cases import named
from scoring_oracle import oracle

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.evaluation.metrics import Tally, resize_nearest
from efnet.evaluation.protocols import get_protocol

FOUR = ClassSet.generic(4)
NATIVE = get_protocol("native")


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_nearest_takes_the_value_under_the_centre(height, width, new_height, new_width):
    values = np.random.default_rng(0).integers(0, 255, (height, width)).astype(np.uint8)
    ours = resize_nearest(values, (new_height, new_width))
    rows = np.floor((np.arange(new_height) + 0.5) * (height / new_height) + 1e-9).astype(int)
    columns = np.floor((np.arange(new_width) + 0.5) * (width / new_width) + 1e-9).astype(int)
    np.testing.assert_array_equal(ours, values[rows][:, columns])


@pytest.mark.parametrize("size", [(480, 640), (360, 640), (123, 77), (1, 1), (600, 800)])
def test_nearest_agrees_with_pillow_and_torch(size):
    values = np.random.default_rng(1).integers(0, 15, (243, 326)).astype(np.uint8)
    ours = resize_nearest(values, size)
    pillow = np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.NEAREST))
    tensor = torch.from_numpy(values)[None, None].float()
    exact = torch.nn.functional.interpolate(tensor, size=size, mode="nearest-exact")[0, 0].numpy()
    assert (ours != pillow).mean() < 0.02  # ties apart
    assert (ours != exact).mean() < 0.02


def test_same_size_comes_back_untouched():
    values = np.zeros((3, 5), dtype=np.uint8)
    assert resize_nearest(values, (3, 5)) is values


def random_pairs(seed, shapes, num_classes=4):
    rng = np.random.default_rng(seed)
    for number, shape in enumerate(shapes):
        truth = rng.integers(0, num_classes, shape).astype(np.uint8)
        truth[rng.random(shape) < 0.1] = 255
        prediction = np.where(
            rng.random(shape) < 0.5, truth % num_classes, rng.integers(0, num_classes, shape)
        )
        yield named(f"p{number}", ("day", "night")[number % 2]), truth, prediction.astype(np.uint8)


def test_day_and_night_add_up_to_the_whole():
    tally = Tally(FOUR, NATIVE)
    shapes = [(5, 7), (9, 3), (1, 1), (8, 8), (6, 11)]
    pairs = list(random_pairs(0, shapes))
    for pair, truth, prediction in pairs:
        tally.add(pair, truth, prediction)
    day, night, whole = tally.matrix("day"), tally.matrix("night"), tally.matrix()
    np.testing.assert_array_equal(day.counts + night.counts, whole.counts)
    assert (day.images, night.images, whole.images) == (3, 2, 5)
    for condition in ("day", "night"):
        maps = [(truth, prediction) for pair, truth, prediction in pairs if pair.condition == condition]
        miou, macc, _, _ = oracle(*zip(*maps, strict=True), 4)
        assert tally.scores(condition).miou == pytest.approx(miou, rel=1e-12)
        assert tally.scores(condition).macc == pytest.approx(macc, rel=1e-12)


def test_day_and_night_can_both_lie_below_the_whole():
    """People ask why. A class rare and wrong in one part may be common and right in the other."""
    tally = Tally(FOUR, NATIVE)
    ones, twos = np.ones((10, 10), np.uint8), np.full((10, 10), 2, np.uint8)
    day_truth, night_truth = ones.copy(), twos.copy()
    day_truth[0, 0], night_truth[0, 0] = 2, 1
    tally.add(named("d", "day"), day_truth, ones)
    tally.add(named("n", "night"), night_truth, twos)
    overall, day, night = (tally.scores(part).miou for part in (None, "day", "night"))
    assert day == night == pytest.approx((0.99 + 0) / 2)
    assert overall == pytest.approx(99 / 101)
    assert max(day, night) < overall


def test_conditions_that_no_pair_has_are_not_there():
    tally = Tally(FOUR, NATIVE)
    tally.add(named("a"), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    assert tally.conditions() == ()
    tally.add(named("b", "night"), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    assert tally.conditions() == ("night",)


def test_maps_are_compared_at_the_protocol_s_size():
    protocol = dataclasses.replace(NATIVE, size=(6, 8))
    rng = np.random.default_rng(3)
    truth, prediction = (
        rng.integers(0, 4, (9, 12)).astype(np.uint8),
        rng.integers(0, 4, (5, 5)).astype(np.uint8),
    )
    tally = Tally(FOUR, protocol)
    entry = tally.add(named(), truth, prediction)
    rows, columns = np.array([0, 2, 3, 5, 6, 8]), np.array([0, 2, 3, 5, 6, 8, 9, 11])
    small = prediction[np.array([0, 1, 2, 2, 3, 4])][:, np.array([0, 0, 1, 2, 2, 3, 4, 4])]
    expected = np.zeros((4, 4), int)
    for t, p in zip(truth[rows][:, columns].ravel(), small.ravel(), strict=True):
        expected[t, p] += 1
    np.testing.assert_array_equal(entry.counts, expected)


def test_native_compares_at_the_label_s_size():
    tally = Tally(FOUR, NATIVE)
    tally.add(named(), np.zeros((5, 7), np.uint8), np.zeros((10, 14), np.uint8))
    assert tally.matrix().counts.sum() == 35


def test_wrong_values_name_the_pair():
    tally = Tally(FOUR, NATIVE)
    with pytest.raises(InputError, match="pair frame7: the prediction holds 4"):
        tally.add(named("frame7"), np.zeros((2, 2), np.uint8), np.full((2, 2), 4, np.uint8))


def test_unfitting_protocol_is_refused_at_once():
    with pytest.raises(InputError, match="mfnet is for 9 classes"):
        Tally(FOUR, get_protocol("mfnet"))


def test_pair_figures_are_those_of_the_pair_alone():
    tally = Tally(FOUR, NATIVE)
    for pair, truth, prediction in random_pairs(4, [(6, 6), (7, 5)]):
        tally.add(pair, truth, prediction)
        assert tally.pair_miou()[-1] == pytest.approx(oracle([truth], [prediction], 4)[0])
    tally.add(named("void"), np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8))
    assert np.isnan(tally.pair_miou()[-1])
