"""Every arrangement of numbers in image files: those that were written, or an error with a remedy."""

from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
from data_helpers import random_label, random_rgb, random_thermal, save
from format_helpers import DEFLATE, LZMA, LZW, NONE, PACKBITS, ZSTD, tiff_bytes, write_png, write_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.images import ImageError, open_image, read_header, read_raw_thermal, read_rgb, read_thermal
from efnet.data.labels import read_label
from efnet.data.layouts import public

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


@pytest.mark.parametrize("compression", [NONE, DEFLATE])
@pytest.mark.parametrize(("nodata", "expected"), [(None, 0), ("-9999", -9999), ("nan", np.nan)])
def test_blocks_that_a_tiff_leaves_out(
    tmp_path: Path, compression: int, nodata: str | None, expected: float
) -> None:
    """GDAL writes offset and length 0 for a block without values."""
    tags: dict[int, tuple[int, ...] | str] = {} if nodata is None else {42113: nodata}
    content = tiff_bytes(CELSIUS, tile=(16, 16), compression=compression, tags=tags)
    holed = bytearray(content)
    with Image.open(io.BytesIO(content)) as image:
        for tag in (324, 325):
            second = content.index(struct.pack("<2I", *image.tag_v2[tag][:2])) + 4
            holed[second : second + 4] = bytes(4)
    (tmp_path / "a.tif").write_bytes(holed)
    numbers = CELSIUS.copy()
    numbers[:16, 16:32] = expected
    assert np.array_equal(open_image(tmp_path / "a.tif").samples, numbers, equal_nan=True)
    wide = tiff_bytes(WIDE, tags={42113: "-9999", 273: (0,), 279: (0,)})
    (tmp_path / "b.tif").write_bytes(wide)
    assert not open_image(tmp_path / "b.tif").samples.any()  # -9999 is not an unsigned number


@pytest.mark.parametrize(
    ("numbers", "tags", "fault"),
    [
        (WIDE, {259: (7,)}, "16-bit numbers cannot be read with compression JPEG"),
        (CELSIUS, {259: (7,)}, "32-bit float numbers cannot be read with compression JPEG"),
        (WIDE, {259: (34887,)}, r"its compression \(LERC\) cannot be read; save it with deflate or LZW"),
        (THERMAL, {259: (50001,)}, r"its compression \(WebP\) cannot be read"),
        (THERMAL, {259: (4711,)}, r"its compression \(number 4711\) cannot be read"),
        (WIDE, {262: (32803,)}, r"its colour space \(photometric 32803\) cannot be read"),
        (
            np.dstack([WIDE] * 4),
            {262: (5,)},
            "16-bit, four channels numbers cannot be read",
        ),
    ],
)
def test_tiffs_that_pillow_would_change_are_refused(
    tmp_path: Path, numbers: np.ndarray, tags: dict[int, tuple[int, ...] | str], fault: str
) -> None:
    path = write_tiff(tmp_path / "a.tif", numbers, tags=tags)
    for read in (read_raw_thermal, read_rgb, read_header, lambda path: read_label(path, CLASSES)):
        with pytest.raises(InputError, match=rf"a\.tif: {fault}"):
            read(path)


def test_undefined_numbers_of_a_tiff_are_unsigned(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", WIDE, tags={339: (4,)})
    assert np.array_equal(read_raw_thermal(path), WIDE)


@pytest.mark.parametrize("numbers", [THERMAL, WIDE, CELSIUS, RGB.astype(np.uint16) * 200], ids=str)
def test_bits_of_a_tiff_in_reverse(tmp_path: Path, numbers: np.ndarray) -> None:
    reverse = np.packbits(np.unpackbits(numbers.view(np.uint8).reshape(-1, 1), axis=1)[:, ::-1], axis=1)
    stored = reverse.ravel().view(numbers.dtype).reshape(numbers.shape)
    path = write_tiff(tmp_path / "a.tif", stored, tags={266: (2,)})
    assert np.array_equal(open_image(path).samples, numbers)


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


@pytest.mark.parametrize(
    "ends",
    [b"\n", b" ", b"\r\n", b" # text\n", b"\n# text\n", b"\n# one\r\n# two\n", b"# text\n"],
    ids=repr,
)
@pytest.mark.parametrize("first", [b"ab", b"  ", b"\n\n", b"\r\n", b"# ", b"#\n"], ids=repr)
def test_pixels_that_look_like_the_end_of_a_header(tmp_path: Path, ends: bytes, first: bytes) -> None:
    numbers = random_thermal(9)
    numbers[0, :2] = list(first)
    (tmp_path / "a.pgm").write_bytes(b"P5\n32 24\n255" + ends + numbers.tobytes())
    assert np.array_equal(read_raw_thermal(tmp_path / "a.pgm"), numbers)


def test_a_pgm_with_more_than_its_pixels(tmp_path: Path) -> None:
    content = b"P5\n32 24\n255\n" + THERMAL.tobytes()
    (tmp_path / "a.pgm").write_bytes(content + b"\n")
    assert np.array_equal(read_raw_thermal(tmp_path / "a.pgm"), THERMAL)
    (tmp_path / "a.pgm").write_bytes(content * 2)
    with pytest.raises(InputError, match=r"a\.pgm: holds several images"):
        read_raw_thermal(tmp_path / "a.pgm")
    (tmp_path / "a.pgm").write_bytes(content.replace(b"255\n", b"255\r\n") + b"\n")
    with pytest.raises(InputError, match=r"a\.pgm: cannot be read \(it is open where its pixels begin\)"):
        read_raw_thermal(tmp_path / "a.pgm")
    (tmp_path / "a.pgm").write_bytes(b"P2\n2 2\n9\n1 2 3 4 5\n")
    with pytest.raises(InputError, match=r"it does not hold 4 numbers from 0 to 9"):
        read_raw_thermal(tmp_path / "a.pgm")


@pytest.mark.parametrize("kind", [1, 4])
def test_a_label_in_pbm_is_refused(tmp_path: Path, kind: int) -> None:
    bits = b"0 1 0 1\n1 1 0 0\n" if kind == 1 else bytes([0b01010000, 0b11000000])
    (tmp_path / "a.ppm").write_bytes(b"P%d\n4 2\n" % kind + bits)
    with pytest.raises(InputError, match=r"a\.ppm: declares small numbers to be bright"):
        read_label(tmp_path / "a.ppm", CLASSES)
    expected = np.asarray([[0, 1, 0, 1], [1, 1, 0, 0]])
    assert np.array_equal(open_image(tmp_path / "a.ppm").samples, expected)
    assert np.array_equal(read_thermal(tmp_path / "a.ppm"), 1 - expected)
