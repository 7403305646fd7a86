"""A decoded image as its file stores it: the numbers, and everything that gives them a meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.core.errors import InputError
from efnet.data.radiometric import Radiometry

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
    channels: int  # per pixel
    bits: int  # per channel as stored
    numbers: Literal["unsigned", "signed", "float", "palette"] = "unsigned"
    orientation: int = 1  # of EXIF or TIFF, 1 to 8; 1: stored upright

    @property
    def four_channels(self) -> bool:
        """Whether the file may hold colour and thermal together."""
        return self.channels == 4

    def __str__(self) -> str:
        """Name the kind of the file, such as `8-bit, three channels`."""
        names = {1: "", 2: ", two channels", 3: ", three channels", 4: ", four channels"}
        numbers = "" if self.numbers == "unsigned" else f" {self.numbers}"
        return f"{self.bits}-bit{numbers}{names.get(self.channels, f', {self.channels} channels')}"


@dataclass(frozen=True, eq=False)
class Raster:
    """One image, upright. Its numbers are those of the file: never scaled, inverted or blended.

    `samples` is (H, W) or (H, W, C), of the file's number type in the machine's byte order. Samples of less
    than 8 bits lie in uint8.
    """

    name: str  # of the source, for messages
    header: ImageHeader
    samples: NDArray[Any]
    white: int = 255  # the integer that stands for white: 2^bits - 1, or the largest value a PGM declares
    white_is_zero: bool = False  # small numbers are bright
    palette: NDArray[np.uint8] | None = None  # (N, 3) colours that the samples index
    opacity: bool = False  # the last channel is declared to be opacity
    lossy: bool = False  # the compression changes values
    nodata: float | None = None  # the number that the file declares to mean a missing value
    radiometry: Radiometry | None = None  # temperatures, of which the samples are a rendering
    photo: bool = True  # three or four channels are colours; False: bands without a meaning

    def of_palette(self) -> NDArray[np.uint8]:
        """Return the colours (..., 3) that the samples of a palette image stand for."""
        assert self.palette is not None
        table = np.zeros((max(256, len(self.palette), int(self.samples.max()) + 1), 3), dtype=np.uint8)
        table[: len(self.palette)] = self.palette
        return np.asarray(table[self.samples])


def upright(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn an image (H, W) or (H, W, C) from the way it is stored, by the EXIF and TIFF numbers 1 to 8."""
    if orientation in (2, 3, 7, 8):  # the first column is on the right, or becomes the bottom row
        samples = samples[:, ::-1]
    if orientation in (3, 4, 6, 7):
        samples = samples[::-1]
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    return np.ascontiguousarray(samples)


def require_size(name: str, width: int, height: int, max_pixels: int | None) -> None:
    """Raise an `ImageError` for an image larger than `max_pixels`, or than any that Pillow decodes.

    Raises:
        OSError: it has no pixel at all.
    """
    if min(width, height) < 1:
        raise OSError("its width or height is 0")
    if max_pixels is not None and width * height > max_pixels:
        size = f"{width}x{height}"
        raise ImageError(f"{name}: is {size}, above the limit of {max_pixels} pixels", "size", size)
    if Image.MAX_IMAGE_PIXELS is not None and width * height > 2 * Image.MAX_IMAGE_PIXELS:
        fault = f"too large for an image ({width}x{height} pixels)"
        raise ImageError(f"{name}: {fault}; is this the file you mean?", "size")
