"""Images of files, archives and uploads decoded: colour, thermal of 8 to 32 bits, four channels, labels.

`open_image` is the only decoder. What it cannot read is an `InputError` that names the source and the remedy.
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
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.data.archive import file_bytes, tar_of
from efnet.data.pairs import ThermalScale as ThermalScale

PathLike = str | os.PathLike[str]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm")
"""File name endings of images."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")
"""Pillow's formats of `IMAGE_SUFFIXES`: the ones to allow where a source is not trusted."""

FOUR_CHANNELS = ("RGBA", "RGBX")  # Pillow's modes of images that may hold colour and thermal together

IGNORE_COLOR = (224, 224, 224)
"""The colour that `ClassSet.colorize` gives to ignored pixels; in a colour label it means ignored."""

_BITS = {"1": 1, "I": 32, "F": 32}
# Pillow's decoders raise these on damaged files; OSError covers missing, truncated and unidentified ones.
_DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, MemoryError,
    struct.error, zlib.error,
)  # fmt: skip


ImageFault = Literal["missing", "empty", "format", "size", "frames", "damaged"]


class ImageError(InputError):
    """An image that cannot be decoded; `detail` is the decoder's reason, the size or the number of frames."""

    def __init__(self, message: str, fault: ImageFault, detail: str = "") -> None:
        super().__init__(message)
        self.fault = fault
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, ImageFault, str]]:
        return type(self), (str(self), self.fault, self.detail)  # worker processes hand errors on


@dataclass(frozen=True)
class ImageHeader:
    """Properties of a file that are known before any pixel is decoded."""

    height: int  # rows, after turning upright
    width: int  # columns, after turning upright
    mode: str  # Pillow's mode, such as `RGB`, `L` or `I;16`
    bits: int  # per channel as stored

    @property
    def four_channels(self) -> bool:
        """Whether the file may hold colour and thermal together."""
        return self.mode in FOUR_CHANNELS


def read_header(path: PathLike) -> ImageHeader:
    """Read an image's size and mode without decoding it; errors as `open_image`."""
    with _still_image(Path(path), str(path)) as image:
        width, height = image.size
        # A PNG's EXIF may follow its pixels: asking for it would decode them.
        if image.format != "PNG" and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
            width, height = height, width
        bits = 16 if _has_wide_channels(image) else _BITS.get(image.mode.split(";")[0], 8)
        return ImageHeader(height, width, image.mode, 16 if image.mode.startswith("I;16") else bits)


def open_image(
    source: PathLike | bytes,
    *,
    name: str | None = None,
    upright: bool = True,
    formats: tuple[str, ...] | None = None,
    max_pixels: int | None = None,
) -> Image.Image:
    """Decode one still image; its file is closed.

    `info["wide_channels"]` is True if the file stores several channels of 16 bits, which Pillow reduces to 8.

    Args:
        source: a file, which may lie in a tar (`efnet.data.archive`), or the bytes of one.
        name: of the source in messages; None: its path.
        upright: apply the EXIF orientation.
        formats: Pillow's names of the formats that are tried; None: all.
        max_pixels: limit, compared with the header before any pixel is decoded; None: Pillow's own.

    Raises:
        ImageError: missing, empty, damaged, animated, of several pages, of another format, or too large.
    """
    source = source if isinstance(source, bytes) else Path(source)
    name = name or ("image" if isinstance(source, bytes) else str(source))
    with _still_image(source, name, formats, max_pixels) as image:
        wide = _has_wide_channels(image)
        image.load()
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        image.info["wide_channels"] = wide
        return image


@contextlib.contextmanager
def _still_image(
    source: Path | bytes, name: str, formats: tuple[str, ...] | None = None, max_pixels: int | None = None
) -> Iterator[Image.Image]:
    """Open `source`; every decoding error inside the block becomes an `ImageError`."""
    try:
        if isinstance(source, Path) and tar_of(source) is not None:
            source = file_bytes(source)
        if source == b"":
            raise ImageError(f"{name}: is empty (0 bytes); copy it again from its source", "empty")
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(opened, formats=formats) as image:
            width, height = image.size
            if max_pixels is not None and width * height > max_pixels:
                size = f"{width}x{height}"
                raise ImageError(f"{name}: is {size}, above the limit of {max_pixels} pixels", "size", size)
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # MPO: a phone's JPEG with a preview behind it
                text = f"{name}: has {frames} frames; save the one you mean as PNG"
                raise ImageError(text, "frames", str(frames))
            yield image
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        text = f"{name}: too large for an image ({error}); is this the file you mean?"
        raise ImageError(text, "size") from error
    except _DECODING_ERRORS as error:
        raise _unreadable(source, name, error) from error


def _has_wide_channels(image: Image.Image) -> bool:
    """Whether the file, not yet decoded, holds several channels of 16 bits."""
    return not image.mode.startswith("I") and any(";16" in str(tile) for tile in getattr(image, "tile", ()))


def _unreadable(source: Path | bytes, name: str, error: BaseException) -> ImageError:
    """Return the error that gives why `source` could not be read, and the remedy."""
    if isinstance(source, Path):
        missing = not os.path.exists(source)  # noqa: PTH110 - pathlib's raises for a name too long
        fault = ""
        if missing:
            fault = "no such file; check the folder, or take its name off the list"
        elif source.is_dir():
            fault = "is a folder; give an image file"
        elif isinstance(error, PermissionError):
            fault = "may not be read (permission denied); change its permissions"
        if fault:
            return ImageError(f"{name}: {fault}", "missing")
        if source.stat().st_size == 0:
            return ImageError(f"{name}: is empty (0 bytes); copy it again from its source", "empty")
    foreign = isinstance(error, UnidentifiedImageError)
    reason = " ".join(str(error).split()) or type(error).__name__
    reason = "not an image format that can be read" if foreign else reason
    return ImageError(
        f"{name}: cannot be read ({reason}); copy it again from its source, or save it as PNG",
        "format" if foreign else "damaged",
        reason,
    )


def read_rgb(path: PathLike) -> NDArray[np.uint8]:
    """Read a colour image upright (EXIF), (H, W, 3) in 0..255; grey and palettes become RGB, alpha is lost.

    Raises:
        InputError: the file is missing, damaged, animated or beyond any camera's size.
    """
    return to_rgb(open_image(path))


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an image of any mode to (H, W, 3) in 0..255."""
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip 16 bits at 255; the high byte is what an 8-bit copy of the file would hold.
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in FOUR_CHANNELS:
        return np.ascontiguousarray(np.asarray(image)[..., :3])
    return np.array(image.convert("RGB"))


def read_thermal(path: PathLike, scale: ThermalScale = "auto") -> NDArray[np.float32]:
    """Read a thermal image, 8-bit grey, three equal channels, 16-bit, 32-bit integer or float, to [0, 1].

    Raises:
        InputError: unreadable, colour-mapped, or with values that are not finite.
    """
    return scale_thermal(read_raw_thermal(path), scale)


def read_raw_thermal(path: PathLike) -> NDArray[Any]:
    """Read raw thermal values, (H, W) uint8, uint16, int32 or float32; errors as `read_thermal`."""
    image = open_image(path)
    _refuse_wide_channels(image, path, "save the thermal image with one channel")
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("L", "I", "F"):
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


def grey_of_three(rgb: NDArray[np.uint8], path: PathLike) -> NDArray[np.uint8]:
    """Return the grey of three channels (H, W, 3), equal but for a lossy file; else an `InputError`."""
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


def scale_thermal(raw: NDArray[Any], scale: ThermalScale = "auto") -> NDArray[np.float32]:
    """Bring raw thermal values (H, W), finite and of any number type, to [0, 1].

    With scale "auto", 8-bit values are divided by 255; wider ones are stretched from the 1st to the 99th
    percentile of the image (its full range, where these coincide) and clipped; a constant image becomes 0.
    With (low, high), that raw range is mapped linearly and clipped.

    Raises:
        InputError: `scale` is not a range.
    """
    if scale != "auto":
        low, high = scale if not isinstance(scale, str) and len(scale) == 2 else (np.nan, np.nan)
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise InputError(f"thermal scale {scale}: give 'auto' or two finite numbers, low < high")
    elif raw.dtype == np.uint8:
        return raw.astype(np.float32) / np.float32(255)
    else:
        low, high = (float(value) for value in np.percentile(raw, (1, 99)))
        if low >= high:  # a flat background
            low, high = float(raw.min()), float(raw.max())
        if low == high:
            return np.zeros(raw.shape, dtype=np.float32)
    # Raw values may need more than float32's 24 bits (32-bit counts): subtract in float64.
    scaled = (raw.astype(np.float64) - low) / (high - low)
    return np.clip(scaled, 0.0, 1.0).astype(np.float32)


def read_rgbt(path: PathLike, scale: ThermalScale = "auto") -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Read a four-channel file (MFNet's): colour (H, W, 3) in 0..255, thermal (H, W) in [0, 1] as alpha.

    Raises:
        InputError: unreadable, or not four channels of 8 bits.
    """
    rgb, raw = split_channels(path)
    return rgb, scale_thermal(raw, scale)


def split_channels(path: PathLike) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a four-channel file's colour (H, W, 3) and raw thermal (H, W); errors as `read_rgbt`."""
    # Split before anything else: image libraries take the fourth channel for opacity and multiply the
    # colours by it as soon as they resize.
    image = open_image(path)
    if image.mode not in FOUR_CHANNELS:
        fault = f"not a four-channel RGB-thermal file (its mode is {image.mode})"
        raise InputError(f"{path}: {fault}; give the thermal image as a file of its own")
    _refuse_wide_channels(image, path, "save colour and thermal as two files")
    channels = np.asarray(image)
    return np.ascontiguousarray(channels[..., :3]), np.ascontiguousarray(channels[..., 3])


def _refuse_wide_channels(image: Image.Image, path: PathLike, remedy: str) -> None:
    """Refuse several channels of 16 bits: Pillow reduces them to 8, which flattens raw thermal counts."""
    if image.info["wide_channels"]:
        raise InputError(f"{path}: several channels of 16 bits are not supported; {remedy}")


def read_label(path: PathLike, classes: ClassSet) -> NDArray[np.uint8]:
    """Read a label map (H, W), 255 where ignored: an index image (8 or 16 bits, palette) or a colour image.

    Colour labels are mapped through `classes.palette`; `IGNORE_COLOR` means ignored. Three equal channels
    that hold indices are read as indices.

    Raises:
        InputError: unreadable, or with values or colours outside the class set.
    """
    image = open_image(path, upright=False)
    if image.mode in ("RGB", *FOUR_CHANNELS):
        return _index_of_colors(np.asarray(image)[..., :3], classes, path)
    if image.mode not in ("L", "P", "LA", "1", "I") and not image.mode.startswith("I;16"):
        fault = f"a label map is an index image or an RGB image, not mode {image.mode}"
        raise InputError(f"{path}: {fault}; save it as PNG")
    values = np.asarray(image)
    values = values[..., 0] if values.ndim == 3 else values
    values = values if values.dtype == np.uint8 else values.astype(np.int32)
    wrong = ((values < 0) | (values >= len(classes))) & (values != IGNORE_INDEX)
    if wrong.any():
        raise InputError(
            f"{path}: label values outside the {len(classes)} classes: {_most_frequent(values[wrong])}; "
            f"use 0..{len(classes) - 1}, and {IGNORE_INDEX} for pixels to ignore"
        )
    return values.astype(np.uint8)


def _index_of_colors(colors: NDArray[np.uint8], classes: ClassSet, path: PathLike) -> NDArray[np.uint8]:
    """Map colours (H, W, 3) to an index map (H, W)."""
    index, unknown = classes.index_of(colors)
    unknown &= ~(colors == IGNORE_COLOR).all(axis=2)
    if not unknown.any():
        return index
    first = colors[..., 0]
    known = (first < len(classes)) | (first == IGNORE_INDEX)
    if known.all() and (colors == first[..., None]).all():
        return np.ascontiguousarray(first)  # indices, saved by a program that writes RGB only
    lossy = Path(path).suffix.lower() in (".jpg", ".jpeg")
    remedy = "correct the palette, or save the label without smoothing"
    raise InputError(
        f"{path}: colours outside the palette of {len(classes)} classes: {_most_frequent(colors[unknown])}; "
        + ("JPEG blurs labels: use the original PNG" if lossy else remedy)
    )


def _most_frequent(wrong: NDArray[Any]) -> str:
    """List the most frequent values (N,) or colours (N, 3) with their pixel counts."""
    found, counts = np.unique(wrong, axis=0, return_counts=True)
    entries = sorted(zip(found.tolist(), counts.tolist(), strict=True), key=lambda entry: -entry[1])
    shown = [(tuple(value) if isinstance(value, list) else value, count) for value, count in entries[:5]]
    text = ", ".join(f"{value} ({count} pixel{'s' if count != 1 else ''})" for value, count in shown)
    return text + (f" and {len(entries) - 5} more" if len(entries) > 5 else "")
