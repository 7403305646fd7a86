"""Every arrangement of numbers in image files: those that were written, or an error with a remedy."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import random_label, random_rgb, random_thermal, save
from format_helpers import DEFLATE, LZMA, LZW, NONE, PACKBITS, ZSTD, tiff_bytes, write_png, write_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from efnet.core.classes import ClassSet, spread_colors
from efnet.core.errors import InputError
from efnet.data import images
from efnet.data.check import check
from efnet.data.images import (
    ImageError,
    open_image,
    read_header,
    read_label,
    read_raw_thermal,
    read_rgb,
    read_rgbt,
    read_thermal,
    split_channels,
)
from efnet.data.layouts import open_split, public
from efnet.data.sample import read_sample

RGB, THERMAL = random_rgb(1), random_thermal(1)
WIDE = 29000 + THERMAL.astype(np.uint16) * 10
CELSIUS = THERMAL.astype(np.float32) / 8 - 5
CLASSES = public.MFNET_CLASSES
LABEL = random_label(3, 9)

UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a[:, ::-1], -1),
    8: lambda a: np.rot90(a),
}
"""How each orientation of the TIFF and EXIF standards is turned upright."""


# --- numbers of TIFF files ------------------------------------------------------------------------------

TYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


@settings(deadline=None, max_examples=200)
@given(
    kind=st.sampled_from(TYPES),
    order=st.sampled_from("<>"),
    big=st.booleans(),
    compression=st.sampled_from([NONE, LZW, DEFLATE, PACKBITS, LZMA, ZSTD]),
    predictor=st.sampled_from([1, 2, 3]),
    tile=st.sampled_from([None, (16, 16), (16, 48)]),
    rows=st.sampled_from([None, 1, 5]),
    channels=st.sampled_from([1, 3, 4]),
    planar=st.booleans(),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 1000),
)
def test_every_arrangement_of_a_tiff(
    kind: str,
    order: str,
    big: bool,
    compression: int,
    predictor: int,
    tile: tuple[int, int] | None,
    rows: int | None,
    channels: int,
    planar: bool,
    shape: tuple[int, int],
    seed: int,
) -> None:
    if compression in (NONE, PACKBITS) or (predictor == 3 and kind[0] != "f"):
        predictor = 1
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 256, (*shape, channels * int(kind[1])), dtype=np.uint8).view(kind)
    content = tiff_bytes(
        numbers, order=order, big=big, compression=compression, predictor=predictor, tile=tile, rows=rows,
        planar=planar and channels > 1,
    )  # fmt: skip
    found = open_image(content).samples
    assert found.dtype == np.dtype(kind)
    expected = numbers[..., 0] if channels == 1 else numbers
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()  # NaN included


@settings(deadline=None)
@given(
    bits=st.integers(1, 16),
    order=st.sampled_from("<>"),
    compression=st.sampled_from([NONE, LZW, DEFLATE]),
    tile=st.sampled_from([None, (16, 32)]),
    channels=st.sampled_from([1, 3]),
    width=st.integers(1, 40),
)
def test_every_depth_of_a_tiff(
    bits: int, order: str, compression: int, tile: tuple[int, int] | None, channels: int, width: int
) -> None:
    kind = np.uint8 if bits <= 8 else np.uint16
    numbers = np.random.default_rng(bits).integers(0, 1 << bits, (7, width, channels), dtype=kind)
    content = tiff_bytes(numbers, bits=bits, order=order, compression=compression, tile=tile)
    found = open_image(content)
    assert np.array_equal(found.samples, numbers[..., 0] if channels == 1 else numbers)
    assert (found.header.bits, found.white) == (bits, (1 << bits) - 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_a_tiff_is_turned_upright(tmp_path: Path, orientation: int, order: str) -> None:
    def written(numbers: np.ndarray) -> Path:
        return write_tiff(tmp_path / "a.tif", numbers, order=order, tags={274: (orientation,)})

    turn = UPRIGHT[orientation]
    assert np.array_equal(read_rgb(written(RGB)), turn(RGB))
    assert np.array_equal(read_label(written(LABEL), CLASSES), turn(LABEL))
    for numbers in (THERMAL, WIDE, CELSIUS):
        assert np.array_equal(read_raw_thermal(written(numbers)), turn(numbers))
        header = read_header(tmp_path / "a.tif")
        assert (header.height, header.width) == turn(numbers).shape
        assert header.orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_files_that_pillow_decodes_are_turned_once(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.zeros((16, 32, 3), dtype=np.uint8)
    stored[:, :16], stored[:8, :4] = 200, 90
    extra = {"compression": "jpeg", "quality": 95} if kind == "tif" else {}
    Image.fromarray(stored).save(tmp_path / f"a.{kind}", exif=exif, **extra)
    expected = UPRIGHT[orientation](stored)
    found, header = read_rgb(tmp_path / f"a.{kind}"), read_header(tmp_path / f"a.{kind}")
    assert (header.height, header.width) == found.shape[:2] == expected.shape[:2]
    assert np.abs(found.astype(int) - expected).mean() < 5


def test_exif_after_the_pixels_of_a_png_counts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = write_png(tmp_path / "a.png", LABEL, 8, 0, (b"eXIf", exif.tobytes()[6:]))
    assert np.array_equal(read_label(path, CLASSES), np.rot90(LABEL, -1))
    assert (read_header(path).height, read_header(path).width) == LABEL.shape[::-1]


def test_numbers_that_no_reader_here_knows_are_refused(tmp_path: Path) -> None:
    cases = {
        "24-bit": {"tags": {258: (24,)}},
        "complex": {"tags": {339: (6,)}},
        "predictor 4": {"compression": DEFLATE, "tags": {317: (4,)}},
        "different types": {"tags": {258: (8, 16)}},
    }
    for reason, kind in cases.items():
        path = write_tiff(tmp_path / "a.tif", THERMAL, **kind)
        with pytest.raises(InputError, match=rf"a\.tif: cannot be read.*{reason}"):
            read_raw_thermal(path)


@settings(deadline=None, max_examples=150)
@given(
    compression=st.sampled_from([NONE, LZW, DEFLATE]),
    big=st.booleans(),
    tile=st.sampled_from([None, (16, 16)]),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=6),
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
def test_a_damaged_tiff_gives_an_input_error_or_an_image(
    compression: int, big: bool, tile: tuple[int, int] | None, cut: float, flips: list[tuple[float, int]]
) -> None:
    content = bytearray(tiff_bytes(WIDE, compression=compression, big=big, tile=tile))
    for where, value in flips:
        content[int(where * len(content))] ^= value
    try:
        open_image(bytes(content[: max(1, int(cut * len(content)))]), name="upload", max_pixels=100_000)
    except InputError as error:
        assert "upload" in str(error)  # noqa: PT017  (no error is as good)


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE])
def test_a_strip_that_is_cut_off_is_refused(tmp_path: Path, compression: int) -> None:
    content = bytearray(tiff_bytes(WIDE, compression=compression))

    def value_of(tag: int) -> slice:
        place = content.index(tag.to_bytes(2, "little") + b"\x04\0\x01\0\0\0") + 8
        return slice(place, place + 4)

    # The file ends in the middle of its strip, which is copied to the end.
    count = int.from_bytes(content[value_of(279)], "little")
    content[value_of(273)] = len(content).to_bytes(4, "little")
    (tmp_path / "cut.tif").write_bytes(content + content[8 : 8 + count // 2])
    with pytest.raises(InputError, match=r"cut\.tif: cannot be read.*copy it again"):
        read_raw_thermal(tmp_path / "cut.tif")


# --- pages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", [{254: (1,)}, {255: (2,)}, {254: (4,)}, {254: (5,)}])
def test_overviews_and_masks_are_not_pages(tmp_path: Path, tag: dict[int, tuple[int, ...]]) -> None:
    small = CELSIUS[::2, ::2].copy()
    for pages, overview in (((CELSIUS, small), 1), ((small, CELSIUS), 0)):
        path = write_tiff(tmp_path / "cog.tif", *pages, tile=(16, 16), page_tags={overview: tag})
        assert np.array_equal(read_raw_thermal(path), CELSIUS)
        assert read_header(path).height == CELSIUS.shape[0]


def test_a_page_is_chosen_by_its_number(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "stack.tif", CELSIUS, CELSIUS + 1, CELSIUS + 2)
    with pytest.raises(ImageError, match=r"stack\.tif: has 3 pages; choose one with `page`") as error:
        read_raw_thermal(path)
    assert error.value.fault == "frames"
    assert "PNG" not in str(error.value)  # which holds no floats
    for page in (1, 2, 3):
        assert np.array_equal(read_raw_thermal(path / str(page)), CELSIUS + page - 1)
    for page in (0, 4):
        with pytest.raises(InputError, match=rf"stack\.tif/{page}: has no page {page}; it has 3"):
            read_raw_thermal(path / str(page))


def test_pages_of_files_that_are_not_tiffs(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "stack.png", THERMAL, 255 - THERMAL)  # a wrong suffix does not matter
    assert np.array_equal(read_raw_thermal(path / "2"), 255 - THERMAL)
    with pytest.raises(InputError, match=r"a\.png/2: the file is not a TIFF"):
        read_raw_thermal(save(tmp_path / "a.png", THERMAL) / "2")
    with pytest.raises(InputError, match=r"none/2: no such file"):
        read_raw_thermal(tmp_path / "none" / "2")


# --- greys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "kind"), [*itertools.product((1, 2, 4), ("png", "tif"))])
def test_small_greys(tmp_path: Path, bits: int, kind: str) -> None:
    white = (1 << bits) - 1
    numbers = np.random.default_rng(bits).integers(0, white + 1, (13, 17), dtype=np.uint8)
    if kind == "png":
        path = write_png(tmp_path / "a.png", numbers, bits, 0)
    else:
        path = write_tiff(tmp_path / "a.tif", numbers, bits=bits)
    assert np.array_equal(read_label(path, CLASSES if bits < 4 else ClassSet.generic(16)), numbers)
    assert np.array_equal(read_raw_thermal(path), numbers)
    assert np.allclose(read_thermal(path), numbers / white, atol=1e-6)
    assert np.array_equal(read_rgb(path)[..., 0], numbers * (255 // white))
    assert read_header(path).bits == bits


def test_small_greys_out_of_range_are_named_as_stored(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", np.full((8, 8), 14, dtype=np.uint8), 4, 0)
    with pytest.raises(InputError, match=r"14 \(64 pixels\)"):
        read_label(path, CLASSES)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_white_as_zero(tmp_path: Path, bits: int) -> None:
    white = (1 << bits) - 1
    numbers = np.random.default_rng(bits).integers(0, white + 1, (13, 17), dtype=np.uint8)
    path = write_tiff(tmp_path / "a.tif", numbers, bits=bits, tags={262: (0,)})
    assert np.array_equal(read_raw_thermal(path), white - numbers)
    assert np.array_equal(read_rgb(path)[..., 0], (white - numbers) * (255 // white))
    with pytest.raises(InputError, match=r"a\.tif: declares small numbers.*save it as PNG"):
        read_label(path, ClassSet.generic(254))


def test_white_as_zero_of_wide_thermal_is_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", WIDE, tags={262: (0,)})
    with pytest.raises(InputError, match=r"a\.tif: declares small numbers.*photometric 1"):
        read_raw_thermal(path)


@pytest.mark.parametrize(
    ("maxval", "binary"), [*itertools.product((1, 8, 100, 255, 1000, 16383, 65535), (True, False))]
)
@pytest.mark.parametrize("comment", ["", "# a camera\n"])
def test_pgm_and_ppm_keep_their_numbers(tmp_path: Path, maxval: int, binary: bool, comment: str) -> None:
    rng = np.random.default_rng(maxval)
    kind = ">u2" if maxval > 255 else "u1"
    for channels in (1, 3):
        numbers = rng.integers(0, maxval + 1, (5, 7, channels), dtype=np.uint16)
        numbers[0, 0] = maxval
        letter = {(1, True): 5, (3, True): 6, (1, False): 2, (3, False): 3}[channels, binary]
        head = f"P{letter}\n{comment}7 5\n{maxval}\n".encode()
        text = " ".join(map(str, numbers.ravel())).encode()
        path = tmp_path / ("a.pgm" if channels == 1 else "a.ppm")
        path.write_bytes(head + (numbers.astype(kind).tobytes() if binary else text))
        if channels == 3:
            expected = numbers >> 8 if maxval == 65535 else numbers * (255 / maxval)
            assert np.abs(read_rgb(path) - expected).max() < 0.5 + 1e-9
            continue
        assert np.array_equal(read_raw_thermal(path), numbers[..., 0])
        if maxval < 256:
            assert np.allclose(read_thermal(path), numbers[..., 0] / maxval, atol=1e-6)
        fixed = read_thermal(path, (0, 2 * maxval))
        assert np.allclose(fixed, numbers[..., 0] / (2 * maxval), atol=1e-6)
        if maxval < 255:
            assert np.array_equal(read_label(path, ClassSet.generic(255)), numbers[..., 0])


def test_pbm_is_black_where_it_is_1(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (5, 11), dtype=np.uint8)
    (tmp_path / "a.pgm").write_bytes(b"P4 11 5\n" + np.packbits(bits, axis=1).tobytes())
    (tmp_path / "b.pgm").write_bytes(b"P1\n11 5\n" + "".join(map(str, bits.ravel())).encode())
    for name in ("a", "b"):
        assert np.array_equal(read_rgb(tmp_path / f"{name}.pgm")[..., 0], 255 * (1 - bits))


@pytest.mark.parametrize(
    "content", [b"P5 7 5 255\n1234", b"P5 7 0 255\n", b"P5 7 5 70000\n", b"P2 2 1 9 3 10", b"P5 x"]
)
def test_a_damaged_pgm_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pgm").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pgm: cannot be read"):
        read_raw_thermal(tmp_path / "a.pgm")


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


def test_a_foreign_palette_is_refused_with_its_colours(tmp_path: Path) -> None:
    palette = np.asarray(CLASSES.palette)
    palette[2] = (1, 2, 3)
    with pytest.raises(InputError, match=r"a\.png: colours of its palette.*2: \[1, 2, 3\].*`palette`"):
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
    framed = np.zeros((64, 80), dtype=np.uint16)
    inner = np.random.default_rng(0).integers(29000, 31000, (48, 64), dtype=np.uint16)
    framed[8:-8, 8:-8] = inner
    thermal = read_thermal(save(tmp_path / "framed.png", framed))
    assert np.allclose(thermal[8:-8, 8:-8], read_thermal(save(tmp_path / "inner.png", inner)), atol=1e-6)
    assert not thermal[:8].any()


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
    assert not images.empty_border(raw).any()
    assert not images.empty_border(raw - 29000).any()


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
        (0, {}, "zeros far from its other values"),
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
