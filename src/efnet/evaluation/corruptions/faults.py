"""The faults of cameras, and of how two cameras lie on each other, as functions of an image.

Every function takes an image with values in [0, 1] (colour (H, W, 3) or thermal (H, W)), the parameter of a
severity (`suite`), and the generator of all randomness, and returns a new image; `suite` cuts off values
beyond [0, 1] afterwards. Lengths are pixels of 480 rows. Colour faults that say so are those of ImageNet-C
(Hendrycks & Dietterich 2019, arXiv 1903.12261), with its parameters. Thermal values are shares of the range
that the camera maps to its file: with a range of 20 K, 0.05 is 1 K. There is no public suite for thermal
images, so their parameters are ours. Labels are drawn on the colour image, so between the cameras it is the
thermal image that moves.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from efnet.alignment.homography import warp_matrix
from efnet.data.augment import PAD_RGB, PAD_THERMAL
from efnet.evaluation.corruptions import fields
from efnet.evaluation.corruptions.fields import Array, from_light, pixels, to_light

FULL_WELL = 2000.0  # electrons that a white pixel of the dark camera holds: a small sensor at high gain

READ_NOISE = 5.0  # deviation of its amplifier, in electrons

GLARE_RADIUS = 60.0  # pixels of 480 at which the halo of a lamp has half the brightness of its centre

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)


def gaussian_noise(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Add noise of the amplifier to the stored values; `sigma` of the range. As in ImageNet-C."""
    return image + np.float32(sigma) * rng.standard_normal(image.shape, dtype=np.float32)


def shot_noise(image: Array, photons: float, rng: np.random.Generator) -> Array:
    """Draw Poisson counts of the stored values; a white pixel has `photons`. As in ImageNet-C."""
    return (rng.poisson(image.astype(np.float64) * photons) / photons).astype(np.float32)


def defocus_blur(image: Array, radius: float, _: np.random.Generator) -> Array:
    """Blur with a disk of `radius`, in light, so that lamps grow and do not fade: a lens out of focus.

    The kind and the radii of ImageNet-C, without the smoothing that it adds to the disk.
    """
    return from_light(fields.convolve(to_light(image), fields.disk(pixels(radius, image))))


def motion_blur(image: Array, length: float, rng: np.random.Generator) -> Array:
    """Blur along a line of `length`, in light, up to 45 degrees off the horizontal; the lengths are ours."""
    angle = rng.uniform(-math.pi / 4, math.pi / 4)
    return from_light(fields.convolve(to_light(image), fields.line(pixels(length, image), angle)))


def darkness(image: Array, stops: float, rng: np.random.Generator) -> Array:
    """Halve the light `stops` times over the same noise: ours; ImageNet-C's darkening can be undone."""
    electrons = FULL_WELL * to_light(image).astype(np.float64) * 2.0**-stops
    counted = rng.poisson(electrons) + READ_NOISE * rng.standard_normal(image.shape)
    return from_light((counted / FULL_WELL).astype(np.float32))


def glare(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Add light scattered in the lens around a lamp in the upper half, `strength` in units of white there.

    Ours. The halo falls with the square of the distance, as the veiling glare of lenses and eyes does
    (CIE 146:2002).
    """
    height, width = image.shape[:2]
    x, y = rng.uniform(0, width), rng.uniform(0, height / 2)
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width)[None, :] + 0.5
    squared = ((rows - y) ** 2 + (columns - x) ** 2) / pixels(GLARE_RADIUS, image) ** 2
    return from_light(to_light(image) + (strength / (1 + squared)).astype(np.float32)[..., None])


def fog(image: Array, depth: float, rng: np.random.Generator) -> Array:
    """Mix the light with that of a fog of mean optical `depth`: J t + A (1 - t), t = exp(-depth).

    Koschmieder's law. The distance of things is not known, so the fog is a curtain before all of them, its
    patches 0.6 to 1.4 times as deep; its light A is the scene's (95th percentile): at night it does not
    shine. ImageNet-C adds a bright field instead.
    """
    light = to_light(image)
    airlight = np.float32(np.percentile(light @ _LUMINANCE, 95))
    patches = 0.6 + 0.8 * fields.clouds((image.shape[0], image.shape[1]), rng)
    passed = np.exp(-np.float32(depth) * patches)[..., None]
    return from_light(light * passed + airlight * (1 - passed))


def overexposure(image: Array, stops: float, _: np.random.Generator) -> Array:
    """Double the light `stops` times: bright things turn white (ours; ImageNet-C ignores light)."""
    return from_light(to_light(image) * np.float32(2.0**stops))


def jpeg(image: Array, quality: float, _: np.random.Generator) -> Array:
    """Encode at a `quality` of 1 to 95: a link too narrow for the video. As in ImageNet-C."""
    stream = io.BytesIO()
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(stream, "JPEG", quality=round(quality))
    with Image.open(stream) as decoded:
        return np.asarray(decoded, dtype=np.float32) / np.float32(255)


def thermal_noise(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Add white noise of deviation `sigma`: a detector too insensitive for the range, or a warm lens."""
    return image + np.float32(sigma) * rng.standard_normal(image.shape, dtype=np.float32)


def thermal_stripes(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Add an offset of deviation `sigma` to every column, and half of that to every row: fixed patterns."""
    columns: Array = rng.standard_normal((1, image.shape[1]), dtype=np.float32)
    rows: Array = rng.standard_normal((image.shape[0], 1), dtype=np.float32)
    return image + (sigma * (columns + rows / 2)).astype(np.float32)


def thermal_blur(image: Array, sigma: float, _: np.random.Generator) -> Array:
    """Blur with a Gaussian of `sigma`: a lens out of focus, as wide apertures at long waves soon are."""
    return fields.convolve(image, fields.gaussian(pixels(sigma, image)))


def thermal_drift(image: Array, amplitude: float, rng: np.random.Generator) -> Array:
    """Add an error of one sign that is `amplitude` at most: the housing warms up before the shutter corrects.

    Half of it is the same everywhere, a quarter rises across the image in some direction, a quarter towards
    the corners.
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
    """Set a `share` of the rows and columns, one at least, to the bottom or the top of the range.

    Amplifiers or bonds have failed. A line that is dead at one severity is dead at the next.
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
    """Set a `share` of the pixels, on average, to the bottom or the top of the range.

    Detector elements have failed. A pixel that is dead at one severity is dead at the next.
    """
    order, values = rng.random(image.shape), rng.integers(0, 2, image.shape)
    return np.where(order < share, values.astype(np.float32), image)


def thermal_contrast(image: Array, kept: float, _: np.random.Generator) -> Array:
    """Leave a share `kept` of the distances from the mean, in 8-bit steps, as rain or a hot object does."""
    narrow = image.mean() + np.float32(kept) * (image - image.mean())
    steps: Array = np.rint(narrow * 255) / np.float32(255)
    return steps


def thermal_steps(image: Array, bits: float, _: np.random.Generator) -> Array:
    """Keep the upper `bits` of eight, as a narrow link does: smooth slopes become terraces."""
    dropped = 8 - round(bits)
    steps = np.rint(image * 255).astype(np.uint8) >> dropped << dropped
    return steps.astype(np.float32) / np.float32(255)


def thermal_crossover(image: Array, contrast: float, _: np.random.Generator) -> Array:
    """Multiply the distances from the median by `contrast`: 0 makes the image flat, -1 its negative.

    Around dawn and dusk warm and cold change places; real things do so at different hours.
    """
    median = np.float32(np.median(image))
    return median + np.float32(contrast) * (image - median)


def shift(image: Array, length: float, rng: np.random.Generator) -> Array:
    """Move the thermal image by `length` in any direction, its border repeated: a mount was knocked."""
    angle = rng.uniform(0, 2 * math.pi)
    way = pixels(length, image)
    matrix = np.array([[1, 0, way * math.cos(angle)], [0, 1, way * math.sin(angle)], [0, 0, 1]])
    return warp_matrix(image, matrix, (image.shape[0], image.shape[1]))


def rotation(image: Array, degrees: float, rng: np.random.Generator) -> Array:
    """Turn the thermal image about its centre, either way, by `degrees`: a mount that has turned."""
    angle = math.radians(degrees) * rng.choice((-1.0, 1.0))
    cosine, sine = math.cos(angle), math.sin(angle)
    y, x = (image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2
    rows = [[cosine, -sine, x - cosine * x + sine * y], [sine, cosine, y - sine * x - cosine * y], [0, 0, 1]]
    matrix = np.array(rows)
    return warp_matrix(image, matrix, (image.shape[0], image.shape[1]))


def missing_rgb(image: Array, _: float, __: np.random.Generator) -> Array:
    """Replace the colour image with the grey that prediction without a colour camera uses."""
    grey = np.asarray(PAD_RGB, dtype=np.float32) / np.float32(255)
    return np.array(np.broadcast_to(grey, image.shape))


def missing_thermal(image: Array, _: float, __: np.random.Generator) -> Array:
    """Replace the thermal image with the grey that prediction without a thermal camera uses."""
    return np.full_like(image, PAD_THERMAL)
