"""Files of many channels: which are colour and which thermal, and numpy files, which have any number of them.

A path that goes on below a file, `scene.tif/bands=4`, means these channels of it, counted from 1. Together
with a page it is `scene.tif/2/bands=4`. Behind colour, `;white=1023` gives the number that stands for white.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from efnet.data.raster import ImageError, ImageHeader, Raster, require_size

_PART = re.compile(r"bands=(\d+(?:,\d+)*)(?:;white=(\d+))?")
_MOST_LISTED = 16
_CHANNELS_FIRST = 16  # a first axis up to this long, before two longer ones, is that of the channels
NUMPY_MAGIC = b"\x93NUM"
_KINDS: dict[str, Literal["unsigned", "signed", "float"]] = {"u": "unsigned", "i": "signed", "f": "float"}


@dataclass(frozen=True)
class Bands:
    """Channels of a file, by their numbers from 1."""

    numbers: tuple[int, ...]
    white: int | None = None  # the number that stands for white; None: the largest of the file's number type

    def of(self, file: Path) -> Path:
        """Return the path of these channels of a file."""
        white = "" if self.white is None else f";white={self.white}"
        return file / f"bands={','.join(map(str, self.numbers))}{white}"

    def header(self, whole: ImageHeader, name: str) -> ImageHeader:
        """Describe the channels; an `ImageError` if the file lacks one."""
        if whole.numbers == "palette" or max(self.numbers) > whole.channels:
            raise ImageError(f"{name}: has no channel {max(self.numbers)}; it is {whole}", "format")
        return replace(whole, channels=len(self.numbers), bits=8 if self.white is not None else whole.bits)

    def select(self, whole: Raster) -> Raster:
        """Return the channels; an `ImageError` if the file lacks one, or if a value is above white."""
        header = self.header(whole.header, whole.name)
        samples = whole.samples if whole.samples.ndim == 3 else whole.samples[..., None]
        chosen = samples[..., [number - 1 for number in self.numbers]]
        white = whole.white
        if self.white is not None:
            if not (np.isfinite(chosen).all() and chosen.min() >= 0 and chosen.max() <= self.white):
                fault = f"has values outside 0 to {self.white}, the white of 'channels'; its bands: "
                raise ImageError(f"{whole.name}: {fault}{listed(whole)}", "format")
            chosen = (chosen.astype(np.float64) * 255 / self.white).round().astype(np.uint8)
            white, header = 255, replace(header, numbers="unsigned")
        return replace(
            whole,
            header=header,
            samples=np.ascontiguousarray(chosen[..., 0] if len(self.numbers) == 1 else chosen),
            white=white,
            opacity=False,
            photo=True,
        )


def bands_of(path: Path) -> tuple[Path, Bands | None]:
    """Separate a file and the channels of it that a path means; other paths have none."""
    match = _PART.fullmatch(path.name)
    if match is None or os.path.isfile(path):  # noqa: PTH113 - pathlib's raises for a name too long
        return path, None
    return path.parent, Bands(tuple(map(int, match[1].split(","))), int(match[2]) if match[2] else None)


def listed(image: Raster) -> str:
    """Return the bands of an image with their least and greatest values."""
    samples = image.samples if image.samples.ndim == 3 else image.samples[..., None]
    ranges = [
        f"{samples[..., band].min():g} to {samples[..., band].max():g}" for band in range(samples.shape[2])
    ]
    text = ", ".join(f"{number}: {span}" for number, span in enumerate(ranges[:_MOST_LISTED], 1))
    return f"{text}, ..." if len(ranges) > _MOST_LISTED else text


@dataclass(frozen=True)
class NumpyFile:
    """An array (H, W), (H, W, C) or (C, H, W) that `numpy.save` wrote; objects are never unpickled."""

    name: str
    file: BinaryIO
    shape: tuple[int, int, int]  # rows, columns, channels
    first: bool  # channels come first
    dtype: np.dtype[np.generic]

    @classmethod
    def parse(cls, file: BinaryIO, name: str, max_pixels: int | None) -> NumpyFile:
        """Read the header; a ValueError if it is damaged, an `ImageError` if it is not that of an image."""
        file.seek(0)
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
        if dtype.kind not in "uifb" or len(shape) not in (2, 3) or not math.prod(shape):
            fault = f"holds {dtype} numbers of shape {shape}"
            raise ImageError(f"{name}: {fault}; an image is (height, width[, channels])", "format")
        first = len(shape) == 3 and shape[0] <= _CHANNELS_FIRST < min(shape[1:])
        height, width, channels = (*shape[1:], shape[0]) if first else (*shape, 1)[:3]
        require_size(name, width, height, max_pixels)
        return cls(name, file, (height, width, channels), first, dtype)

    def header(self) -> ImageHeader:
        """Describe the array."""
        bits = 1 if self.dtype.kind == "b" else 8 * self.dtype.itemsize
        return ImageHeader(*self.shape, bits, _KINDS.get(self.dtype.kind, "unsigned"))

    def decode(self) -> Raster:
        """Read it; a ValueError if it is cut off."""
        self.file.seek(0)
        samples = np.lib.format.read_array(self.file, allow_pickle=False)
        samples = np.moveaxis(samples, 0, 2) if self.first else samples
        samples = samples[..., 0] if self.shape[2] == 1 and samples.ndim == 3 else samples
        samples = samples.astype(np.uint8 if samples.dtype.kind == "b" else samples.dtype.newbyteorder("="))
        header = self.header()
        white = (1 << header.bits) - 1
        photo = self.shape[2] in (3, 4)
        return Raster(self.name, header, np.ascontiguousarray(samples), white=white, photo=photo)
