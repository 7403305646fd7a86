"""Image files opened safely: one still image, or an `InputError` that names the file and the remedy."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from efnet.data.shards.members import file_bytes, tar_of
from efnet.errors import InputError

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
