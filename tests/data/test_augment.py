"""Augmentation: one geometry for the triple to a fraction of a pixel, photometry on colour alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_helpers import random_label, random_rgb, random_thermal
from hypothesis import given, settings
from hypothesis import strategies as st

from efnet.core.classes import IGNORE_INDEX
from efnet.core.errors import InputError
from efnet.data.augment import (
    PAD_RGB,
    PAD_THERMAL,
    AugmentConfig,
    Window,
    augment,
    crop,
    mirror,
    resize_sample,
)
from efnet.data.layouts import open_split
from efnet.data.sample import Sample, read_sample

PLAIN = AugmentConfig(brightness=0, contrast=0, saturation=0, hue=0)
OFF = replace(PLAIN, flip=0, scale=(1, 1))


def make_sample(height: int = 24, width: int = 32, seed: int = 0) -> Sample:
    thermal = random_thermal(seed, height, width).astype(np.float32) / 255
    return Sample("s", random_rgb(seed, height, width), thermal, random_label(seed, 9, height, width))


def coordinate_sample(height: int, width: int) -> Sample:
    """Every channel tells where it came from: thermal and the label the column, red the row."""
    columns = np.tile(np.arange(width), (height, 1))
    rows = np.tile(np.arange(height)[:, None], (1, width))
    rgb = np.dstack([rows, columns, rows]).astype(np.uint8)
    return Sample("s", rgb, ((columns + 0.5) / width).astype(np.float32), columns.astype(np.uint8))


def test_off_is_the_identity() -> None:
    sample = make_sample()
    result = augment(sample, OFF, (24, 32), np.random.default_rng(0))
    assert np.array_equal(result.rgb, sample.rgb)
    assert np.array_equal(result.thermal, sample.thermal)
    assert np.array_equal(result.label, sample.label)


def test_flip_mirrors_all_three() -> None:
    sample = make_sample()
    result = augment(sample, replace(OFF, flip=1), (24, 32), np.random.default_rng(0))
    assert np.array_equal(result.rgb, sample.rgb[:, ::-1])
    assert np.array_equal(result.thermal, sample.thermal[:, ::-1])
    assert np.array_equal(result.label, sample.label[:, ::-1])
    again = mirror(result)
    assert np.array_equal(again.rgb, sample.rgb)


@settings(deadline=None, max_examples=60)
@given(
    scale=st.floats(1.0, 3.0),
    seed=st.integers(0, 2**16),
    height=st.integers(20, 150),
    width=st.integers(20, 150),
)
def test_geometry_agrees_below_a_pixel(scale: float, seed: int, height: int, width: int) -> None:
    sample = coordinate_sample(90, 120)
    rng = np.random.default_rng(seed)
    rows, columns = Window.draw(90, height, scale, rng), Window.draw(120, width, scale, rng)
    result = crop(sample, rows, columns, (height, width))
    steps = (90 / scale / height, 120 / scale / width)
    y = rows.start + (np.arange(height) + 0.5) * steps[0]  # source point under each output pixel's centre
    x = columns.start + (np.arange(width) + 0.5) * steps[1]
    inner = (x > 1 + steps[1]) & (x < 119 - steps[1])  # sampling flattens off at the image's edge
    # Bilinear sampling is exact on a ramp; antialiasing weights of a few taps are not quite symmetric.
    tolerance = 1e-3 if max(steps) <= 1 else 0.1
    assert np.abs(result.thermal * 120 - x)[:, inner].max() <= tolerance
    assert np.abs(result.rgb[..., 1] + 0.5 - x)[:, inner].max() <= 0.5 + tolerance  # 8 bits round
    assert np.abs(result.rgb[..., 0] + 0.5 - y[:, None])[2:-2].max() <= 1.5 + tolerance
    between = np.abs(x - np.rint(x)) > 1e-6  # on the edge of two pixels rounding chooses one of them
    assert (result.label == np.floor(x))[:, between].all()
    assert np.abs(result.label + 0.5 - x).max() <= 0.5 + 1e-6
    # The same holds of what `augment` draws.
    drawn = augment(sample, replace(PLAIN, flip=0, scale=(scale, scale)), (height, width), rng)
    inside = (drawn.label > 1 + steps[1]) & (drawn.label < 118 - steps[1])
    assert np.abs(drawn.thermal * 120 - drawn.label - 0.5)[inside].max() <= 0.5 + tolerance


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 50), st.integers(1, 50), st.integers(0, 999))
def test_any_size_gives_the_asked_size(height: int, width: int, out_h: int, out_w: int, seed: int) -> None:
    sample = make_sample(height, width)
    result = augment(sample, AugmentConfig(), (out_h, out_w), np.random.default_rng(seed))
    assert result.rgb.shape == (out_h, out_w, 3)
    assert result.thermal.shape == result.label.shape == (out_h, out_w)
    assert result.rgb.dtype == result.label.dtype == np.uint8
    assert result.thermal.dtype == np.float32
    assert 0 <= result.thermal.min() <= result.thermal.max() <= 1
    assert set(np.unique(result.label)) <= {*np.unique(sample.label), IGNORE_INDEX}


def test_shrinking_pads_all_three_alike() -> None:
    sample = replace(make_sample(40, 60), label=np.zeros((40, 60), dtype=np.uint8))
    for seed in range(10):
        result = augment(
            sample, replace(AugmentConfig(), scale=(0.5, 0.5)), (40, 60), np.random.default_rng(seed)
        )
        outside = result.label == IGNORE_INDEX
        assert outside.sum() == 40 * 60 - 20 * 30
        assert (result.rgb[outside] == PAD_RGB).all()
        assert (result.thermal[outside] == np.float32(PAD_THERMAL)).all()
        rows, columns = np.nonzero(~outside)
        assert (np.ptp(rows), np.ptp(columns)) == (19, 29)


def test_scale_one_is_what_evaluation_sees() -> None:
    sample = make_sample(48, 64)
    augmented = augment(sample, OFF, (24, 40), np.random.default_rng(0))
    evaluated = resize_sample(sample, (24, 40))
    assert np.array_equal(augmented.rgb, evaluated.rgb)
    assert np.array_equal(augmented.thermal, evaluated.thermal)
    assert np.array_equal(evaluated.label, sample.label)
    assert resize_sample(sample, None) is sample


def test_bilinear_against_its_definition() -> None:
    sample = make_sample(12, 16)
    rows, columns = Window(2.25, 8.25, 0, 18), Window(3.5, 11.5, 0, 24)
    result = crop(sample, rows, columns, (18, 24))

    def at(y: float, x: float) -> float:
        y, x = min(max(y - 0.5, 0), 11), min(max(x - 0.5, 0), 15)
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, 11), min(x0 + 1, 15)
        top = sample.thermal[y0, x0] * (1 - (x - x0)) + sample.thermal[y0, x1] * (x - x0)
        bottom = sample.thermal[y1, x0] * (1 - (x - x0)) + sample.thermal[y1, x1] * (x - x0)
        return float(top * (1 - (y - y0)) + bottom * (y - y0))

    for i in range(18):
        for j in range(24):
            y, x = 2.25 + (i + 0.5) / 3, 3.5 + (j + 0.5) / 3
            assert result.label[i, j] == sample.label[int(y), int(x)]
            assert result.thermal[i, j] == pytest.approx(at(y, x), abs=1e-5)


def test_photometry_leaves_thermal_and_label_alone() -> None:
    sample = make_sample()
    config = replace(
        AugmentConfig(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1), flip=0, scale=(1, 1)
    )
    result = augment(sample, config, (24, 32), np.random.default_rng(3))
    assert not np.array_equal(result.rgb, sample.rgb)
    assert np.array_equal(result.thermal, sample.thermal)
    assert np.array_equal(result.label, sample.label)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_each_photometric_change_does_what_its_name_says(name: str) -> None:
    rgb = random_rgb(0, 32, 32) // 2 + 64  # far from clipping
    sample = Sample("s", rgb, np.zeros((32, 32), np.float32), None)
    config = replace(OFF, **{name: 0.2 if name != "hue" else 0.05})
    luma = np.array([0.299, 0.587, 0.114])
    before = rgb.astype(float)
    changes = []
    for seed in range(5):
        result = augment(sample, config, (32, 32), np.random.default_rng(seed)).rgb.astype(float)
        grey, grey_before = result @ luma, before @ luma
        if name == "brightness":
            ratio = result / before
            assert ratio.std() < 0.01
            assert 0.79 < ratio.mean() < 1.21
        elif name == "contrast":
            mean = (before.reshape(32, 32, 3)[::4, ::4].reshape(-1, 3).mean(axis=0)) @ luma
            factor = (result - mean)[np.abs(before - mean) > 20] / (before - mean)[np.abs(before - mean) > 20]
            assert factor.std() < 0.03
            assert 0.79 < factor.mean() < 1.21
        else:
            assert np.abs(grey - grey_before).max() < 1.5  # the grey value stays
            chroma = (result - grey[..., None]).std() / (before - grey_before[..., None]).std()
            assert (0.79 < chroma < 1.21) if name == "saturation" else (0.9 < chroma < 1.1)
        changes.append(np.abs(result - before).mean())
    assert max(changes) > 2


def test_same_generator_same_sample() -> None:
    sample = make_sample()
    first, second, other = (
        augment(sample, AugmentConfig(), (24, 32), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.rgb, second.rgb)
    assert np.array_equal(first.label, second.label)
    assert not np.array_equal(first.thermal, other.thermal)


def test_unlabelled_samples_pass() -> None:
    result = augment(replace(make_sample(), label=None), AugmentConfig(), (24, 32), np.random.default_rng(0))
    assert result.label is None


@pytest.mark.parametrize(
    "values",
    [
        {"flip": 1.5},
        {"scale": (0, 1)},
        {"scale": (2, 1)},
        {"brightness": -1},
        {"hue": 0.6},
        {"contrast": float("nan")},
        {"rare_crop": -0.1},
        {"drop_rgb": 0.6, "drop_thermal": 0.6},
        {"thermal_gain": 2},
    ],
)
def test_bad_configuration(values: dict) -> None:
    with pytest.raises(InputError, match=rf"augment\.{next(iter(values))}"):
        AugmentConfig(**values)


def test_real_pair_keeps_its_classes(samples: Path) -> None:
    pairset = open_split("mfnet", samples / "mfnet", "train")
    sample = read_sample(pairset.pairs[0], pairset.classes)
    rng = np.random.default_rng(0)
    for _ in range(10):
        result = augment(sample, AugmentConfig(), (480, 640), rng)
        assert set(np.unique(result.label)) <= {*np.unique(sample.label), IGNORE_INDEX}


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.floats(1, 4), st.integers(0, 2**16), st.data())
def test_a_window_around_a_pixel_holds_it(source: int, scale: float, seed: int, data: st.DataObject) -> None:
    focus = data.draw(st.integers(0, source - 1))
    window = Window.draw(source, 32, scale, np.random.default_rng(seed), focus)
    assert 0 <= window.start <= window.stop <= source
    if source / scale >= 1:
        assert window.start <= focus + 1e-9
        assert window.stop >= focus + 1 - 1e-9
    else:
        assert focus - 1e-9 <= window.start


def test_crops_go_to_the_rare_class() -> None:
    label = np.zeros((60, 80), dtype=np.uint8)
    label[3, 70], label[50:, :20], label[20:30, 30:40] = 4, 2, 255
    sample = replace(make_sample(60, 80), label=label)
    config = replace(OFF, scale=(3.0, 3.0), rare_crop=1.0)
    odds = np.array([0.01, 1.0, 1.0, 1.0, 8.0])

    def share(value: int, config: AugmentConfig) -> float:
        crops = [augment(sample, config, (60, 80), np.random.default_rng(seed), odds) for seed in range(200)]
        return float(np.mean([(crop.label == value).any() for crop in crops]))

    assert 0.8 < share(4, config) < 0.95  # 8 of 9.01, and by chance
    assert share(4, replace(config, rare_crop=0.0)) < 0.15
    assert 0.3 < share(4, replace(config, rare_crop=0.5)) < 0.75
    # Without odds all classes in the image are alike; what is ignored is no class.
    crops = [augment(sample, config, (60, 80), np.random.default_rng(seed)) for seed in range(200)]
    assert 0.2 < np.mean([(crop.label == 4).any() for crop in crops]) < 0.5
    mirrored = augment(sample, replace(config, flip=1.0), (60, 80), np.random.default_rng(0), np.eye(5)[4])
    assert (mirrored.label == 4).any()


def test_crops_without_a_class_to_go_to() -> None:
    config = replace(AugmentConfig(), rare_crop=1.0)
    for label in (None, np.full((24, 32), 255, np.uint8), np.zeros((24, 32), np.uint8)):
        sample = replace(make_sample(), label=label)
        augment(sample, config, (24, 32), np.random.default_rng(0), np.array([0.0, 1.0]))


def test_thermal_gain_and_offset() -> None:
    sample = make_sample()
    sample = replace(sample, thermal=sample.thermal / 2 + np.float32(0.25))
    gains, offsets = [], []
    for seed in range(50):
        config = replace(OFF, thermal_gain=0.2, thermal_offset=0.1)
        result = augment(sample, config, (24, 32), np.random.default_rng(seed))
        gain, constant = np.polyfit(sample.thermal.ravel(), result.thermal.ravel(), 1)
        gains.append(gain - 1)
        offsets.append(constant + gain * sample.thermal.mean() - sample.thermal.mean())
        assert np.abs(gain * sample.thermal + constant - result.thermal).max() < 1e-5
        assert np.array_equal(result.rgb, sample.rgb)
    assert -0.2 <= min(gains) < -0.1 < 0.1 < max(gains) <= 0.2
    assert -0.101 <= min(offsets) < -0.05 < 0.05 < max(offsets) <= 0.101
    wide = augment(sample, replace(OFF, thermal_offset=1.0), (24, 32), np.random.default_rng(0))
    assert wide.thermal.dtype == np.float32
    assert 0 <= wide.thermal.min() <= wide.thermal.max() <= 1


def test_dropped_modalities_are_grey_and_never_both() -> None:
    sample, counts = make_sample(), np.zeros(2)
    for seed in range(400):
        config = replace(OFF, drop_rgb=0.3, drop_thermal=0.2)
        result = augment(sample, config, (24, 32), np.random.default_rng(seed))
        gone = [(result.rgb == PAD_RGB).all(), (result.thermal == np.float32(PAD_THERMAL)).all()]
        counts += gone
        assert not all(gone)
        assert gone[0] or np.array_equal(result.rgb, sample.rgb)
        assert gone[1] or np.array_equal(result.thermal, sample.thermal)
        assert np.array_equal(result.label, sample.label)
    assert np.abs(counts / 400 - (0.3, 0.2)).max() < 0.07


@pytest.mark.parametrize("change", [{"rare_crop": 1e-9}, {"drop_rgb": 1e-9}, {"thermal_gain": 1e-9}])
def test_new_options_leave_other_draws_alone(change: dict) -> None:
    sample = make_sample()
    before, after = (
        augment(sample, config, (24, 32), np.random.default_rng(5))
        for config in (AugmentConfig(), replace(AugmentConfig(), **change))
    )
    assert np.array_equal(before.rgb, after.rgb)
    assert np.array_equal(before.label, after.label)
    assert np.abs(before.thermal - after.thermal).max() < 1e-6
