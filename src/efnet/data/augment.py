"""Augmentation of a sample: geometry alike on colour, thermal and label; photometry on colour alone.

Thermal values are temperatures, not exposures: brightening them would change what they say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.classes import IGNORE_INDEX
from efnet.data.sample import Sample
from efnet.errors import InputError

PAD_RGB = (124, 116, 104)
PAD_THERMAL = 0.45
"""What lies outside the image: about the mean that networks subtract, so that it carries no signal."""

# RGB to YIQ (NTSC): luma and a chroma plane in which a rotation is a change of hue.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_LUMA = _TO_YIQ[0]


@dataclass(frozen=True)
class AugmentConfig:
    """Strength of the augmentation.

    Attributes:
        flip: probability of mirroring left to right.
        scale: range of the random scale; 1 is the size that evaluation uses (the image resized to `size`).
        brightness: RGB is multiplied by a factor from 1 - brightness to 1 + brightness.
        contrast: likewise, the distance from the mean grey.
        saturation: likewise, the distance from each pixel's grey.
        hue: greatest turn of the hue, in full turns (0.5 reaches the complement).
    """

    flip: float = 0.5
    scale: tuple[float, float] = (0.5, 1.75)
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.03

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise InputError(f"augment.flip is {self.flip}; give a probability from 0 to 1")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise InputError(f"augment.scale is {self.scale}; give two positive numbers, low <= high")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augment.{name} is {getattr(self, name)}; give a number from 0 to 1")
        if not 0 <= self.hue <= 0.5:
            raise InputError(f"augment.hue is {self.hue}; give a number from 0 to 0.5")


@dataclass(frozen=True)
class Window:
    """What a resize-and-crop takes from the source and where it puts it, along one axis.

    Attributes:
        start: first edge in the source, in source pixels.
        stop: last edge in the source.
        offset: first pixel of the output that is filled.
        length: number of pixels filled.
    """

    start: float
    stop: float
    offset: int
    length: int

    @classmethod
    def draw(cls, source: int, size: int, scale: float, rng: np.random.Generator) -> Window:
        """A random window for an axis of `source` pixels that becomes `size` pixels at scale 1."""
        if scale >= 1:
            extent = source / scale
            start = rng.uniform(0, source - extent)
            return cls(start, min(start + extent, source), 0, size)
        length = min(size, max(1, round(size * scale)))
        return cls(0, source, int(rng.integers(0, size - length + 1)), length)

    @property
    def slice(self) -> slice:
        """The filled part of the output."""
        return slice(self.offset, self.offset + self.length)

    def nearest(self, source: int) -> NDArray[np.intp]:
        """The source pixel under the centre of each filled output pixel."""
        centres = self.start + (np.arange(self.length) + 0.5) * ((self.stop - self.start) / self.length)
        return np.clip(centres.astype(np.intp), 0, source - 1)


def augment(sample: Sample, config: AugmentConfig, size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Mirror, scale, crop or pad to `size`, and vary the colours.

    Args:
        sample: as read, at any size.
        config: how strongly.
        size: (H, W) of the result.
        rng: all randomness; the same state gives the same result.

    Returns:
        a sample of size `size`; where the image does not reach, colour and thermal are grey and the
        label is 255.
    """
    flip = rng.random() < config.flip
    scale = rng.uniform(*config.scale)
    height, width = sample.thermal.shape
    rows = Window.draw(height, size[0], scale, rng)
    columns = Window.draw(width, size[1], scale, rng)
    matrix = _color_matrix(config, rng)
    result = crop(mirror(sample) if flip else sample, rows, columns, size)
    if matrix is not None:
        inside = result.rgb[rows.slice, columns.slice]
        result.rgb[rows.slice, columns.slice] = _jitter(inside, *matrix)
    return result


def mirror(sample: Sample) -> Sample:
    """The sample mirrored left to right."""
    label = None if sample.label is None else np.ascontiguousarray(sample.label[:, ::-1])
    return replace(
        sample,
        rgb=np.ascontiguousarray(sample.rgb[:, ::-1]),
        thermal=np.ascontiguousarray(sample.thermal[:, ::-1]),
        label=label,
    )


def crop(sample: Sample, rows: Window, columns: Window, size: tuple[int, int]) -> Sample:
    """Take the windows' part of the sample: bilinear for colour and thermal, nearest for the label."""
    rgb = np.empty((*size, 3), dtype=np.uint8)
    rgb[:] = PAD_RGB
    thermal = np.full(size, PAD_THERMAL, dtype=np.float32)
    filled = (rows.slice, columns.slice)
    box = (columns.start, rows.start, columns.stop, rows.stop)
    length = (rows.length, columns.length)
    rgb[filled] = _resize(sample.rgb, length, box)
    thermal[filled] = _resize(sample.thermal, length, box)
    label = None
    if sample.label is not None:
        height, width = sample.label.shape
        label = np.full(size, IGNORE_INDEX, dtype=np.uint8)
        label[filled] = sample.label[rows.nearest(height)][:, columns.nearest(width)]
    return Sample(sample.name, rgb, thermal, label)


def resize_sample(sample: Sample, size: tuple[int, int] | None) -> Sample:
    """Resize colour and thermal to `size` (H, W) for evaluation.

    The label stays as it is: predictions are scored at the label's size. None leaves everything.
    """
    if size is None or sample.thermal.shape == tuple(size):
        return sample
    height, width = sample.thermal.shape
    box = (0.0, 0.0, float(width), float(height))
    return replace(sample, rgb=_resize(sample.rgb, size, box), thermal=_resize(sample.thermal, size, box))


def _resize(
    array: NDArray[Any], size: tuple[int, int], box: tuple[float, float, float, float]
) -> NDArray[Any]:
    """Bilinear (antialiased when shrinking) from `box` = (left, top, right, bottom) to `size` (H, W)."""
    image = Image.fromarray(array)
    return np.array(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box))


def _color_matrix(
    config: AugmentConfig, rng: np.random.Generator
) -> tuple[NDArray[np.float64], float] | None:
    """Brightness, saturation and hue as one matrix (3, 3), and the contrast factor; None: all are off.

    All four are drawn whatever their strength, so that changing one leaves the others' draws alone.
    """
    draws = rng.uniform(-1, 1, size=4) * (config.brightness, config.contrast, config.saturation, config.hue)
    if not draws.any():
        return None
    angle = 2 * math.pi * draws[3]
    cosine, sine = (1 + draws[2]) * math.cos(angle), (1 + draws[2]) * math.sin(angle)
    chroma = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return (1 + draws[0]) * (_FROM_YIQ @ chroma @ _TO_YIQ), 1 + float(draws[1])


def _jitter(rgb: NDArray[np.uint8], matrix: NDArray[np.float64], contrast: float) -> NDArray[np.uint8]:
    """Apply the colour matrix, then the contrast about the mean grey; (H, W, 3) to (H, W, 3)."""
    mean = float((rgb[::4, ::4].reshape(-1, 3).mean(axis=0) @ matrix.T) @ _LUMA)
    offset = (1 - contrast) * mean
    rows = [(*(contrast * row), offset) for row in matrix]
    return np.asarray(
        Image.fromarray(rgb).convert("RGB", matrix=tuple(value for row in rows for value in row))
    )
