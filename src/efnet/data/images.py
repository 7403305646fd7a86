"""Image files read as what they are: colour, thermal in 8 or 16 bits, four channels, label maps.

Every reader refuses what it cannot read with an `InputError` that names the file and the remedy.

Image files opened safely: one still image, or an `InputError` that names the file and the remedy.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.data.archive import file_bytes, tar_of
from efnet.data.pairs import ThermalScale

PathLike = str | os.PathLike[str]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm")
"""File name endings taken for images."""

FOUR_CHANNELS = ("RGBA", "RGBX")
"""Pillow's modes of files that may hold colour and thermal together."""

_BITS = {"1": 1, "I": 32, "F": 32}
# What Pillow's decoders raise on damaged files; OSError covers missing, truncated and unidentified ones.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about itself before any pixel is decoded.

    Attributes:
        height: rows, after turning upright.
        width: columns, after turning upright.
        mode: Pillow's mode, such as `RGB`, `L` or `I;16`.
        bits: of one channel as stored.
    """

    height: int
    width: int
    mode: str
    bits: int

    @property
    def four_channels(self) -> bool:
        """Whether the file may hold colour and thermal together."""
        return self.mode in FOUR_CHANNELS


def read_header(path: PathLike) -> ImageHeader:
    """Read an image's size and kind without decoding it.

    Raises:
        InputError: see `open_image`.
    """
    with _still_image(Path(path)) as image:
        width, height = image.size
        # A PNG's EXIF may follow its pixels: asking for it would decode them.
        if image.format != "PNG" and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
            width, height = height, width
        bits = 16 if _has_wide_channels(image) else _BITS.get(image.mode.split(";")[0], 8)
        return ImageHeader(height, width, image.mode, 16 if image.mode.startswith("I;16") else bits)


def open_image(path: PathLike, *, upright: bool = True) -> Image.Image:
    """Decode one still image.

    Args:
        path: the file.
        upright: apply the EXIF orientation.

    Returns:
        the image, its file closed; `info["wide_channels"]` tells whether the file stores several channels
        of 16 bits, which Pillow reduces to 8.

    Raises:
        InputError: missing, empty, damaged, animated, of several pages, or a decompression bomb.
    """
    with _still_image(Path(path)) as image:
        wide = _has_wide_channels(image)
        image.load()
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        image.info["wide_channels"] = wide
        return image


@contextlib.contextmanager
def _still_image(path: Path) -> Iterator[Image.Image]:
    """Open `path`; whatever goes wrong inside the block becomes an `InputError`."""
    try:
        with Image.open(path if tar_of(path) is None else io.BytesIO(file_bytes(path))) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # MPO: a phone's JPEG with a preview behind it
                raise InputError(f"{path}: has {frames} frames; save the one you mean as PNG")
            yield image
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: too large for an image ({error}); is this the file you mean?") from error
    except _DECODING_ERRORS as error:
        raise InputError(_why_unreadable(path, error)) from error


def _has_wide_channels(image: Image.Image) -> bool:
    """Whether the file, not yet decoded, holds several channels of 16 bits."""
    return not image.mode.startswith("I") and any(";16" in str(tile) for tile in getattr(image, "tile", ()))


def _why_unreadable(path: Path, error: BaseException) -> str:
    """One line on why `path` could not be read and what to do."""
    packed = tar_of(path) is not None
    if not packed and not os.path.exists(path):  # noqa: PTH110 - pathlib's raises for a name too long
        return f"{path}: no such file; check the folder, or take its name off the list"
    if path.is_dir():
        return f"{path}: is a folder; give an image file"
    if isinstance(error, PermissionError):
        return f"{path}: may not be read (permission denied); change its permissions"
    if not packed and path.stat().st_size == 0:
        return f"{path}: is empty (0 bytes); copy it again from its source"
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "not an image format that can be read"
    return f"{path}: cannot be read ({reason}); copy it again from its source, or save it as PNG"


__all__ = [
    "IGNORE_COLOR",
    "IMAGE_SUFFIXES",
    "ImageHeader",
    "ThermalScale",
    "grey_of_three",
    "open_image",
    "read_header",
    "read_label",
    "read_raw_thermal",
    "read_rgb",
    "read_rgbt",
    "read_thermal",
    "scale_thermal",
    "split_channels",
]

IGNORE_COLOR = (224, 224, 224)
"""The colour that `ClassSet.colorize` gives to ignored pixels; in a colour label it means ignored."""


def read_rgb(path: PathLike) -> NDArray[np.uint8]:
    """Read a colour image; grey and palette images become RGB, an alpha channel is dropped.

    Returns:
        (H, W, 3) in 0..255, turned upright by the file's EXIF orientation.

    Raises:
        InputError: the file is missing, damaged, animated or beyond any camera's size.
    """
    return _as_rgb(open_image(path))


def read_thermal(path: PathLike, scale: ThermalScale = "auto") -> NDArray[np.float32]:
    """Read a thermal image: 8-bit grey, three equal channels, 16-bit, 32-bit integer or float.

    Args:
        path: PNG, TIFF, JPEG and so on.
        scale: see `scale_thermal`.

    Returns:
        (H, W) in [0, 1].

    Raises:
        InputError: unreadable, colour-mapped, or with values that are not finite.
    """
    return scale_thermal(read_raw_thermal(path), scale)


def read_rgbt(path: PathLike, scale: ThermalScale = "auto") -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Read a four-channel file (MFNet's): colour, and thermal in the place of alpha.

    The channels are parted before anything else happens to them: image libraries take the fourth for
    opacity and multiply the colours by it as soon as they resize.

    Returns:
        colour (H, W, 3) in 0..255 and thermal (H, W) in [0, 1].

    Raises:
        InputError: unreadable, or not four channels of 8 bits.
    """
    rgb, raw = split_channels(path)
    return rgb, scale_thermal(raw, scale)


def split_channels(path: PathLike) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A four-channel file's colour (H, W, 3) and raw thermal (H, W) channels, as stored.

    Raises:
        InputError: unreadable, or not four channels of 8 bits.
    """
    image = open_image(path)
    if image.mode not in FOUR_CHANNELS:
        raise InputError(
            f"{path}: not a four-channel RGB-thermal file (its mode is {image.mode}); "
            "give the thermal image as a file of its own"
        )
    _refuse_16_bit_channels(image, path, "save colour and thermal as two files")
    channels = np.asarray(image)
    return np.ascontiguousarray(channels[..., :3]), np.ascontiguousarray(channels[..., 3])


def read_label(path: PathLike, classes: ClassSet) -> NDArray[np.uint8]:
    """Read a label map: an index image (8 or 16 bits, or a palette PNG's indices) or a colour image.

    Colour labels are mapped through `classes.palette`; the colour of ignored pixels is (224, 224, 224),
    as `ClassSet.colorize` paints them. Three equal channels that hold indices are read as such.

    Returns:
        (H, W) class of each pixel, 255 where ignored.

    Raises:
        InputError: unreadable, or with values or colours outside the class set.
    """
    image = open_image(path, upright=False)
    if image.mode in ("RGB", *FOUR_CHANNELS):
        return _index_of_colors(np.asarray(image)[..., :3], classes, path)
    if image.mode not in ("L", "P", "LA", "1", "I") and not image.mode.startswith("I;16"):
        raise InputError(
            f"{path}: a label map is an index image or an RGB image, not mode {image.mode}; save it as PNG"
        )
    values = np.asarray(image)
    if values.ndim == 3:
        values = values[..., 0]
    return _checked_indices(values, classes, path)


def read_raw_thermal(path: PathLike) -> NDArray[Any]:
    """Read a thermal image's values as stored.

    Returns:
        (H, W) uint8, uint16, int32 or float32.

    Raises:
        InputError: see `read_thermal`.
    """
    image = open_image(path)
    _refuse_16_bit_channels(image, path, "save the thermal image with one channel")
    if image.mode == "L":
        return np.asarray(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I":
        return np.asarray(image)
    if image.mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all():
            raise InputError(
                f"{path}: {int((~np.isfinite(values)).sum())} thermal values are NaN or infinite; "
                "replace them, for example by the coldest value of the image"
            )
        return values
    if image.mode in ("1", "LA"):
        return np.asarray(image.convert("L"))
    return grey_of_three(np.asarray(image.convert("RGB")), path)


def scale_thermal(raw: NDArray[Any], scale: ThermalScale = "auto") -> NDArray[np.float32]:
    """Bring raw thermal values to [0, 1].

    Args:
        raw: (H, W) of any number type, finite.
        scale: "auto": 8-bit values are divided by 255; wider ones are stretched from the 1st to the 99th
            percentile of the image (its full range, where these coincide) and clipped; a constant image
            becomes 0. (low, high): that raw range is mapped linearly and clipped.

    Returns:
        (H, W) in [0, 1].

    Raises:
        InputError: `scale` is no range.
    """
    if scale != "auto":
        low, high = scale if not isinstance(scale, str) and len(scale) == 2 else (np.nan, np.nan)
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise InputError(f"thermal scale {scale}: give 'auto' or two finite numbers, low < high")
    elif raw.dtype == np.uint8:
        return raw.astype(np.float32) / np.float32(255)
    else:
        low, high = _robust_range(raw)
        if low == high:
            return np.zeros(raw.shape, dtype=np.float32)
    # Raw values may need more than float32's 24 bits (32-bit counts): subtract in float64.
    scaled = (raw.astype(np.float64) - low) / (high - low)
    return np.clip(scaled, 0.0, 1.0).astype(np.float32)


def _robust_range(raw: NDArray[Any]) -> tuple[float, float]:
    """The 1st and 99th percentile; least and greatest value where a flat background makes these equal."""
    low, high = (float(value) for value in np.percentile(raw, (1, 99)))
    return (low, high) if low < high else (float(raw.min()), float(raw.max()))


def _as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Any still image as (H, W, 3) in 0..255."""
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip 16 bits at 255; the high byte is what an 8-bit copy of the file would hold.
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in FOUR_CHANNELS:
        return np.ascontiguousarray(np.asarray(image)[..., :3])
    return np.array(image.convert("RGB"))


def _refuse_16_bit_channels(image: Image.Image, path: PathLike, remedy: str) -> None:
    """Several channels of 16 bits reach us as 8: raw thermal counts would be flat without a word."""
    if image.info["wide_channels"]:
        raise InputError(f"{path}: several channels of 16 bits are not supported; {remedy}")


def grey_of_three(rgb: NDArray[np.uint8], path: PathLike) -> NDArray[np.uint8]:
    """The grey image stored as three equal channels (H, W, 3); lossy files may differ a little."""
    spread = rgb.max(axis=2) - rgb.min(axis=2)
    if not spread.any():
        return np.ascontiguousarray(rgb[..., 0])
    if (spread > 12).mean() > 0.005:
        raise InputError(
            f"{path}: its three channels differ: a colour-mapped thermal image, or no thermal image; "
            "export it in greyscale (8 or 16 bits, one channel) from the camera's software"
        )
    grey: NDArray[np.uint8] = rgb.mean(axis=2).round().astype(np.uint8)
    return grey


def _index_of_colors(colors: NDArray[np.uint8], classes: ClassSet, path: PathLike) -> NDArray[np.uint8]:
    """Colours (H, W, 3) as an index map (H, W)."""
    index, unknown = classes.index_of(colors)
    unknown &= ~(colors == IGNORE_COLOR).all(axis=2)
    if not unknown.any():
        return index
    first = colors[..., 0]
    known = (first < len(classes)) | (first == IGNORE_INDEX)
    if known.all() and (colors == first[..., None]).all():
        return np.ascontiguousarray(first)  # indices, saved by a program that writes RGB only
    found, counts = np.unique(colors[unknown], axis=0, return_counts=True)
    listed = _listed(
        [(str(tuple(int(c) for c in color)), int(n)) for color, n in zip(found, counts, strict=True)]
    )
    remedy = (
        "JPEG blurs labels: use the original PNG"
        if Path(path).suffix.lower() in (".jpg", ".jpeg")
        else "correct the palette, or save the label without smoothing"
    )
    raise InputError(f"{path}: colours outside the palette of {len(classes)} classes: {listed}; {remedy}")


def _checked_indices(values: NDArray[Any], classes: ClassSet, path: PathLike) -> NDArray[np.uint8]:
    """Index map (H, W) with every value in 0..K-1 or 255."""
    values = values if values.dtype == np.uint8 else values.astype(np.int32)
    wrong = ((values < 0) | (values >= len(classes))) & (values != IGNORE_INDEX)
    if wrong.any():
        found, counts = np.unique(values[wrong], return_counts=True)
        listed = _listed([(str(int(value)), int(n)) for value, n in zip(found, counts, strict=True)])
        raise InputError(
            f"{path}: label values outside the {len(classes)} classes: {listed}; "
            f"use 0..{len(classes) - 1}, and {IGNORE_INDEX} for pixels to ignore"
        )
    return values.astype(np.uint8)


def _listed(entries: list[tuple[str, int]]) -> str:
    """The most frequent offenders with their pixel counts."""
    entries = sorted(entries, key=lambda entry: -entry[1])
    text = ", ".join(f"{what} ({count} pixel{'s' if count != 1 else ''})" for what, count in entries[:5])
    return text + (f" and {len(entries) - 5} more" if len(entries) > 5 else "")
