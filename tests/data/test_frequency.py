"""Frequencies of classes, and the weights made of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_helpers import random_rgb, random_thermal, save

from efnet.data.frequency import ClassFrequency, count_classes
from efnet.data.layouts import open_split


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two labels: 600 pixels unlabeled, 100 car, 68 person; and 384 unlabeled, 384 car."""
    first, second = np.zeros((24, 32), np.uint8), np.zeros((24, 32), np.uint8)
    first.flat[:100], first.flat[100:168] = 1, 2
    second[:12] = 1
    for name, label in (("00001D", first), ("00002N", second)):
        save(tmp_path / "images" / f"{name}.png", np.dstack([random_rgb(0), random_thermal(0)]))
        save(tmp_path / "labels" / f"{name}.png", label)
    (tmp_path / "train.txt").write_text("00001D\n00002N\n")
    return tmp_path


def test_counts_against_the_labels(root: Path) -> None:
    frequency = count_classes(open_split("mfnet", root, "train"))
    assert frequency.pixels.tolist() == [984, 484, 68, 0, 0, 0, 0, 0, 0]
    assert frequency.pixels_around.tolist() == [1536, 1536, 768, 0, 0, 0, 0, 0, 0]


def test_unscored_classes_do_not_count(root: Path) -> None:
    frequency = count_classes(replace(open_split("mfnet", root, "train"), unscored=(0,)))
    assert frequency.pixels.tolist()[:4] == [0, 484, 68, 0]
    assert frequency.pixels_around.tolist()[:4] == [0, 552, 168, 0]
    assert frequency.odds()[0] == 0


def test_weights_against_their_formulas(root: Path) -> None:
    frequency = count_classes(open_split("mfnet", root, "train"))
    shares = [984 / 1536, 484 / 1536, 68 / 1536]
    enet = [1 / math.log(1.02 + share) for share in shares]
    assert frequency.weights("enet").tolist() == pytest.approx([*enet, 1, 1, 1, 1, 1, 1])
    around = [984 / 1536, 484 / 1536, 68 / 768]
    median = [around[1] / value for value in around]
    assert frequency.weights("median").tolist() == pytest.approx([*median, 1, 1, 1, 1, 1, 1])
    odds = frequency.odds()
    assert odds[2] / odds[0] == pytest.approx(984 / 68)
    assert not odds[3:].any()


def test_nothing_labelled() -> None:
    empty = ClassFrequency(np.zeros(3, np.int64), np.zeros(3, np.int64))
    assert empty.weights("median").tolist() == [1, 1, 1]
    assert not empty.odds().any()
    with pytest.raises(ValueError, match="no rule 'log'"):
        empty.weights("log")
