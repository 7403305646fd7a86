"""Lengths that scale with the image, light, blur and smooth random fields, for the faults."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]  # an image with values in [0, 1]: colour (H, W, 3) or thermal (H, W)

REFERENCE_SIDE = 480  # shorter side of the images in whose pixels lengths are given: MFNet's

_FINER = 8
_GRID = 64


def pixels(length: float, image: Array) -> float:
    """Scale pixels of an image whose shorter side is 480 to `image` (H, W, ...): the same angle of view."""
    return length * int(min(image.shape[:2])) / REFERENCE_SIDE


def to_light(values: Array) -> Array:
    """Stored values to amounts of light, both in [0, 1] (sRGB, IEC 61966-2-1)."""
    light: Array = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


def from_light(light: Array) -> Array:
    """The inverse of `to_light`; light beyond [0, 1] is cut off, as a sensor does."""
    cut = np.clip(light, 0, 1)
    values: Array = np.where(cut <= 0.0031308, cut * 12.92, 1.055 * cut ** (1 / 2.4) - 0.055)
    return values.astype(np.float32)


def disk(radius: float) -> Array:
    """The blur of a point by a lens out of focus: a disk (n, n) of sum 1, its edge antialiased."""
    radius = max(radius, 0.5)  # less than a pixel's own
    reach = math.ceil(radius)
    fine = (np.arange((2 * reach + 1) * _FINER) + 0.5) / _FINER - reach - 0.5
    inside = (fine[:, None] ** 2 + fine[None, :] ** 2 <= radius**2).astype(np.float64)
    kernel = inside.reshape(2 * reach + 1, _FINER, 2 * reach + 1, _FINER).mean(axis=(1, 3))
    return _of_sum_one(kernel)


def line(length: float, angle: float) -> Array:
    """The track (n, n) of a point while the camera turns, of sum 1; length in pixels, angle in radians."""
    reach = math.ceil(length / 2)
    along = np.linspace(-length / 2, length / 2, 2 * _FINER * (2 * reach + 1) + 1)
    x, y = reach + along * math.cos(angle), reach + along * math.sin(angle)
    kernel = np.zeros((2 * reach + 2, 2 * reach + 2))
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    for row, below in ((top, y - top), (top + 1, top + 1 - y)):
        for column, beside in ((left, x - left), (left + 1, left + 1 - x)):
            np.add.at(kernel, (row, column), (1 - np.abs(below)) * (1 - np.abs(beside)))
    return _of_sum_one(kernel[:-1, :-1])


def gaussian(sigma: float) -> Array:
    """A Gaussian (n, n) of sum 1, cut off at four deviations."""
    reach = max(1, math.ceil(4 * sigma))
    profile = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return _of_sum_one(profile[:, None] * profile[None, :])


def convolve(image: Array, kernel: Array) -> Array:
    """Every channel of an image (H, W) or (H, W, C) convolved with a kernel of odd sides.

    What lies outside has the value of the nearest pixel of the border. By numpy's own transforms, which
    use one thread whatever the process is allowed: the same bits in a worker process.
    """
    height, width = image.shape[:2]
    rows, columns = kernel.shape
    margin = [(rows // 2, rows // 2), (columns // 2, columns // 2)] + [(0, 0)] * (image.ndim - 2)
    padded = np.pad(image, margin, mode="edge")
    size = [-(-side // _GRID) * _GRID for side in padded.shape[:2]]
    shape = kernel.shape + (1,) * (image.ndim - 2)
    spectrum = np.fft.rfft2(padded, size, axes=(0, 1))
    spectrum *= np.fft.rfft2(kernel.reshape(shape), size, axes=(0, 1))
    full = np.fft.irfft2(spectrum, size, axes=(0, 1))
    result: Array = full[rows - 1 : rows - 1 + height, columns - 1 : columns - 1 + width].astype(np.float32)
    return result


def clouds(size: tuple[int, int], rng: np.random.Generator, octaves: int = 5) -> Array:
    """A smooth random field (H, W) in [0, 1], coarse structures the strongest, the same at any resolution."""
    field: Array = np.zeros(size, dtype=np.float32)
    for octave in range(octaves):
        side = 2 ** (octave + 1) + 1
        coarse = Image.fromarray(rng.standard_normal((side, side)).astype(np.float32))
        grown = coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        field += np.asarray(grown) / np.float32(2**octave)
    field -= field.min()
    return np.asarray(field / max(float(field.max()), 1e-6), dtype=np.float32)


def _of_sum_one(kernel: NDArray[np.float64]) -> Array:
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)
