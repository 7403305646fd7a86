"""The shift of a thermal image against its colour image, from edges alone.

The two cameras agree on the place and direction of edges, not on which side is brighter. So each image
becomes a field of edge directions: complex numbers, doubled in angle (an edge and its reverse are one
direction) and normalised in strength. The correlation of two fields peaks where most edges coincide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.float32]  # (H, W), any range
Field = NDArray[np.complex128]  # (H, W), edge strength times e^(2i angle)

LONG_SIDE = 320  # pixels of the longer side at which shifts are searched: one is 0.3 % of the image
SEARCH = 0.08  # greatest shift that `estimate_shift` searches, as a share of the longer side

CONFIDENT = 4.5
"""Least height of a correlation's peak above its mean, in standard deviations, that counts as a match.

It separates true pairs from images of different scenes on the pairs that `docs/video.md` names.
"""


@dataclass(frozen=True)
class Shift:
    """The shift of a thermal image."""

    x: float  # pixels of the colour image that thermal has to move right
    y: float  # likewise, down
    peak: float  # height of the correlation's peak, in its standard deviations

    @property
    def confident(self) -> bool:
        """Whether the peak is above chance."""
        return self.peak >= CONFIDENT


def estimate_shift(rgb: NDArray[np.uint8], thermal: NDArray[np.float32]) -> Shift:
    """Estimate the shift of a thermal image (h, w), stretched onto its colour image (H, W, 3) first."""
    size = working_size(rgb.shape, LONG_SIDE)
    surface = correlate(edge_field(resize(luminance(rgb), size)), edge_field(resize(thermal, size)))
    column, row, peak = find_peak(surface, round(SEARCH * max(size)))
    return Shift(column * rgb.shape[1] / size[1], row * rgb.shape[0] / size[0], peak)


def misalignment(shifts: Sequence[Shift]) -> Shift | None:
    """Return the median of the confident shifts; None if fewer than three are confident."""
    sure = [(shift.x, shift.y, shift.peak) for shift in shifts if shift.confident]
    return Shift(*map(median, zip(*sure, strict=True))) if len(sure) >= 3 else None


def working_size(shape: tuple[int, ...], long_side: int) -> tuple[int, int]:
    """Return the size (H, W) of an image of `shape` resized to a longer side of `long_side` pixels."""
    scale = long_side / max(shape[:2])
    return max(16, round(shape[0] * scale)), max(16, round(shape[1] * scale))


def luminance(rgb: NDArray[np.uint8]) -> Grey:
    """Return the grey image of a colour image (H, W, 3)."""
    grey: Grey = rgb.mean(axis=2, dtype=np.float32)
    return grey


def resize(image: Grey, size: tuple[int, int]) -> Grey:
    """Resize to `size` (H, W), bilinear with antialiasing."""
    if image.shape == size:
        return image
    picture = Image.fromarray(np.asarray(image, dtype=np.float32))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))


def edge_field(image: Grey, mask: NDArray[np.bool_] | None = None) -> Field:
    """Return the edge directions of an image (H, W), doubled in angle, their strength normalised locally.

    The field is 0 where the mask (H, W) is False.
    """
    margin = 8
    padded = np.pad(image.astype(np.float64), margin, mode="edge")
    smoothed = _smooth(padded, 1.0)
    down, across = (np.asarray(np.gradient(smoothed, axis=axis)) for axis in (0, 1))
    inner = slice(margin, -margin), slice(margin, -margin)
    gradient: Field = across[inner] + 1j * down[inner]
    strength = np.abs(gradient)
    if mask is not None:
        strength = strength * mask
    around = np.sqrt(np.maximum(_smooth(strength**2, 8.0), 0.0))
    even = np.minimum(strength / (around + 0.5 * strength.mean() + 1e-6), 2.0)
    field: Field = even * gradient**2 / np.maximum(np.abs(gradient) ** 2, 1e-12)
    return field


def correlate(fixed: Field, moving: Field) -> NDArray[np.float64]:
    """Correlate for every shift of `moving`, (2H, 2W); entry (y, x), wrapped, is a shift down and right."""
    size = (2 * fixed.shape[0], 2 * fixed.shape[1])
    product = np.fft.fft2(fixed, size) * np.conj(np.fft.fft2(moving, size))
    surface: NDArray[np.float64] = np.fft.ifft2(product).real
    return surface


def find_peak(surface: NDArray[np.float64], radius: int) -> tuple[float, float, float]:
    """Find the best shift within `radius`: right, down (subpixel), and its height in deviations."""
    near = np.roll(surface, (radius, radius), (0, 1))[: 2 * radius + 1, : 2 * radius + 1]
    row, column = (int(place) for place in np.unravel_index(int(near.argmax()), near.shape))
    deviation = float(near.std())
    height = float(near[row, column] - near.mean()) / deviation if deviation > 0 else 0.0
    down = row + _vertex(near[max(0, row - 1) : row + 2, column])
    right = column + _vertex(near[row, max(0, column - 1) : column + 2])
    return right - radius, down - radius, height


def _vertex(values: NDArray[np.float64]) -> float:
    """Offset of the top of the parabola through three values; 0 at the search's border."""
    if len(values) < 3:
        return 0.0
    bend = float(values[0] - 2 * values[1] + values[2])
    return 0.0 if bend >= 0 else 0.5 * float(values[0] - values[2]) / bend


def _smooth(image: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian blur of an image that repeats."""
    rows, columns = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None]
    blur = np.exp(-2 * (math.pi * sigma) ** 2 * (rows**2 + columns**2))
    smoothed: NDArray[np.float64] = np.fft.irfft2(np.fft.rfft2(image) * blur, image.shape)
    return smoothed
