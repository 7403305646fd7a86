"""Augmentation of a sample: one geometry for colour, thermal and label; photometry on colour.

Thermal values are temperatures: varying them suits only cameras that set their gain by the scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.core.classes import IGNORE_INDEX
from efnet.core.errors import InputError
from efnet.data.sample import Sample

# RGB to YIQ (NTSC): luma and a chroma plane in which a rotation is a change of hue.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_LUMA = _TO_YIQ[0]

Box = tuple[float, float, float, float]  # left, top, right, bottom


def color_matrix(
    strengths: tuple[float, float, float, float], rng: np.random.Generator
) -> tuple[NDArray[np.float64], float] | None:
    """Draw brightness, saturation and hue as one matrix (3, 3), and the contrast factor; None: all are off.

    `strengths` are those of brightness, contrast, saturation and hue. All four are drawn whatever their
    strength, so that changing one leaves the draws of the others alone.
    """
    draws: NDArray[Any] = rng.uniform(-1, 1, size=4) * strengths
    if not draws.any():
        return None
    angle = 2 * math.pi * draws[3]
    cosine, sine = (1 + draws[2]) * math.cos(angle), (1 + draws[2]) * math.sin(angle)
    chroma = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return (1 + draws[0]) * (_FROM_YIQ @ chroma @ _TO_YIQ), 1 + float(draws[1])


def jitter(rgb: NDArray[np.uint8], matrix: NDArray[np.float64], contrast: float) -> NDArray[np.uint8]:
    """Apply the colour matrix, then the contrast about the mean grey; (H, W, 3) to (H, W, 3)."""
    mean = float((rgb[::4, ::4].reshape(-1, 3).mean(axis=0) @ matrix.T) @ _LUMA)
    offset = (1 - contrast) * mean
    values = tuple(value for row in matrix for value in (*(contrast * row), offset))
    return np.asarray(Image.fromarray(rgb).convert("RGB", matrix=values))


def vary_thermal(
    thermal: NDArray[np.float32], strengths: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Vary a thermal image (H, W) by a power, a gain about its mean and an offset, within [0, 1]."""
    gain, offset = rng.uniform(-1, 1, size=2) * strengths[:2]
    if strengths[2]:
        thermal = thermal ** np.float32(math.exp(rng.uniform(-1, 1) * strengths[2]))
    mean = float(thermal.mean())
    # mean + (1 + gain) * (thermal - mean) + offset, as one product and one sum.
    varied: NDArray[np.float32] = thermal * np.float32(1 + gain) + np.float32(offset - gain * mean)
    return varied.clip(0, 1)


PAD_RGB = (124, 116, 104)
PAD_THERMAL = 0.45  # padding: about the mean that networks subtract, so that it carries no signal


@dataclass(frozen=True)
class AugmentConfig:
    """Strength of the augmentation.

    Attributes:
        flip: probability of mirroring left to right.
        scale: range of the random scale; 1 is the size that evaluation uses (the image resized to `size`).
        scale_steps: the random scale is one of these instead, each within `scale` (CMX).
        borders: each border moves inwards by up to this share of its side before the image is resized
            (RTFNet); then `scale` has to be 1 and the crop follows no rare class.
        brightness: RGB is multiplied by a factor from 1 - brightness to 1 + brightness.
        contrast: likewise, the distance from the mean grey.
        saturation: likewise, the distance from each pixel's grey.
        hue: greatest rotation of the hue, in full turns (0.5 reaches the complement).
        thermal_gain: the distance of thermal values from their mean is multiplied by 1 - thermal_gain to
            1 + thermal_gain. Off: with a fixed thermal range it unlearns temperatures.
        thermal_offset: greatest shift of the thermal values, which span 0 to 1. Off, likewise.
        thermal_gamma: thermal values are raised to a power from exp(-thermal_gamma) to exp(thermal_gamma).
        rare_crop: probability that a crop covers a pixel of a class drawn from those in the image, rare
            classes more often. At scales up to 1 the whole image is seen anyway.
        drop_rgb: probability that a sample's colour image is plain grey, as if its camera had failed.
        drop_thermal: likewise the thermal image; never both at once.
    """

    flip: float = 0.5
    scale: tuple[float, float] = (0.5, 1.75)
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.03
    thermal_gain: float = 0.0
    thermal_offset: float = 0.0
    thermal_gamma: float = 0.0
    rare_crop: float = 0.0
    drop_rgb: float = 0.0
    drop_thermal: float = 0.0
    scale_steps: tuple[float, ...] = ()
    borders: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "rare_crop", "drop_rgb", "drop_thermal"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augment.{name} is {getattr(self, name)}; give a probability from 0 to 1")
        if self.drop_rgb + self.drop_thermal > 1:
            both = f"augment.drop_rgb {self.drop_rgb} and augment.drop_thermal {self.drop_thermal}"
            remedy = "so give probabilities that sum to 1 at most"
            raise InputError(f"{both}: the two are never dropped at once, {remedy}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise InputError(f"augment.scale is {self.scale}; give two positive numbers, low <= high")
        if not all(self.scale[0] <= step <= self.scale[1] for step in self.scale_steps):
            raise InputError(f"augment.scale_steps is {self.scale_steps}; give scales within {self.scale}")
        if not 0 <= self.borders < 0.5:
            raise InputError(f"augment.borders is {self.borders}; give a share from 0, below 0.5")
        if self.borders and (tuple(self.scale) != (1, 1) or self.rare_crop):
            raise InputError("augment.borders goes with `augment.scale` 1,1 and `augment.rare_crop` 0")
        for name in (
            "brightness",
            "contrast",
            "saturation",
            "hue",
            "thermal_gain",
            "thermal_offset",
            "thermal_gamma",
        ):
            most = 0.5 if name == "hue" else 1
            if not 0 <= getattr(self, name) <= most:
                raise InputError(f"augment.{name} is {getattr(self, name)}; give a number from 0 to {most}")


@dataclass(frozen=True)
class Window:
    """A resize-and-crop along one axis: source edges `start` to `stop`, filled output `offset`, `length`."""

    start: float
    stop: float
    offset: int
    length: int

    @classmethod
    def draw(
        cls, source: int, size: int, scale: float, rng: np.random.Generator, focus: int | None = None
    ) -> Window:
        """Draw a window of an axis of `source` pixels, `size` at scale 1, that holds the pixel `focus`."""
        if scale >= 1:
            extent = source / scale
            least, most = 0.0, source - extent
            if focus is not None:
                most = min(most, focus)
                least = min(max(least, focus + 1 - extent), most)
            start = rng.uniform(least, most)
            return cls(start, min(start + extent, source), 0, size)
        length = min(size, max(1, round(size * scale)))
        return cls(0, source, int(rng.integers(0, size - length + 1)), length)

    @classmethod
    def inwards(cls, source: int, size: int, share: float, rng: np.random.Generator) -> Window:
        """Draw a window both ends of which move inwards by whole pixels, up to a share of the axis."""
        first, last = rng.integers(0, int(source * share) + 1, size=2)
        return cls(float(first), float(source - last), 0, size)

    @property
    def slice(self) -> slice:
        """Filled part of the output."""
        return slice(self.offset, self.offset + self.length)

    def nearest(self, source: int) -> NDArray[np.intp]:
        """Return the source pixel under the centre of each filled output pixel."""
        centres = self.start + (np.arange(self.length) + 0.5) * ((self.stop - self.start) / self.length)
        return np.clip(centres.astype(np.intp), 0, source - 1)


def augment(
    sample: Sample,
    config: AugmentConfig,
    size: tuple[int, int],
    rng: np.random.Generator,
    class_odds: NDArray[np.float64] | None = None,
) -> Sample:
    """Mirror, scale, crop or pad to `size` (H, W), and vary the colours, all at random by `rng`.

    Outside the image, colour and thermal are grey and the label is 255. `class_odds`, (K,), are the relative
    odds of each class as the focus of a crop (`rare_crop`); None: equal.
    """
    # Separate generators: switching one of these on leaves all other draws as they are.
    focus_rng, thermal_rng, drop_rng, border_rng = rng.spawn(4)
    if rng.random() < config.flip:
        sample = mirror(sample)
    scale = rng.uniform(*config.scale)
    if config.scale_steps:
        scale = config.scale_steps[int(border_rng.integers(len(config.scale_steps)))]
    focus = _draw_focus(sample.label, config.rare_crop, class_odds, focus_rng)
    height, width = sample.thermal.shape
    rows = Window.draw(height, size[0], scale, rng, focus[0])
    columns = Window.draw(width, size[1], scale, rng, focus[1])
    if config.borders:
        rows = Window.inwards(height, size[0], config.borders, border_rng)
        columns = Window.inwards(width, size[1], config.borders, border_rng)
    matrix = color_matrix((config.brightness, config.contrast, config.saturation, config.hue), rng)
    result = crop(sample, rows, columns, size)
    filled = (rows.slice, columns.slice)
    if matrix is not None:
        result.rgb[filled] = jitter(result.rgb[filled], *matrix)
    strengths = (config.thermal_gain, config.thermal_offset, config.thermal_gamma)
    if any(strengths):
        result.thermal[filled] = vary_thermal(result.thermal[filled], strengths, thermal_rng)
    draw = drop_rng.random()
    if draw < config.drop_rgb:
        result.rgb[:] = PAD_RGB
    elif draw < config.drop_rgb + config.drop_thermal:
        result.thermal[:] = PAD_THERMAL
    return result


def _draw_focus(
    label: NDArray[np.uint8] | None, chance: float, odds: NDArray[np.float64] | None, rng: np.random.Generator
) -> tuple[int, int] | tuple[None, None]:
    """Draw a class, then one of its pixels to crop around: row and column, or None twice."""
    if label is None or rng.random() >= chance:
        return None, None
    counts = np.bincount(label.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    present = (counts > 0).astype(np.float64)
    if odds is not None:
        present[: len(odds)] *= odds
        present[len(odds) :] = 0
    if not present.any():
        return None, None
    chosen = int(rng.choice(IGNORE_INDEX, p=present / present.sum()))
    place = int(np.flatnonzero(label == chosen)[rng.integers(counts[chosen])])
    return place // label.shape[1], place % label.shape[1]


def mirror(sample: Sample) -> Sample:
    """Mirror the sample left to right."""
    rgb, thermal = np.ascontiguousarray(sample.rgb[:, ::-1]), np.ascontiguousarray(sample.thermal[:, ::-1])
    label = None if sample.label is None else np.ascontiguousarray(sample.label[:, ::-1])
    return Sample(sample.name, rgb, thermal, label)


def crop(sample: Sample, rows: Window, columns: Window, size: tuple[int, int]) -> Sample:
    """Take the windows' part of the sample: bilinear for colour and thermal, nearest for the label."""
    rgb = np.full((*size, 3), PAD_RGB, dtype=np.uint8)
    thermal = np.full(size, PAD_THERMAL, dtype=np.float32)
    filled, length = (rows.slice, columns.slice), (rows.length, columns.length)
    box = (columns.start, rows.start, columns.stop, rows.stop)
    rgb[filled] = _resize(sample.rgb, length, box)
    thermal[filled] = _resize(sample.thermal, length, box)
    label = None
    if sample.label is not None:
        height, width = sample.label.shape
        label = np.full(size, IGNORE_INDEX, dtype=np.uint8)
        label[filled] = sample.label[rows.nearest(height)][:, columns.nearest(width)]
    return Sample(sample.name, rgb, thermal, label)


def resize_sample(sample: Sample, size: tuple[int, int] | None) -> Sample:
    """Resize colour and thermal to `size` (H, W); the label keeps its size, by which scores are taken."""
    if size is None or sample.thermal.shape == tuple(size):
        return sample
    height, width = sample.thermal.shape
    box = (0.0, 0.0, float(width), float(height))
    return replace(sample, rgb=_resize(sample.rgb, size, box), thermal=_resize(sample.thermal, size, box))


def _resize(array: NDArray[Any], size: tuple[int, int], box: Box) -> NDArray[Any]:
    """Bilinear (antialiased when shrinking) from `box` to `size` (H, W)."""
    image = Image.fromarray(array)
    return np.array(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box))
