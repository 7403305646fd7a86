"""What the numbers of image files mean: colours, labels, temperatures, or an error with a remedy."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import random_label, random_rgb, random_thermal, save
from format_helpers import write_png, write_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from efnet.core.classes import ClassSet, spread_colors
from efnet.core.errors import InputError
from efnet.data import images
from efnet.data.check import check
from efnet.data.convert import to_folders
from efnet.data.images import (
    open_image,
    read_header,
    read_raw_thermal,
    read_rgb,
    read_rgbt,
    read_thermal,
    split_channels,
)
from efnet.data.labels import read_label
from efnet.data.layouts import open_split, public
from efnet.data.pack import pack
from efnet.data.sample import read_sample

RGB, THERMAL = random_rgb(1), random_thermal(1)
WIDE = 29000 + THERMAL.astype(np.uint16) * 10
CELSIUS = THERMAL.astype(np.float32) / 8 - 5
CLASSES = public.MFNET_CLASSES
LABEL = random_label(3, 9)


# --- wide colour, several channels ----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "channels"), [*itertools.product(("png", "tif", "planar"), (3, 4))])
def test_wide_colour_is_its_high_byte(tmp_path: Path, kind: str, channels: int) -> None:
    numbers = np.random.default_rng(5).integers(0, 65536, (13, 17, channels), dtype=np.uint16)
    if kind == "png":
        path = write_png(tmp_path / "a.png", numbers, 16, {3: 2, 4: 6}[channels])
    else:
        path = write_tiff(tmp_path / "a.tif", numbers, planar=kind == "planar")
    assert np.array_equal(open_image(path).samples, numbers)
    assert np.array_equal(read_rgb(path), numbers[..., :3] >> 8)
    if channels == 4:
        assert np.array_equal(split_channels(path)[1], numbers[..., 3])


@pytest.mark.parametrize("kind", ["u4", "u8"])
@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_small_numbers_in_wide_colour_are_refused(tmp_path: Path, kind: str, suffix: str) -> None:
    path, numbers = tmp_path / f"a.{suffix}", RGB.astype(kind)
    white = np.iinfo(kind).max
    for image in (numbers, numbers[..., 0]):
        np.save(path, image) if suffix == "npy" else write_tiff(path, image)
        with pytest.raises(InputError, match=r"no value above \d+, which is black"):
            read_rgb(path)
    wide = (numbers * (white // 255)).astype(kind)
    np.save(path, wide) if suffix == "npy" else write_tiff(path, wide)
    assert np.array_equal(read_rgb(path), RGB)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_colour_of_few_bits_in_16_is_refused(tmp_path: Path, bits: int) -> None:
    numbers = RGB.astype(np.uint16) << (bits - 8)
    for path in (write_png(tmp_path / "a.png", numbers, 16, 2), write_tiff(tmp_path / "a.tif", numbers)):
        with pytest.raises(
            InputError, match=r"a\.\w+: has 16 bits per channel but no value above .*multiply"
        ):
            read_rgb(path)
    if bits > 8:  # declared: the file knows its white
        write_tiff(tmp_path / "b.tif", numbers, bits=bits)
        assert np.abs(read_rgb(tmp_path / "b.tif").astype(int) - RGB).max() <= 1
    write_png(tmp_path / "black.png", numbers * 0, 16, 2)
    assert not read_rgb(tmp_path / "black.png").any()


def test_wide_grey_in_several_channels(tmp_path: Path) -> None:
    wide = LABEL.astype(np.uint16)
    for numbers, colors in ((np.dstack([wide] * 3), 2), (np.dstack([wide, wide * 0 + 65535]), 4)):
        path = write_png(tmp_path / "a.png", numbers, 16, colors)
        assert np.array_equal(read_label(path, CLASSES), LABEL)
    for numbers, colors in ((np.dstack([WIDE] * 3), 2), (np.dstack([WIDE, WIDE * 0 + 65535]), 4)):
        assert np.array_equal(read_raw_thermal(write_png(tmp_path / "t.png", numbers, 16, colors)), WIDE)
    colors = CLASSES.colorize(LABEL).astype(np.uint16) * 257
    assert np.array_equal(read_label(write_png(tmp_path / "c.png", colors, 16, 2), CLASSES), LABEL)


@pytest.mark.parametrize("extra", [None, 0, 1, 2])
@pytest.mark.parametrize("photometric", [1, 2])
def test_four_bands_whatever_the_fourth_is_declared_to_be(
    tmp_path: Path, extra: int | None, photometric: int
) -> None:
    tags: dict[int, Any] = {262: (photometric,)}
    if extra is not None:
        tags[338] = (extra,) * (1 if photometric == 2 else 3)
    path = write_tiff(tmp_path / "a.tif", np.dstack([RGB, THERMAL]), tags=tags)
    rgb, thermal = split_channels(path)
    assert np.array_equal(rgb, RGB)
    assert np.array_equal(thermal, THERMAL)
    assert read_header(path).four_channels
    assert np.allclose(read_rgbt(path)[1], THERMAL / 255, atol=1e-6)


@pytest.mark.parametrize("channels", [2, 5, 7])
def test_bands_without_a_meaning_are_counted(tmp_path: Path, channels: int) -> None:
    path = write_tiff(tmp_path / "a.tif", np.dstack([WIDE] * channels), tags={262: (1,)})
    for read in (read_raw_thermal, read_rgbt, lambda path: read_label(path, CLASSES)):
        with pytest.raises(InputError, match=rf"a\.tif: .*({channels}|two) channels"):
            read(path)


# --- labels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
def test_a_lossy_label_is_refused_even_if_its_values_fit(tmp_path: Path, suffix: str) -> None:
    extra = {"compression": "jpeg"} if suffix == "tif" else {}
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(tmp_path / f"a.{suffix}", **extra)
    with pytest.raises(InputError, match=rf"a\.{suffix}: its lossy compression.*original PNG"):
        read_label(tmp_path / f"a.{suffix}", CLASSES)


def test_a_lossless_webp_label(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([LABEL] * 3)).save(tmp_path / "a.webp", lossless=True, exact=True)
    assert np.array_equal(read_label(tmp_path / "a.webp", CLASSES), LABEL)


def _palette_png(path: Path, index: np.ndarray, palette: np.ndarray) -> Path:
    image = Image.fromarray(index).convert("P")
    image.putpalette(palette.astype(np.uint8).ravel().tolist())
    image.save(path)
    return path


@given(order=st.permutations(range(9)))
@settings(deadline=None, max_examples=30)
def test_a_palette_in_any_order_is_read_by_colour(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    place = np.argsort(order)
    path = tmp_path_factory.mktemp("palette") / "a.png"
    _palette_png(path, place[LABEL].astype(np.uint8), np.asarray(CLASSES.palette)[order])
    assert np.array_equal(read_label(path, CLASSES), LABEL)
    # An optimiser makes a palette of grey indices as well.
    _palette_png(path, place[LABEL].astype(np.uint8), np.repeat(np.asarray(order), 3))
    assert np.array_equal(read_label(path, CLASSES), LABEL)


def test_palettes_by_index(tmp_path: Path) -> None:
    label = LABEL.copy()
    label[0, :4] = 255
    for palette in (np.asarray(spread_colors(256)), np.repeat(np.arange(256), 3)):
        assert np.array_equal(read_label(_palette_png(tmp_path / "a.png", label, palette), CLASSES), label)
    label[0, 0] = 77
    with pytest.raises(InputError, match=r"9 classes: 77 \(1 pixel\)"):
        read_label(_palette_png(tmp_path / "a.png", label, np.asarray(spread_colors(256))), CLASSES)


def test_a_palette_of_a_program_is_read_by_index_whatever_classes_an_image_has(tmp_path: Path) -> None:
    voc = np.asarray(spread_colors(256))
    assert tuple(voc[3]) == CLASSES.palette[5]  # by colour it would be another class
    label = np.where(LABEL == 3, 3, 0).astype(np.uint8)
    assert np.array_equal(read_label(_palette_png(tmp_path / "a.png", label, voc), CLASSES), label)


@pytest.mark.parametrize("colors", [[(0, 0, 0), (128, 128, 0)], CLASSES.palette])
def test_colours_of_labels_mean_nothing_without_a_palette(
    tmp_path: Path, colors: Sequence[tuple[int, int, int]]
) -> None:
    """The colours that classes get for display are not those of the labels, even if one occurs there."""
    root = tmp_path / "set"
    save(root / "rgb" / "0.png", RGB)
    save(root / "thermal" / "0.png", THERMAL)
    label = np.where(LABEL == 1, np.uint8(len(colors) - 1), np.uint8(0))
    (root / "labels").mkdir()
    _palette_png(root / "labels" / "0.png", label, np.asarray(colors))
    (root / "dataset.yaml").write_text(f"names: [{', '.join(CLASSES.names)}]\n")
    (problem,) = check("folders", root, ["trainval"]).problems
    assert "0.png: colours of its palette are not those of the 9 classes" in problem
    save(root / "labels" / "0.png", np.asarray(colors, dtype=np.uint8)[label])
    (problem,) = check("folders", root, ["trainval"]).problems
    assert "0.png: is a colour image" in problem
    assert "'palette' in dataset.yaml" in problem
    save(root / "labels" / "0.png", np.stack([label] * 3, axis=-1))
    report = check("folders", root, ["trainval"])
    assert not report.problems
    assert report.splits[0].label_pixels[len(colors) - 1] == (label > 0).sum()


def test_classes_without_colours_stay_so_when_a_set_is_converted_or_packed(tmp_path: Path) -> None:
    root, out, shards = _data_set(tmp_path / "set", CELSIUS), tmp_path / "out", tmp_path / "shards"
    save(root / "rgbt" / "0.png", np.dstack([RGB, THERMAL]))
    to_folders(root, out)
    assert "palette" not in (out / "dataset.yaml").read_text()
    assert open_split("folders", out, "trainval").classes.invented
    pack(open_split("folders", out, "trainval"), shards)
    assert open_split("folders", shards, "trainval").classes.invented


def test_masks_of_black_and_white(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set", CELSIUS)
    mask = np.where(LABEL > 4, np.uint8(255), np.uint8(0))
    for number in range(3):
        save(root / "labels" / f"{number}.png", mask)
    assert any("hold 0 and 255 alone" in line for line in check("folders", root).warnings)
    (root / "dataset.yaml").write_text("names: [a, b]\npalette: [[0, 0, 0], [255, 255, 255]]\n")
    report = check("folders", root, ["trainval"])
    assert not report.problems
    assert not [line for line in report.warnings if "255" in line]
    assert report.splits[0].label_pixels[1] == 3 * (mask == 255).sum()
    classes = report.classes
    for number, image in enumerate((mask, np.stack([mask] * 3, axis=-1), mask > 0, mask // 255)):
        path = save(tmp_path / f"{number}.png", image)
        assert np.array_equal(read_label(path, classes), mask // 255), number
    path = _palette_png(tmp_path / "p.png", mask, np.repeat(np.arange(256), 3))
    assert np.array_equal(read_label(path, classes), mask // 255)


@pytest.mark.parametrize("program", [False, True])
def test_255_of_a_palette_is_ignored_where_classes_are_black_and_white(tmp_path: Path, program: bool) -> None:
    """The maps that this package writes have the ignored colour there, so 255 is not white."""
    classes = ClassSet(("a", "b"), ((0, 0, 0), (255, 255, 255)))
    palette = np.asarray(spread_colors(256) if program else classes.flat_palette())
    for others in ((0, 255), (0, 1, 255)):
        label = np.resize(np.asarray(others, dtype=np.uint8), LABEL.shape)
        assert np.array_equal(read_label(_palette_png(tmp_path / "a.png", label, palette), classes), label)


def test_a_foreign_palette_is_refused_with_its_colours(tmp_path: Path) -> None:
    palette = np.asarray(CLASSES.palette)
    palette[2] = (1, 2, 3)
    with pytest.raises(InputError, match=r"a\.png: colours of its palette.*2: \[1, 2, 3\].*'palette'"):
        read_label(_palette_png(tmp_path / "a.png", LABEL, palette), CLASSES)


def test_a_palette_in_a_tiff(tmp_path: Path) -> None:
    colors = np.zeros((256, 3), dtype=int)
    colors[:9] = CLASSES.palette[::-1]
    table = tuple((colors.T * 257).ravel().tolist())
    path = write_tiff(tmp_path / "a.tif", 8 - LABEL, tags={262: (3,), 320: table})
    assert np.array_equal(read_label(path, CLASSES), LABEL)
    assert np.array_equal(read_rgb(path), CLASSES.colorize(LABEL))


# --- missing values, borders, telemetry -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "nodata", "tag"),
    [
        ("f4", -9999, None), ("f4", -9999, "-9999"), ("f8", np.nan, "nan"), ("f4", np.inf, "inf"),
        ("f4", -3.4028234663852886e38, "-3.4028234663852886e+38"), ("f4", 1.4567, "1.4567"),
        ("i2", -32768, None), ("u2", 0, "0"), ("u2", 65535, "65535"), ("i4", -9999, None),
    ],
)  # fmt: skip
def test_missing_values_are_left_out_of_the_stretch(
    tmp_path: Path, kind: str, nodata: float, tag: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    images._reported.clear()
    raw = (WIDE // 8 if kind != "f4" else CELSIUS).astype(kind)
    expected = read_thermal(write_tiff(tmp_path / "whole.tif", raw[:, 8:]))
    holes = raw.copy()
    holes[:, :8] = nodata
    tags = {} if tag is None else {42113: tag}
    path = write_tiff(tmp_path / "holes.tif", holes, tags=tags)
    with caplog.at_level(logging.WARNING):
        thermal = read_thermal(path)
    assert np.allclose(thermal[:, 8:], expected, atol=1e-6)
    assert not thermal[:, :8].any()
    assert (read_raw_thermal(path)[:, :8] == raw[:, 8:].min()).all()
    assert "holes.tif: has missing thermal values" in caplog.text


def test_an_image_without_any_value_is_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.full((8, 8), -9999, dtype=np.float32))
    with pytest.raises(InputError, match=r"a\.tif: every thermal value is missing"):
        read_thermal(path)


def test_an_empty_border_does_not_spoil_the_stretch(tmp_path: Path) -> None:
    inner = np.random.default_rng(0).integers(29000, 31000, (48, 64), dtype=np.uint16)
    expected = read_thermal(save(tmp_path / "inner.png", inner))
    for color in (0, 1, 65535):
        framed = np.full((64, 80), color, dtype=np.uint16)
        framed[8:-8, 8:-8] = inner
        thermal = read_thermal(save(tmp_path / "framed.png", framed))
        assert np.allclose(thermal[8:-8, 8:-8], expected, atol=1e-6)
        assert (thermal[:8] == (color == 65535)).all()


@pytest.mark.parametrize("fill", [-999, -273.15, 9999, 1e10, 1e20, -1e20])
def test_undeclared_numbers_for_missing_values_do_not_spoil_the_stretch(tmp_path: Path, fill: float) -> None:
    holed = np.full((60, 80), fill, dtype=np.float32)
    inner = np.random.default_rng(0).normal(20, 5, (60, 60)).astype(np.float32)
    holed[:, 20:] = inner
    thermal = read_thermal(write_tiff(tmp_path / "a.tif", holed))
    expected = read_thermal(write_tiff(tmp_path / "b.tif", inner))
    assert np.allclose(thermal[:, 20:], expected, atol=1e-6)


def test_borders_dead_pixels_and_telemetry_together_do_not_spoil_the_stretch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(29000, 31000, (60, 80), dtype=np.uint16)
    expected = read_thermal(save(tmp_path / "a.png", raw))
    raw[:, :9], raw[:, -9:], raw[30, 40] = 0, 65535, 65000
    raw[-2:] = rng.integers(0, 65536, (2, 80))
    inside = (slice(None, -2), slice(9, 39))
    thermal = read_thermal(save(tmp_path / "b.png", raw))
    assert np.allclose(thermal[inside], expected[inside], atol=0.01)  # of percentiles of fewer pixels


def test_a_cold_room_of_whole_degrees_is_not_a_border(tmp_path: Path) -> None:
    raw = np.full((60, 80), 20, dtype=np.int16)
    raw[20:30, 20:60] = np.resize([24, 25, 26, 27], (10, 40))
    thermal = read_thermal(write_tiff(tmp_path / "a.tif", raw))
    assert np.allclose(thermal, (raw - 20) / 7, atol=1e-6)


@pytest.mark.parametrize("values", [(0, 20), (20, 0), (29000, 60000)])
def test_an_image_of_two_values_keeps_both(tmp_path: Path, values: tuple[int, int]) -> None:
    raw = np.full((60, 80), values[0], dtype=np.float32)
    raw[20:30, 20:60] = values[1]
    thermal = read_thermal(write_tiff(tmp_path / "a.tif", raw))
    assert np.array_equal(thermal, (raw == max(values)).astype(np.float32))


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 3), slice(-2, None)])
def test_telemetry_does_not_spoil_the_stretch(tmp_path: Path, rows: slice) -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(7000, 8000, (60, 80), dtype=np.uint16)
    odd = raw.copy()
    odd[rows] = rng.integers(0, 65536, odd[rows].shape, dtype=np.uint16)
    keep = np.ones(60, dtype=bool)
    keep[rows] = False
    expected = read_thermal(save(tmp_path / "a.png", raw[keep]))
    assert np.allclose(read_thermal(save(tmp_path / "b.png", odd))[keep], expected, atol=1e-6)


def test_rows_of_a_scene_are_not_telemetry(tmp_path: Path) -> None:
    raw = np.linspace(29000, 31000, 60 * 80).reshape(60, 80).astype(np.uint16)
    assert not images.telemetry(raw).any()
    assert not images.far_values(raw)
    assert not images.far_values(raw - 29000)


def test_a_range_that_no_value_reaches_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", WIDE)
    for scale in ((0.0, 29000.0), (40000.0, 50000.0)):
        with pytest.raises(
            InputError, match=r"a\.png: its values, 29\d+ to 3\d+, lie outside the thermal range"
        ):
            read_thermal(path, scale)
    assert not read_thermal(save(tmp_path / "dead.png", WIDE * 0), (29000.0, 30000.0)).any()  # a dead camera


# --- whole data sets ------------------------------------------------------------------------------------


def _data_set(root: Path, heat: np.ndarray, yaml: str = "", **kind: Any) -> Path:
    """Three pairs whose thermal files are TIFFs."""
    for folder in ("rgb", "thermal", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(3):
        save(root / "rgb" / f"{number}.png", random_rgb(number))
        write_tiff(root / "thermal" / f"{number}.tif", heat, **kind)
        save(root / "labels" / f"{number}.png", random_label(number, 3))
    (root / "dataset.yaml").write_text(f"names: [a, b, c]\n{yaml}")
    return root


@pytest.mark.parametrize(
    ("heat", "unit"),
    [
        (np.pad(WIDE[4:-4, 4:-4], 4), "centikelvin"), (WIDE, "centikelvin"), (CELSIUS, "degrees Celsius"),
        (CELSIUS + np.float32(273.15), "kelvin"), (THERMAL, None), (THERMAL.astype(np.float32) / 255, None),
        (THERMAL.astype(np.uint16) + 7000, None),
    ],
)  # fmt: skip
def test_the_unit_is_reported(tmp_path: Path, heat: np.ndarray, unit: str | None) -> None:
    report = check("folders", _data_set(tmp_path / "set", heat))
    assert not report.problems
    assert {unit for split in report.splits for unit in split.thermal_units} == ({unit} if unit else set())
    units = report.to_dict()["splits"]["train"]["thermal_units"]
    assert sum(units.values()) == (report.splits[0].pairs if unit else 0)


@pytest.mark.parametrize(
    ("unit", "factor", "offset"), [("celsius", 1, 0), ("kelvin", 1, 273.15), ("centikelvin", 100, 27315)]
)
def test_a_range_in_degrees(tmp_path: Path, unit: str, factor: float, offset: float) -> None:
    raw = (CELSIUS.astype(np.float64) * factor + offset).astype(np.float64)
    root = _data_set(tmp_path / "set", raw, f"thermal_unit: {unit}\nthermal_scale: [-10, 30]\n")
    pairs = open_split("folders", root, "trainval")
    sample = read_sample(pairs.pairs[0], pairs.classes, pairs.thermal_scale)
    assert np.allclose(sample.thermal, (CELSIUS + 10) / 40, atol=1e-5)


def test_an_unknown_unit_is_refused(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set", CELSIUS, "thermal_unit: fahrenheit\n")
    with pytest.raises(InputError, match="'thermal_unit' is celsius, kelvin, centikelvin, not 'fahrenheit'"):
        open_split("folders", root, "train")


@pytest.mark.parametrize(
    ("holes", "kind", "expected"),
    [
        (-9999, {}, "missing values"),
        (0, {}, "has 0 in many pixels, far from all other values"),
        (1000, {}, "has 1000 in many pixels, far from all other values"),
        (None, {"tags": {274: (3,)}}, "has orientation 3 but its colour image 1"),
    ],
)
def test_oddities_are_warnings(
    tmp_path: Path, holes: float | None, kind: dict[str, Any], expected: str
) -> None:
    heat = CELSIUS + 300
    if holes is not None:
        heat[:3] = holes
    report = check("folders", _data_set(tmp_path / "set", heat, **kind))
    assert not report.problems
    found = [line for line in report.warnings if expected in line]
    assert len(found) == 1
    assert "0.tif" in found[0]
    assert "2 other files" in found[0]


def test_a_range_that_no_value_reaches_is_a_problem(tmp_path: Path) -> None:
    report = check("folders", _data_set(tmp_path / "set", WIDE, "thermal_scale: [0, 255]\n"))
    assert len(report.problems) == 3
    assert all("outside the thermal range" in problem for problem in report.problems)


def test_colour_below_a_quarter_of_16_bits_is_a_warning(tmp_path: Path) -> None:
    root = _data_set(tmp_path / "set", THERMAL)
    for number in range(3):
        write_png(root / "rgb" / f"{number}.png", random_rgb(number).astype(np.uint16) * 64, 16, 2)
    assert any("stays below a quarter" in line for line in check("folders", root).warnings)


def test_a_grey_palette_of_few_levels_reaches_white(tmp_path: Path) -> None:
    """Optimisers store grey images of at most 16 levels as 4-bit palettes of colours up to 255."""
    levels = np.linspace(0, 255, 16).round().astype(np.uint8)
    index = np.arange(32, dtype=np.uint8).reshape(4, 8) % 16
    image = Image.fromarray(index)
    image.putpalette(np.repeat(levels, 3).tolist())
    image.save(tmp_path / "a.png", bits=4)
    assert read_thermal(tmp_path / "a.png") == pytest.approx(levels[index] / 255, abs=1e-6)
