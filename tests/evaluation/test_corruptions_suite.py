"""What holds for every corruption: determinism, rising severity, the other image and the label left alone."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import efnet
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.augment import resize_sample
from efnet.data.layouts import open_split
from efnet.data.pairs import Pair
from efnet.data.sample import Sample, read_sample
from efnet.evaluation.corruptions.suite import (
    SEVERITIES,
    SUITE,
    check_severities,
    choose,
    corrupt,
    corrupt_sample,
)
from efnet.inference.missing_cameras import NOT_GIVEN
from efnet.models import InputSpec
from efnet.scenes import render

each = pytest.mark.parametrize("corruption", SUITE, ids=lambda corruption: corruption.name)
FIXED = {
    *("defocus_blur", "overexposure", "jpeg", "thermal_blur", "thermal_contrast", "thermal_steps"),
    *("thermal_crossover", "missing_rgb", "missing_thermal"),
}
"""Those that draw nothing."""


@pytest.fixture(scope="module")
def scenes():
    return [render(seed, (120, 160), condition) for seed in (3, 8) for condition in ("day", "night")]


def noise_sample(size, seed=0):
    rng = np.random.default_rng(seed)
    return Sample(
        "made",
        rng.integers(0, 256, (*size, 3)).astype(np.uint8),
        rng.random(size).astype(np.float32),
        rng.integers(0, 5, size).astype(np.uint8),
    )


def image_of(sample, corruption):
    return sample.rgb if corruption.image == "rgb" else sample.thermal


def distance(sample, corruption, severity):
    spoiled = image_of(corrupt_sample(sample, corruption, severity), corruption).astype(np.float64)
    return np.abs(spoiled - image_of(sample, corruption)).mean()


def test_the_suite_is_whole():
    names = [corruption.name for corruption in SUITE]
    assert len(set(names)) == len(names) == 22
    for corruption in SUITE:
        assert len(corruption.levels) == (1 if corruption.group == "missing" else 5)
        assert corruption.apply.__doc__


@each
def test_every_corruption_is_in_the_documentation(corruption):
    page = (Path(__file__).resolve().parents[2] / "docs" / "robustness.md").read_text(encoding="utf-8")
    levels = ", ".join(f"{level:g}" for level in corruption.levels) if corruption.graded else "there or not"
    row = re.search(rf"^\| `{corruption.name}` \|.*\| ([^|]+) \|$", page, re.MULTILINE)
    assert row, f"docs/robustness.md has no row for {corruption.name}"
    assert row[1].strip() == levels


@each
def test_distance_from_clean_rises_with_severity(corruption, scenes):
    for sample in scenes:
        distances = [distance(sample, corruption, severity) for severity in SEVERITIES]
        if corruption.graded:
            assert all(low < high for low, high in zip([0, *distances], distances, strict=False)), distances
        else:
            assert distances == [distances[0]] * 5
            assert distances[0] > 0


@each
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 48), (64, 31)])
def test_any_size_gives_an_image_of_that_size(corruption, size):
    sample = noise_sample(size)
    before = (sample.rgb.copy(), sample.thermal.copy())
    for severity in (1, 5):
        spoiled = corrupt_sample(sample, corruption, severity)
        assert (spoiled.rgb.shape, spoiled.rgb.dtype) == ((*size, 3), np.uint8)
        assert (spoiled.thermal.shape, spoiled.thermal.dtype) == (size, np.float32)
        assert spoiled.thermal.min() >= 0
        assert spoiled.thermal.max() <= 1
    np.testing.assert_array_equal(before[0], sample.rgb)
    np.testing.assert_array_equal(before[1], sample.thermal)


@each
def test_one_image_changes_and_the_label_does_not(corruption, scenes):
    spoiled = corrupt_sample(scenes[0], corruption, 3)
    assert spoiled.label is scenes[0].label
    if corruption.image == "rgb":
        assert spoiled.thermal is scenes[0].thermal
    else:
        assert spoiled.rgb is scenes[0].rgb


@each
def test_draws_follow_from_pair_corruption_and_seed_alone(corruption):
    image = image_of(noise_sample((40, 56)), corruption)
    image = image.astype(np.float32) / 255 if corruption.image == "rgb" else image

    def spoiled(**changes):
        return corrupt(image, corruption, 3, **{"pair_name": "00001D", "seed": 0, **changes})

    first = spoiled()
    np.random.default_rng(0).random(1000)
    np.random.seed(7)
    torch.manual_seed(7)
    np.testing.assert_array_equal(first, spoiled())
    others = [spoiled(pair_name=f"0000{number}D") for number in range(2, 8)]
    others += [spoiled(seed=seed) for seed in range(1, 7)]
    same = [np.array_equal(first, other) for other in others]
    assert all(same) if corruption.name in FIXED else not all(same)


@pytest.mark.parametrize("size", [None, (48, 64), (96, 80)])
@pytest.mark.parametrize("camera", ["rgb", "thermal"])
def test_missing_is_what_predict_puts_in_its_place(camera, size, scenes):
    model = efnet.create_model("efnet_tiny", num_classes=9)
    model.input = InputSpec(size=size)
    predictor = efnet.Predictor(model, device="cpu")
    (corruption,) = choose([f"missing_{camera}"])
    for sample in scenes[:2]:
        ours = resize_sample(corrupt_sample(sample, corruption, 1), size)
        theirs = predictor.prepare(sample.rgb, sample.thermal, absent={camera: NOT_GIVEN})
        np.testing.assert_array_equal(ours.rgb, theirs.rgb)
        np.testing.assert_array_equal(ours.thermal, theirs.thermal)


def test_sixteen_bits_are_read_first_and_stay_fine(tmp_path, scenes):
    kelvin = np.rint(29000 + 2000 * scenes[0].thermal).astype(np.uint16)
    Image.fromarray(scenes[0].rgb).save(tmp_path / "rgb.png")
    Image.fromarray(kelvin).save(tmp_path / "thermal.png")
    pair = Pair("a", tmp_path / "rgb.png", tmp_path / "thermal.png", None)
    sample = read_sample(pair, ClassSet.generic(2), scale=(28000.0, 32000.0))
    np.testing.assert_allclose(sample.thermal, (kelvin - 28000.0) / 4000, atol=1e-6)
    (drift,) = choose(["thermal_drift"])
    error = corrupt_sample(sample, drift, 1).thermal - sample.thermal
    assert np.abs(np.diff(error, axis=1)).max() < 1e-3  # smooth: no steps of 1/255 came in
    assert 0.02 < np.abs(error).max() <= 0.05 + 1e-6


def test_choosing_by_name_group_and_network():
    names = [corruption.name for corruption in SUITE]
    assert [entry.name for entry in choose(["all"])] == names
    assert [entry.name for entry in choose(["fog", "jpeg", "fog"])] == ["fog", "jpeg"]
    assert [entry.name for entry in choose(["between", "fog"])] == ["fog", "shift", "rotation"]
    for modality in ("rgb", "thermal"):
        assert {entry.group for entry in choose(["all"], modality)} == {modality}
    with pytest.raises(InputError, match="no corruption is called 'snow'; there are all, the groups rgb"):
        choose(["fog", "snow"])
    with pytest.raises(InputError, match="'shift' does not concern a network of modality thermal"):
        choose(["shift"], "thermal")
    with pytest.raises(InputError, match="no corruption is named"):
        choose([])


def test_severities():
    assert check_severities([5, 1, 5]) == (1, 5)
    for wrong in ([0], [6], [1, -2], []):
        with pytest.raises(InputError, match="give whole numbers from 1"):
            check_severities(wrong)
    with pytest.raises(InputError, match="severities 0"):
        corrupt(np.zeros((8, 8, 3), np.float32), SUITE[0], 0, "a")


@pytest.mark.parametrize("condition", ["day", "night"])
def test_distance_rises_on_real_pairs_too(samples, condition):
    pairset = open_split("mfnet", samples / "mfnet", "test")
    pair = next(pair for pair in pairset.pairs if pair.condition == condition)
    sample = read_sample(pair, pairset.classes, pairset.thermal_scale)
    for corruption in choose(["rgb", "thermal", "between"]):
        distances = [distance(sample, corruption, severity) for severity in (1, 3, 5)]
        assert 0 < distances[0] < distances[1] < distances[2], corruption.name
