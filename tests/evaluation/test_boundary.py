"""Boundary IoU against erosion pixel by pixel, as the paper's code does it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_cases import named

from efnet.core.classes import ClassSet
from efnet.evaluation.boundary import boundary_counts, boundary_distance, near_contour
from efnet.evaluation.metrics import Tally
from efnet.evaluation.protocols import get_protocol

NATIVE = get_protocol("native")


def eroded(mask, distance):
    """A mask (H, W) eroded by 3x3, `distance` times, with nothing outside the image."""
    for _ in range(distance):
        padded = np.pad(mask, 1)
        height, width = mask.shape
        mask = np.min([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return mask


def reference(truth, prediction, num_classes, distance, kept):
    found = np.zeros((3, num_classes), dtype=np.int64)
    for value in range(num_classes):
        edges = []
        for labels in (truth, prediction):
            mask = labels == value
            edges.append(mask & ~eroded(mask, distance) & kept)
        found[:, value] = (edges[0] & edges[1]).sum(), edges[0].sum(), edges[1].sum()
    return found


def blocks(rng, shape, num_classes):
    coarse = rng.integers(0, num_classes, (-(-shape[0] // 7), -(-shape[1] // 7)))
    return np.kron(coarse, np.ones((7, 7), dtype=int))[: shape[0], : shape[1]].astype(np.uint8)


@given(st.integers(0, 2**32), st.integers(5, 90), st.integers(5, 90))
def test_counts_are_those_of_repeated_erosion(seed, height, width):
    rng = np.random.default_rng(seed)
    truth, prediction = blocks(rng, (height, width), 4), blocks(rng, (height, width), 4)
    ignored = rng.random(truth.shape) < 0.02
    truth[ignored] = 255
    expected = reference(truth, prediction, 4, boundary_distance((height, width)), ~ignored)
    np.testing.assert_array_equal(boundary_counts(truth, prediction, 4, NATIVE), expected)


def test_the_distance_is_two_percent_of_the_diagonal():
    assert boundary_distance((480, 640)) == 16
    assert boundary_distance((720, 1280)) == 29
    assert boundary_distance((8, 8)) == 1


def test_a_shifted_square_by_hand():
    """A square of 20x20, shifted by one pixel: rings of width 2 that share part of their pixels."""
    truth = np.zeros((100, 75), dtype=np.uint8)  # diagonal 125: distance 2 (2.5 rounds to even)
    truth[30:50, 30:50] = 1
    prediction = np.roll(truth, 1, axis=1)
    near = near_contour(truth, 2) & (truth == 1)
    assert near.sum() == 20**2 - 16**2
    counts = boundary_counts(truth, prediction, 2, NATIVE)
    assert counts[1, 1] == counts[2, 1] == 144
    # Rows at top and bottom share 4 * 19 pixels, the 16 rows between one column on each side.
    assert counts[0, 1] == 4 * 19 + 16 * 2


def test_the_border_of_the_image_is_a_contour():
    same = np.ones((60, 80), dtype=np.uint8)
    distance = boundary_distance(same.shape)
    counts = boundary_counts(same, same, 2, NATIVE)
    inner = (60 - 2 * distance) * (80 - 2 * distance)
    assert counts[:, 1].tolist() == [60 * 80 - inner] * 3


def test_ignored_pixels_are_left_out():
    rng = np.random.default_rng(3)
    truth, prediction = blocks(rng, (40, 50), 4), blocks(rng, (40, 50), 4)
    rules = dataclasses.replace(NATIVE, ignored_truth=(2,), ignored_prediction=(3,))
    kept = (truth != 2) & (prediction != 3)
    expected = reference(truth, prediction, 4, boundary_distance(truth.shape), kept)
    np.testing.assert_array_equal(boundary_counts(truth, prediction, 4, rules), expected)


@pytest.mark.parametrize("boundaries", [False, True])
def test_a_tally_counts_boundaries_on_request(boundaries):
    tally = Tally(ClassSet.generic(4), NATIVE, boundaries=boundaries)
    rng = np.random.default_rng(4)
    truth, prediction = blocks(rng, (40, 50), 4), blocks(rng, (40, 50), 4)
    counted = tally.add(named("a"), truth, prediction).boundary
    if boundaries:
        np.testing.assert_array_equal(counted, boundary_counts(truth, prediction, 4, NATIVE))
    else:
        assert counted is None
