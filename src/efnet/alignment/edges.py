"""How far a thermal image is off its colour image, from edges alone.

The two cameras agree on where edges lie and how they run, not on which side is brighter. So each image
becomes a field of edge directions, doubled in angle (an edge and its reverse are one direction) and evened
out in strength, as complex numbers; correlating two such fields peaks where most edges fall on edges that
run alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.float32]
"""(H, W), any range."""

Field = NDArray[np.complex128]
"""(H, W), edge strength times e^(2i angle)."""

LONG_SIDE = 320
"""Length of the longer side at which shifts are looked for; a pixel there is 0.3 % of the image."""

SEARCH = 0.08
"""Greatest shift found by `estimate_shift`, as a share of the longer side."""

CONFIDENT = 4.5
"""Least height of a correlation's peak above its mean, in standard deviations, that is taken for a match.

On the pairs that `docs/video.md` names, images of different scenes stay below it, and pairs rise above it.
"""


@dataclass(frozen=True)
class Shift:
    """How far the thermal image is off.

    Attributes:
        x: pixels of the colour image that thermal has to move right.
        y: likewise, down.
        peak: height of the correlation's peak, in its standard deviations.
    """

    x: float
    y: float
    peak: float

    @property
    def confident(self) -> bool:
        """Whether it is more than chance."""
        return self.peak >= CONFIDENT

    @property
    def length(self) -> float:
        """In pixels of the colour image."""
        return math.hypot(self.x, self.y)


def estimate_shift(rgb: NDArray[np.uint8], thermal: NDArray[np.float32]) -> Shift:
    """The shift between the images of a pair, up to `SEARCH` of the longer side.

    Args:
        rgb: uint8 (H, W, 3).
        thermal: (h, w), stretched onto the colour image first.
    """
    scale = LONG_SIDE / max(rgb.shape[:2])
    size = (max(16, round(rgb.shape[0] * scale)), max(16, round(rgb.shape[1] * scale)))
    surface = correlate(edge_field(resize(luminance(rgb), size)), edge_field(resize(thermal, size)))
    column, row, peak = find_peak(surface, round(SEARCH * max(size)))
    return Shift(column * rgb.shape[1] / size[1], row * rgb.shape[0] / size[0], peak)


def misalignment(shifts: Sequence[Shift]) -> Shift | None:
    """The median shift of those that are confident; None: fewer than three are."""
    sure = [shift for shift in shifts if shift.confident]
    if len(sure) < 3:
        return None
    return Shift(
        x=median(shift.x for shift in sure),
        y=median(shift.y for shift in sure),
        peak=median(shift.peak for shift in sure),
    )


def luminance(rgb: NDArray[np.uint8]) -> Grey:
    """The grey image of a colour image (H, W, 3)."""
    grey: Grey = rgb.mean(axis=2, dtype=np.float32)
    return grey


def resize(image: Grey, size: tuple[int, int]) -> Grey:
    """Bilinear with antialiasing, to `size` (H, W)."""
    if image.shape == size:
        return image
    resized = Image.fromarray(np.asarray(image, dtype=np.float32)).resize(
        size[::-1], Image.Resampling.BILINEAR
    )
    return np.asarray(resized)


def edge_field(image: Grey, mask: NDArray[np.bool_] | None = None) -> Field:
    """Edge directions of an image, doubled in angle, with strengths evened out over the image.

    Args:
        image: (H, W).
        mask: bool (H, W), where the image shows something; the field is 0 elsewhere.
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
    """Correlation for every shift of `moving`, (2H, 2W); entry (y, x), wrapped, is a shift down and right."""
    size = (2 * fixed.shape[0], 2 * fixed.shape[1])
    product = np.fft.fft2(fixed, size) * np.conj(np.fft.fft2(moving, size))
    surface: NDArray[np.float64] = np.fft.ifft2(product).real
    return surface


def find_peak(surface: NDArray[np.float64], radius: int) -> tuple[float, float, float]:
    """The best shift within `radius`: right, down (in parts of a pixel), and its height in deviations."""
    near = np.roll(surface, (radius, radius), (0, 1))[: 2 * radius + 1, : 2 * radius + 1]
    row, column = (int(place) for place in np.unravel_index(int(near.argmax()), near.shape))
    deviation = float(near.std())
    height = float(near[row, column] - near.mean()) / deviation if deviation > 0 else 0.0
    down = row + _vertex(near[max(0, row - 1) : row + 2, column])
    right = column + _vertex(near[row, max(0, column - 1) : column + 2])
    return right - radius, down - radius, height


def _vertex(values: NDArray[np.float64]) -> float:
    """Where the parabola through three values has its top, from the middle one; 0 at the search's border."""
    if len(values) < 3:
        return 0.0
    bend = float(values[0] - 2 * values[1] + values[2])
    return 0.0 if bend >= 0 else 0.5 * float(values[0] - values[2]) / bend


def _smooth(image: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian blur; the image is taken to repeat."""
    rows, columns = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None]
    blur = np.exp(-2 * (math.pi * sigma) ** 2 * (rows**2 + columns**2))
    smoothed: NDArray[np.float64] = np.fft.irfft2(np.fft.rfft2(image) * blur, image.shape)
    return smoothed
