"""Generated scenes: what they promise about seeds, labels, heat and light, and how they are written."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data.layouts import open_split
from efnet.data.sample import Sample, read_sample
from efnet.data.verify import verify
from efnet.scenes import render, write_dataset

SMALL = (96, 128)
CAR, PERSON, CURVE, CAR_STOP, GUARDRAIL, CONE, BUMP = 1, 2, 4, 5, 6, 7, 8
COLD = (CURVE, CAR_STOP, GUARDRAIL, CONE, BUMP)


@cache
def scenes(condition: str) -> tuple[Sample, ...]:
    """Thirty scenes of a size at which training on a small machine is done."""
    return tuple(render(seed, (192, 256), condition) for seed in range(30))  # type: ignore[arg-type]


def surround(mask: np.ndarray, reach: int) -> np.ndarray:
    """Pixels within `reach` of the mask, but not next to it or in it."""

    def grown(steps: int) -> np.ndarray:
        out = mask.copy()
        for _ in range(steps):
            for axis in (0, 1):
                rolled = [np.roll(out, shift, axis) for shift in (-1, 1)]
                out = out | rolled[0] | rolled[1]
        return out

    return grown(reach) & ~grown(2)


def contrast(image: np.ndarray, sample: Sample, value: int) -> float:
    """Difference between a class and what surrounds it, in units of the image's full range."""
    mask = sample.label == value
    around = surround(mask, 8) & (sample.label == 0)
    difference = image[mask].mean(axis=0) - image[around].mean(axis=0)
    return float(np.abs(difference).max())


def large_enough(sample: Sample, value: int) -> bool:
    return int((sample.label == value).sum()) > 40


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    height=st.integers(64, 150),
    width=st.integers(64, 190),
    condition=st.sampled_from(["day", "night"]),
)
def test_any_seed_and_size_give_a_sound_sample(seed, height, width, condition):
    sample = render(seed, (height, width), condition)
    assert sample.rgb.shape == (height, width, 3)
    assert sample.rgb.dtype == np.uint8
    assert sample.thermal.shape == sample.label.shape == (height, width)
    assert sample.thermal.dtype == np.float32
    assert 0 <= sample.thermal.min() <= sample.thermal.max() <= 1
    assert sample.label.dtype == np.uint8
    assert sample.label.max() <= 8


def test_same_seed_gives_the_same_pixels_and_another_seed_does_not():
    first, again, other = render(7, SMALL), render(7, SMALL), render(8, SMALL)
    for name in ("rgb", "thermal", "label"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_light_changes_the_colour_image_alone():
    for day, night in zip(scenes("day"), scenes("night"), strict=True):
        assert np.array_equal(day.label, night.label)
        assert np.array_equal(day.thermal, night.thermal)
        assert night.rgb.mean() < 0.75 * day.rgb.mean()


def test_scene_is_the_same_at_another_size():
    for seed in range(4):
        small, large = render(seed, (120, 160)), render(seed, (240, 320))
        agree = large.label[::2, ::2] == small.label
        assert agree.mean() > 0.95


def test_every_class_is_common_and_covers_tens_of_pixels():
    shares = [np.mean([large_enough(sample, value) for sample in scenes("day")]) for value in range(9)]
    assert shares[0] == 1
    assert min(shares) > 0.2, shares


def test_people_are_warmer_than_what_surrounds_them():
    warmer = []
    for sample in scenes("day"):
        mask = sample.label == PERSON
        if mask.sum() > 100:
            around = surround(mask, 8) & (sample.label == 0)
            warmer.append(sample.thermal[mask].mean() - sample.thermal[around].mean())
    assert len(warmer) > 15
    assert min(warmer) > 0.04
    assert np.median(warmer) > 0.12


@pytest.mark.parametrize("value", COLD)
def test_cold_classes_show_in_colour_by_day_and_hardly_in_heat(value):
    colour, heat = [], []
    for sample in scenes("day"):
        if large_enough(sample, value):
            colour.append(contrast(sample.rgb / 255.0, sample, value))
            heat.append(contrast(sample.thermal, sample, value))
    assert len(heat) >= 5
    assert np.median(heat) < 0.04
    assert np.median(colour) > 3 * np.median(heat)


def test_cold_likenesses_and_warm_things_carry_no_class():
    """Somewhere unlabeled is as warm as people are, or heat alone would name them."""
    rivals = 0
    for sample in scenes("day"):
        people = sample.thermal[sample.label == PERSON]
        if people.size > 100:
            rivals += int((sample.thermal[sample.label == 0] > np.median(people)).sum() > 30)
    assert rivals >= 5


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="64x64"):
        render(0, (63, 200))
    with pytest.raises(InputError, match="seed -1"):
        render(-1, SMALL)
    with pytest.raises(InputError, match="dusk"):
        render(0, SMALL, "dusk")  # type: ignore[arg-type]


def tree(root: Path) -> dict[str, np.ndarray | bytes]:
    """Every file under a folder: pixels of images, bytes of the rest."""
    return {
        str(path.relative_to(root)): np.asarray(Image.open(path))
        if path.suffix == ".png"
        else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def same(first: dict[str, np.ndarray | bytes], second: dict[str, np.ndarray | bytes]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def test_mfnet_layout_is_read_back(tmp_path):
    written = write_dataset(tmp_path / "set", 4, 1, 4, size=SMALL, seed=3)
    assert (written.written, written.kept) == (9, 0)
    sets = {split: open_split("mfnet", tmp_path / "set", split) for split in ("train", "val", "test")}
    assert {split: len(pairs) for split, pairs in sets.items()} == {"train": 4, "val": 1, "test": 4}
    for pairs in sets.values():
        verify(pairs)
    assert len(open_split("mfnet", tmp_path / "set", "test_night")) == 2
    assert all(pair.condition == "day" for pair in open_split("mfnet", tmp_path / "set", "test_day").pairs)
    manifest = json.loads((tmp_path / "set" / "scenes.json").read_text())
    pair = sets["test"].pairs[1]
    stored, fresh = (
        read_sample(pair, sets["test"].classes),
        render(manifest["scenes"][pair.name], SMALL, "night"),
    )
    assert pair.condition == "night"
    assert np.array_equal(stored.rgb, fresh.rgb)
    assert np.array_equal(stored.label, fresh.label)
    assert np.abs(stored.thermal - fresh.thermal).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("bits", [8, 16])
def test_folders_layout_is_read_back(tmp_path, bits):
    write_dataset(tmp_path, 2, 1, 2, size=SMALL, layout="folders", thermal_bits=bits)
    pairs = open_split("folders", tmp_path, "train")
    verify(pairs)
    seeds = json.loads((tmp_path / "scenes.json").read_text())["scenes"]
    for pair in pairs.pairs:
        stored = read_sample(pair, pairs.classes, pairs.thermal_scale)
        fresh = render(seeds[pair.name], SMALL, pair.condition)
        assert np.array_equal(stored.rgb, fresh.rgb)
        assert np.abs(stored.thermal - fresh.thermal).max() <= 0.5 / (2**bits - 1) + 1e-6


def test_processes_and_other_splits_do_not_change_the_pixels(tmp_path):
    write_dataset(tmp_path / "one", 3, 1, 1, size=(64, 64), workers=1)
    write_dataset(tmp_path / "two", 3, 1, 1, size=(64, 64), workers=2)
    assert same(tree(tmp_path / "one"), tree(tmp_path / "two"))
    write_dataset(tmp_path / "more", 5, 1, 1, size=(64, 64))
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "one" / "images" / "00004D.png")),
        np.asarray(Image.open(tmp_path / "more" / "images" / "00006D.png")),
    )


@pytest.mark.parametrize("layout", ["mfnet", "folders"])
def test_a_split_of_no_scenes_has_no_list(tmp_path, layout):
    write_dataset(tmp_path, 2, 0, 1, size=(64, 64), night_share=0, layout=layout)
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == ["test.txt", "test_day.txt", "train.txt"]
    assert len(open_split(layout, tmp_path, "trainval" if layout == "folders" else "train")) == 2
    assert len(open_split(layout, tmp_path, "test")) == 1


def test_interrupted_writing_goes_on(tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    out = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        write_dataset(out, 6, 0, 1, size=(64, 64), progress=interrupt)
    assert not (out / "train.txt").exists()
    seen: list[tuple[int, int]] = []
    written = write_dataset(
        out, 6, 0, 1, size=(64, 64), progress=lambda done, total: seen.append((done, total))
    )
    assert (written.written, written.kept) == (4, 3)
    assert seen == [(4, 7), (5, 7), (6, 7), (7, 7)]
    write_dataset(tmp_path / "whole", 6, 0, 1, size=(64, 64))
    assert same(tree(out), tree(tmp_path / "whole"))


def test_another_configuration_is_refused_unless_asked_for(tmp_path):
    write_dataset(tmp_path, 3, 0, 1, size=(64, 64))
    with pytest.raises(InputError, match=r"seed was 0, now 1.*`overwrite`"):
        write_dataset(tmp_path, 3, 0, 1, size=(64, 64), seed=1)
    write_dataset(tmp_path, 1, 0, 1, size=(64, 64), seed=1, overwrite=True)
    assert len(list((tmp_path / "images").iterdir())) == 2


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        write_dataset(tmp_path, 1, 0, 0, size=(64, 64))
    write_dataset(tmp_path, 1, 0, 0, size=(64, 64), overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 0, "val": 0, "test": 0}, "0 scenes"),
        ({"train": -1}, "below 0"),
        ({"size": (32, 64)}, "64x64"),
        ({"night_share": 1.5}, "0 to 1"),
        ({"thermal_bits": 16}, "16-bit"),
        ({"layout": "coco"}, "coco"),
    ],
)
def test_impossible_plans_are_refused_before_anything_is_written(tmp_path, change, message):
    settings_ = {"train": 1, "val": 1, "test": 1, "size": (64, 64), **change}
    with pytest.raises(InputError, match=message):
        write_dataset(tmp_path / "set", **settings_)
    assert not (tmp_path / "set").exists()


def test_command_line(tmp_path, capsys):
    out = tmp_path / "scenes"
    arguments = ["data", "synthesize", "--out", str(out), "--train", "2", "--val", "1", "--test", "1"]
    arguments += ["--size", "64x80", "--workers", "1"]
    assert main(arguments) == 0
    assert "--dataset mfnet" in capsys.readouterr().out
    assert len(open_split("mfnet", out, "train")) == 2
    assert main([*arguments, "--seed", "5"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--size", "64"]) == 2
    assert "--size 64: give height x width" in capsys.readouterr().err
    assert main([*arguments, "--size", "64x80"]) == 0
    assert "4 were there already" in capsys.readouterr().out
