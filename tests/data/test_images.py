"""Readers: every kind of file as what it is, and every bad file refused by name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from data_helpers import random_label, random_rgb, random_thermal, save
from format_helpers import write_png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, features

from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.data.images import (
    read_header,
    read_raw_thermal,
    read_rgb,
    read_rgbt,
    read_thermal,
    scale_thermal,
    split_channels,
)
from efnet.data.labels import read_label
from efnet.data.layouts import public

RGB, THERMAL = random_rgb(1), random_thermal(1)
CLASSES = public.MFNET_CLASSES


# --- colour ---------------------------------------------------------------------------------------------


def test_rgb_png_is_read_as_stored(tmp_path: Path) -> None:
    assert np.array_equal(read_rgb(save(tmp_path / "a.png", RGB)), RGB)


def test_rgb_of_grey_palette_and_alpha_files(tmp_path: Path) -> None:
    assert np.array_equal(read_rgb(save(tmp_path / "grey.png", THERMAL)), np.dstack([THERMAL] * 3))
    palette = Image.fromarray(RGB).quantize(16)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_rgb(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))
    rgba = np.dstack([RGB, THERMAL])
    assert np.array_equal(read_rgb(save(tmp_path / "rgba.png", rgba)), RGB)  # dropped, not blended


def test_rgb_of_16_bit_grey_is_its_high_byte(tmp_path: Path) -> None:
    wide = THERMAL.astype(np.uint16) * 256 + 77
    assert np.array_equal(read_rgb(save(tmp_path / "wide.png", wide))[..., 0], THERMAL)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rgb_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # A left-bright image: after undoing orientation k the bright side is where the standard says.
    stored = np.zeros((16, 32, 3), dtype=np.uint8)
    stored[:, :16] = 250
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    rgb = read_rgb(tmp_path / "a.jpg")
    expected = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: np.rot90(stored[:, ::-1], -1),
        8: np.rot90(stored),
    }[orientation]
    assert rgb.shape == expected.shape
    assert np.abs(rgb.astype(int) - expected).mean() < 5
    header = read_header(tmp_path / "a.jpg")
    assert (header.height, header.width) == expected.shape[:2]


# --- thermal --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_8_bit_thermal(tmp_path: Path, suffix: str) -> None:
    thermal = read_thermal(save(tmp_path / f"t.{suffix}", THERMAL))
    assert thermal.dtype == np.float32
    assert np.array_equal(thermal, THERMAL.astype(np.float32) / np.float32(255))


def test_three_equal_channels_are_one(tmp_path: Path) -> None:
    path = save(tmp_path / "t.png", np.dstack([THERMAL] * 3))
    assert np.array_equal(read_raw_thermal(path), THERMAL)


def test_three_channels_through_jpeg_are_one(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(0, 192, 6, dtype=np.uint8), (24, 1))
    Image.fromarray(np.dstack([smooth] * 3)).save(tmp_path / "t.jpg", quality=80)
    assert np.abs(read_raw_thermal(tmp_path / "t.jpg").astype(int) - smooth).max() < 10


def test_colour_mapped_thermal_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "ironbow.png", RGB)
    with pytest.raises(InputError, match=r"ironbow\.png.*colour-mapped.*greyscale"):
        read_thermal(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_thermal_keeps_its_bits(tmp_path: Path, suffix: str) -> None:
    raw = (29000 + np.arange(24 * 32).reshape(24, 32)).astype(np.uint16)
    path = save(tmp_path / f"t.{suffix}", raw)
    assert np.array_equal(read_raw_thermal(path), raw)
    assert read_header(path).bits == 16
    thermal = read_thermal(path)
    assert thermal.min() == 0
    assert thermal.max() == 1
    assert np.unique(thermal).size > 700  # the whole range is used, where /65535 would leave a flat image


def test_big_endian_16_bit_tiff(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 65536, (4, 6), dtype=np.uint16)
    tags = {256: 6, 257: 4, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: raw.nbytes}
    data = raw.astype(">u2").tobytes()
    directory = len(tags).to_bytes(2, "big")
    for tag, value in tags.items():
        directory += (
            tag.to_bytes(2, "big")
            + (4).to_bytes(2, "big")
            + (1).to_bytes(4, "big")
            + value.to_bytes(4, "big")
        )
    header = b"MM\x00\x2a" + (8 + len(data)).to_bytes(4, "big")
    (tmp_path / "t.tif").write_bytes(header + data + directory + bytes(4))
    assert np.array_equal(read_raw_thermal(tmp_path / "t.tif"), raw)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bit_thermal(tmp_path: Path, kind: type) -> None:
    raw = np.linspace(250, 320, 24 * 32).reshape(24, 32).astype(kind)
    path = save(tmp_path / "kelvin.tif", raw)
    assert np.array_equal(read_raw_thermal(path), raw)
    expected = np.clip((raw - 270.0) / 30, 0, 1).astype(np.float32)
    assert np.allclose(read_thermal(path, (270, 300)), expected, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_thermal_that_is_not_finite_is_refused(tmp_path: Path, bad: float) -> None:
    raw = np.ones((24, 32), dtype=np.float32)
    raw[3, 4] = bad
    with pytest.raises(InputError, match=r"t\.tif: 1 thermal values are NaN or infinite"):
        read_thermal(save(tmp_path / "t.tif", raw))


def test_16_bit_colour_is_refused_as_thermal(tmp_path: Path) -> None:
    path = write_png(tmp_path / "t.png", RGB.astype(np.uint16) * 257, 16, 2)
    assert np.array_equal(read_rgb(path), RGB)
    with pytest.raises(InputError, match=r"t\.png: its three channels differ.*one channel"):
        read_thermal(path)


def _stretch(raw: np.ndarray) -> np.ndarray:
    """The robust stretch, from its definition: sorted values, linear interpolation between ranks."""
    ordered = np.sort(raw.ravel().astype(np.float64))
    while (inner := ordered[(ordered != ordered[0]) & (ordered != ordered[-1])]).size:
        least, most = np.percentile(inner, (1, 99))
        far = [end for end in ordered[[0, -1]] if max(least - end, end - most) > most - least > 0]
        if not far or len(set(inner)) < 8:
            break
        ordered = ordered[~np.isin(ordered, far)]  # numbers far from everything else are a border

    def percentile(share: float) -> float:
        rank = share * (ordered.size - 1)
        below = int(np.floor(rank))
        above = min(below + 1, ordered.size - 1)
        return float(ordered[below] + (rank - below) * (ordered[above] - ordered[below]))

    low, high = percentile(0.01), percentile(0.99)
    if low == high:
        low, high = ordered[0], ordered[-1]
    return np.zeros(raw.shape) if low == high else np.clip((raw - low) / (high - low), 0, 1)


@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_auto_scale_of_16_bits_is_the_robust_stretch(raw: np.ndarray) -> None:
    assert np.allclose(scale_thermal(raw), _stretch(raw), atol=1e-6)


@given(
    hnp.arrays(np.float32, (5, 7), elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(-1e5, 1e5),
    st.floats(1e-3, 1e5),
)
def test_fixed_scale_is_linear_and_clipped(raw: np.ndarray, low: float, extent: float) -> None:
    try:
        scaled = scale_thermal(raw, (low, low + extent))
    except InputError as error:  # no value is inside
        assert "outside the thermal range" in str(error)  # noqa: PT017
        assert raw.max() <= low or raw.min() >= low + extent
        return
    raw = raw.astype(np.float64)  # numpy would round the bounds to float32
    if raw.min() != raw.max():
        assert raw.max() > low
        assert raw.min() < low + extent
    assert scaled.dtype == np.float32
    assert scaled.min() >= 0
    assert scaled.max() <= 1
    assert (scaled[raw <= low] == 0).all()
    assert (scaled[raw >= low + extent] == 1).all()


def test_constant_16_bit_image_is_zero() -> None:
    assert not scale_thermal(np.full((4, 4), 31000, dtype=np.uint16)).any()


@pytest.mark.parametrize("scale", [(3.0, 3.0), (4.0, 3.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_scale_that_is_no_range(scale: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="low < high"):
        scale_thermal(THERMAL, scale)


# --- four channels --------------------------------------------------------------------------------------


def test_rgbt_is_parted_bit_for_bit(tmp_path: Path) -> None:
    thermal = THERMAL.copy()
    thermal[:4] = 0  # where an image library's alpha blending would lose the colours
    path = save(tmp_path / "a.png", np.dstack([RGB, thermal]))
    rgb, scaled = read_rgbt(path)
    assert np.array_equal(rgb, RGB)
    assert np.array_equal(scaled, thermal.astype(np.float32) / np.float32(255))
    assert np.array_equal(split_channels(path)[1], thermal)


def test_rgbt_of_three_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png: not a four-channel.*file of its own"):
        read_rgbt(save(tmp_path / "a.png", RGB))


# --- labels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [public.MFNET_CLASSES, public.PST900_CLASSES, public.FMB_CLASSES])
def test_every_form_of_a_label_reads_the_same(tmp_path: Path, classes: ClassSet) -> None:
    label = random_label(3, len(classes))
    label[0, :5] = IGNORE_INDEX
    paths = [
        save(tmp_path / "index.png", label),
        save(tmp_path / "wide.png", label.astype(np.uint16)),
        save(tmp_path / "colour.png", classes.colorize(label)),
        save(tmp_path / "alpha.png", np.dstack([classes.colorize(label), np.full_like(label, 255)])),
    ]
    palette = Image.fromarray(label).convert("P")
    palette.putpalette(classes.flat_palette())
    palette.save(tmp_path / "palette.png")
    for path in (*paths, tmp_path / "palette.png"):
        assert np.array_equal(read_label(path, classes), label), path.name


def test_indices_in_three_equal_channels(tmp_path: Path) -> None:
    label = random_label(6, 9)
    label[2, 2] = IGNORE_INDEX
    assert np.array_equal(read_label(save(tmp_path / "a.png", np.dstack([label] * 3)), CLASSES), label)


def test_white_is_a_class_of_pst900(tmp_path: Path) -> None:
    colors = np.zeros((4, 4, 3), dtype=np.uint8)
    colors[:2] = 255
    assert (read_label(save(tmp_path / "a.png", colors), public.PST900_CLASSES)[:2] == 4).all()


def test_values_outside_the_classes_are_named_with_their_pixels(tmp_path: Path) -> None:
    label = np.zeros((8, 8), dtype=np.uint8)
    label[0, :3] = 9
    label[1, 0] = 200
    with pytest.raises(
        InputError, match=r"bad\.png: .*9 classes: 9 \(3 pixels\), 200 \(1 pixel\); use 0\.\.8"
    ) as error:
        read_label(save(tmp_path / "bad.png", label), CLASSES)
    assert "255" in str(error.value)


@pytest.mark.parametrize(("suffix", "codec"), [("avif", "avif"), ("jp2", "jpg_2000")])
def test_labels_that_may_be_lossy_are_refused(tmp_path: Path, suffix: str, codec: str) -> None:
    if not features.check(codec):
        pytest.skip(f"this Pillow has no {codec}")
    Image.fromarray(random_label(9, 1)).save(tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match=rf"a\.{suffix}: its lossy compression.*original PNG"):
        read_label(tmp_path / f"a.{suffix}", CLASSES)


def test_wide_values_do_not_wrap(tmp_path: Path) -> None:
    label = np.full((4, 4), 256, dtype=np.uint16)
    with pytest.raises(InputError, match=r"256 \(16 pixels\)"):
        read_label(save(tmp_path / "wide.png", label), CLASSES)


def test_colours_outside_the_palette_are_named(tmp_path: Path) -> None:
    colors = CLASSES.colorize(random_label(7, 9))
    colors[0, 0] = (1, 2, 3)
    with pytest.raises(InputError, match=r"bad\.png: .*\(1, 2, 3\) \(1 pixel\)"):
        read_label(save(tmp_path / "bad.png", colors), CLASSES)


def test_float_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.tif: a label map has whole numbers, not 32-bit float"):
        read_label(save(tmp_path / "a.tif", np.zeros((3, 3), dtype=np.float32)), CLASSES)


# --- bad files ------------------------------------------------------------------------------------------


def test_missing_empty_folder_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    for name, reason in {
        "gone": "no such file",
        "empty": r"empty \(0 bytes\)",
        "text": "not an image",
        "folder": "is a folder",
    }.items():
        for read in (read_rgb, read_thermal, read_rgbt, read_header):
            with pytest.raises(InputError, match=rf"{name}\.png: .*{reason}"):
                read(tmp_path / f"{name}.png")


def test_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(random_rgb(seed)) for seed in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"a\.png: has 3 frames"):
        read_rgb(tmp_path / "a.png")


def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "bomb.png", np.zeros((200, 200), dtype=np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"bomb\.png: too large"):
        read_rgb(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "WEBP"]),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=6),
)
def test_damaged_files_give_an_input_error_or_an_image(
    tmp_path: Path, kind: str, cut: float, flips: list[tuple[float, int]]
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for where, value in flips:
        content[int(where * len(content))] ^= value
    path = tmp_path / f"damaged.{kind.lower()}"
    path.write_bytes(content[: max(1, int(cut * len(content)))])
    for read in (read_rgb, read_raw_thermal, read_header):
        try:
            read(path)
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017  (no error is as good)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_truncated_files_are_refused(tmp_path: Path, kind: str, keep: float) -> None:
    path = save(tmp_path / f"cut.{kind}", RGB)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(InputError, match=rf"cut\.{kind}: cannot be read.*copy it again"):
        read_rgb(path)


# --- real samples ---------------------------------------------------------------------------------------


def test_real_rgbt_pair(samples: Path) -> None:
    path = samples / "mfnet" / "images" / "00706N.png"
    rgb, thermal = read_rgbt(path)
    channels = np.asarray(Image.open(path))
    assert np.array_equal(rgb, channels[..., :3])
    assert np.array_equal(np.rint(thermal * 255), channels[..., 3])
    assert rgb.mean() < thermal.mean() * 255  # a night: dark in colour, not in thermal


def test_real_fmb_label_has_ignored_pixels(samples: Path) -> None:
    label = read_label(samples / "fmb" / "train" / "Label" / "preview_00.png", public.FMB_CLASSES)
    assert label.shape == (244, 326)
    assert (label == IGNORE_INDEX).any()
    assert label[label != IGNORE_INDEX].max() < 15
