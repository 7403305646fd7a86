"""What goes wrong with the thermal camera.

Every function takes an image (H, W) with values in [0, 1], the parameter of a severity (`suite`), and the
generator of all randomness, and returns a new image; values beyond [0, 1] are cut off afterwards. Values are
shares of the range that the camera maps to its file: with a range of 20 K, 0.05 is 1 K. There is no public
suite for thermal images to take parameters from; these are ours, lengths in pixels of 480 rows.
"""

from __future__ import annotations

import math

import numpy as np

from efnet.evaluation.corruptions.fields import Array, convolve, gaussian, pixels


def thermal_noise(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    """A detector that is not sensitive enough for the range, or a warm lens: white noise.

    Args:
        image: see above.
        sigma: deviation.
        rng: see above.
    """
    return image + np.float32(sigma) * rng.standard_normal(image.shape, dtype=np.float32)


def thermal_stripes(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Fixed-pattern noise: every column, and half as strongly every row, has an offset of its own.

    Args:
        image: see above.
        sigma: deviation of the columns.
        rng: see above.
    """
    columns: Array = rng.standard_normal((1, image.shape[1]), dtype=np.float32)
    rows: Array = rng.standard_normal((image.shape[0], 1), dtype=np.float32)
    return image + (sigma * (columns + rows / 2)).astype(np.float32)


def thermal_blur(image: Array, sigma: float, _: np.random.Generator) -> Array:
    """A lens out of focus, or one that the cold has shrunk: Gaussian, as wide apertures at long waves are.

    Args:
        image: see above.
        sigma: in pixels of 480.
    """
    return convolve(image, gaussian(pixels(sigma, image)))


def thermal_drift(image: Array, amplitude: float, rng: np.random.Generator) -> Array:
    """The housing warms up and the shutter has not corrected for it yet: offset, slope, a glow at the edges.

    Half of it is the same everywhere, a quarter rises across the image in some direction, a quarter towards
    the corners; all of one sign.

    Args:
        image: see above.
        amplitude: of the error where it is greatest.
        rng: of sign and direction.
    """
    height, width = image.shape
    sign, angle = rng.choice((-1.0, 1.0)), rng.uniform(0, 2 * math.pi)
    x = (2 * np.arange(width)[None, :] + 1) / width - 1
    y = (2 * np.arange(height)[:, None] + 1) / height - 1
    slope = (x * math.cos(angle) + y * math.sin(angle)) / (abs(math.cos(angle)) + abs(math.sin(angle)))
    shape = 0.5 + 0.25 * (slope + 1) / 2 + 0.25 * (x**2 + y**2) / 2
    error: Array = (amplitude * sign * shape).astype(np.float32)
    return image + error


def dead_lines(image: Array, share: float, rng: np.random.Generator) -> Array:
    """Amplifiers or bonds have failed: whole rows and columns give the bottom or the top of the range.

    A line that is dead at one severity is dead at the next.

    Args:
        image: see above.
        share: of the rows and of the columns; at least one of each.
        rng: which lines, and their values.
    """
    result = image.copy()
    for axis in (0, 1):
        length = image.shape[axis]
        dead = rng.permutation(length)[: max(1, round(share * length))]
        values: Array = rng.integers(0, 2, (length, 1)).astype(np.float32)
        lines = result if axis == 0 else result.T
        lines[dead] = values[dead]
    return result


def dead_pixels(image: Array, share: float, rng: np.random.Generator) -> Array:
    """Detector elements have failed and are on no list: single pixels at the bottom or top of the range.

    A pixel that is dead at one severity is dead at the next.

    Args:
        image: see above.
        share: of the pixels, on average.
        rng: which pixels, and their values.
    """
    order, values = rng.random(image.shape), rng.integers(0, 2, image.shape)
    return np.where(order < share, values.astype(np.float32), image)


def thermal_contrast(image: Array, kept: float, _: np.random.Generator) -> Array:
    """Rain, or a hot object in view: the scene spans little of the range, and of an 8-bit file's steps.

    Args:
        image: see above.
        kept: share of the distances from the mean that is left.
    """
    narrow = image.mean() + np.float32(kept) * (image - image.mean())
    steps: Array = np.rint(narrow * 255) / np.float32(255)
    return steps


def thermal_steps(image: Array, bits: float, _: np.random.Generator) -> Array:
    """A file or a link that keeps the upper bits of eight alone: smooth slopes become terraces.

    Args:
        image: see above.
        bits: that are kept, at most 8.
    """
    dropped = 8 - round(bits)
    steps = np.rint(image * 255).astype(np.uint8) >> dropped << dropped
    return steps.astype(np.float32) / np.float32(255)


def thermal_crossover(image: Array, contrast: float, _: np.random.Generator) -> Array:
    """Around dawn and dusk warm and cold change places: the image goes flat, then turns into its negative.

    Distances from the median are multiplied, in all of the image alike; of real things each has its own hour.

    Args:
        image: see above.
        contrast: below 1; at 0 the image is flat, at -1 a negative.
    """
    median = np.float32(np.median(image))
    return median + np.float32(contrast) * (image - median)
