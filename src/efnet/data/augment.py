"""Augmentation of a sample: geometry alike on colour, thermal and label; photometry on colour.

Thermal values are temperatures, not exposures: varying them changes what they say. So that is off unless
asked for: it suits cameras that set their gain by the scene.

Photometry of augmentation: colours of the RGB image, gain and offset of the thermal one.
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


def color_matrix(
    strengths: tuple[float, float, float, float], rng: np.random.Generator
) -> tuple[NDArray[np.float64], float] | None:
    """Brightness, saturation and hue as one matrix (3, 3), and the contrast factor; None: all are off.

    All four are drawn whatever their strength, so that changing one leaves the others' draws alone.

    Args:
        strengths: of brightness, contrast, saturation and hue, as in `AugmentConfig`.
        rng: of the draws.
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
    rows = [(*(contrast * row), offset) for row in matrix]
    return np.asarray(
        Image.fromarray(rgb).convert("RGB", matrix=tuple(value for row in rows for value in row))
    )


def vary_thermal(
    thermal: NDArray[np.float32], strengths: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Spread a thermal image (H, W) about its mean and shift it, within [0, 1].

    Args:
        thermal: in [0, 1].
        strengths: of gain and offset, as in `AugmentConfig`.
        rng: of the two draws.
    """
    gain, offset = rng.uniform(-1, 1, size=2) * strengths
    mean = float(thermal.mean())
    # mean + (1 + gain) * (thermal - mean) + offset, as one product and one sum.
    varied: NDArray[np.float32] = thermal * np.float32(1 + gain) + np.float32(offset - gain * mean)
    return varied.clip(0, 1)


PAD_RGB = (124, 116, 104)
PAD_THERMAL = 0.45
"""What lies outside the image: about the mean that networks subtract, so that it carries no signal."""


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
        thermal_gain: thermal values' distance from their mean is multiplied by 1 - thermal_gain to
            1 + thermal_gain. Off: with a fixed thermal range it unlearns temperatures.
        thermal_offset: greatest shift of the thermal values, which span 0 to 1. Off, likewise.
        rare_crop: probability that a crop is laid over a pixel of a class drawn from those in the image, the
            rarer in the training split the likelier. At scales up to 1 the whole image is seen anyway.
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
    rare_crop: float = 0.0
    drop_rgb: float = 0.0
    drop_thermal: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "rare_crop", "drop_rgb", "drop_thermal"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augment.{name} is {getattr(self, name)}; give a probability from 0 to 1")
        if self.drop_rgb + self.drop_thermal > 1:
            raise InputError(
                f"augment.drop_rgb {self.drop_rgb} and augment.drop_thermal {self.drop_thermal}: the two are "
                "never dropped at once, so give probabilities that sum to 1 at most"
            )
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise InputError(f"augment.scale is {self.scale}; give two positive numbers, low <= high")
        for name in ("brightness", "contrast", "saturation", "thermal_gain", "thermal_offset"):
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
    def draw(
        cls, source: int, size: int, scale: float, rng: np.random.Generator, focus: int | None = None
    ) -> Window:
        """A random window for an axis of `source` pixels that becomes `size` pixels at scale 1.

        With `focus`, one of those that hold this source pixel.
        """
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

    @property
    def slice(self) -> slice:
        """The filled part of the output."""
        return slice(self.offset, self.offset + self.length)

    def nearest(self, source: int) -> NDArray[np.intp]:
        """The source pixel under the centre of each filled output pixel."""
        centres = self.start + (np.arange(self.length) + 0.5) * ((self.stop - self.start) / self.length)
        return np.clip(centres.astype(np.intp), 0, source - 1)


def augment(
    sample: Sample,
    config: AugmentConfig,
    size: tuple[int, int],
    rng: np.random.Generator,
    class_odds: NDArray[np.float64] | None = None,
) -> Sample:
    """Mirror, scale, crop or pad to `size`, and vary the colours.

    Args:
        sample: as read, at any size.
        config: how strongly.
        size: (H, W) of the result.
        rng: all randomness; the same state gives the same result.
        class_odds: (K,) how likely a class is the focus of a crop (`rare_crop`), in any unit; None: all
            alike.

    Returns:
        a sample of size `size`; where the image does not reach, colour and thermal are grey and the
        label is 255.
    """
    # Generators of their own: switching one of these on leaves all other draws as they are.
    focus_rng, thermal_rng, drop_rng = rng.spawn(3)
    if rng.random() < config.flip:
        sample = mirror(sample)
    scale = rng.uniform(*config.scale)
    focus = _draw_focus(sample.label, config.rare_crop, class_odds, focus_rng)
    height, width = sample.thermal.shape
    rows = Window.draw(height, size[0], scale, rng, focus[0])
    columns = Window.draw(width, size[1], scale, rng, focus[1])
    matrix = color_matrix((config.brightness, config.contrast, config.saturation, config.hue), rng)
    result = crop(sample, rows, columns, size)
    filled = (rows.slice, columns.slice)
    if matrix is not None:
        result.rgb[filled] = jitter(result.rgb[filled], *matrix)
    if config.thermal_gain or config.thermal_offset:
        strengths = (config.thermal_gain, config.thermal_offset)
        result.thermal[filled] = vary_thermal(result.thermal[filled], strengths, thermal_rng)
    _drop_modality(result, config, drop_rng)
    return result


def _draw_focus(
    label: NDArray[np.uint8] | None,
    probability: float,
    odds: NDArray[np.float64] | None,
    rng: np.random.Generator,
) -> tuple[int, int] | tuple[None, None]:
    """Row and column of a pixel to crop around, its class drawn first; none, by chance or for want of one."""
    if label is None or rng.random() >= probability:
        return None, None
    counts = np.bincount(label.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    present = (counts > 0).astype(np.float64)
    if odds is not None:
        present[: len(odds)] *= odds
        present[len(odds) :] = 0
    if not present.any():
        return None, None
    chosen = int(rng.choice(IGNORE_INDEX, p=present / present.sum()))
    place = np.flatnonzero(label == chosen)[rng.integers(counts[chosen])]
    row, column = divmod(int(place), label.shape[1])
    return row, column


def _drop_modality(sample: Sample, config: AugmentConfig, rng: np.random.Generator) -> None:
    """Make one image plain grey, in place, by chance."""
    draw = rng.random()
    if draw < config.drop_rgb:
        sample.rgb[:] = PAD_RGB
    elif draw < config.drop_rgb + config.drop_thermal:
        sample.thermal[:] = PAD_THERMAL


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
