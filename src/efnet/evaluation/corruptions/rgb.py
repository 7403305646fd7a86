"""What goes wrong with the colour camera.

Every function takes an image (H, W, 3) with values in [0, 1], the parameter of a severity (`suite`), and the
generator of all randomness, and returns a new image; values beyond [0, 1] are cut off afterwards. Kinds that
say so are those of ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), with its parameters;
lengths are pixels of 480 rows.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from efnet.evaluation.corruptions.fields import (
    Array,
    clouds,
    convolve,
    disk,
    from_light,
    line,
    pixels,
    to_light,
)

FULL_WELL = 2000.0
"""Electrons that a white pixel of the dark camera holds: a small sensor at high gain."""

READ_NOISE = 5.0
"""Deviation of its amplifier, in electrons."""

GLARE_RADIUS = 60.0
"""Pixels of 480 at which the halo of a lamp has half the brightness of its centre."""

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)


def gaussian_noise(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Noise of the amplifier at high gain: the same deviation at every pixel and in every channel.

    As in ImageNet-C: added to the stored values.

    Args:
        image: see above.
        sigma: deviation, of the range.
        rng: see above.
    """
    return image + np.float32(sigma) * rng.standard_normal(image.shape, dtype=np.float32)


def shot_noise(image: Array, photons: float, rng: np.random.Generator) -> Array:
    """Light comes in quanta: bright pixels are noisier than dark ones.

    As in ImageNet-C: Poisson counts of the stored values.

    Args:
        image: see above.
        photons: count of a white pixel.
        rng: see above.
    """
    return (rng.poisson(image.astype(np.float64) * photons) / photons).astype(np.float32)


def defocus_blur(image: Array, radius: float, _: np.random.Generator) -> Array:
    """A lens out of focus: every point becomes a disk, in light, so that lamps grow and do not fade.

    The kind and the radii of ImageNet-C, without the smoothing that it adds to the disk.

    Args:
        image: see above.
        radius: of the disk, in pixels of 480.
    """
    return from_light(convolve(to_light(image), disk(pixels(radius, image))))


def motion_blur(image: Array, length: float, rng: np.random.Generator) -> Array:
    """The camera turns evenly while the shutter is open: every point becomes a line, in light.

    The kind is ImageNet-C's, the lengths are ours; up to 45 degrees to the horizontal.

    Args:
        image: see above.
        length: of the line, in pixels of 480.
        rng: of the direction.
    """
    angle = rng.uniform(-math.pi / 4, math.pi / 4)
    return from_light(convolve(to_light(image), line(pixels(length, image), angle)))


def darkness(image: Array, stops: float, rng: np.random.Generator) -> Array:
    """Too little light for the longest exposure: less signal over the same noise of photons and amplifier.

    Ours: ImageNet-C only lowers the brightness, which a network can undo.

    Args:
        image: see above.
        stops: halvings of the light.
        rng: of the noise.
    """
    electrons = FULL_WELL * to_light(image).astype(np.float64) * 2.0**-stops
    counted = rng.poisson(electrons) + READ_NOISE * rng.standard_normal(image.shape)
    return from_light((counted / FULL_WELL).astype(np.float32))


def glare(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """The sun or a headlight shines into the lens: scattered light lies over the image, most around the lamp.

    Ours. The halo falls with the square of the distance, as the veiling glare of lenses and eyes does
    (CIE 146:2002). The lamp stands anywhere in the upper half.

    Args:
        image: see above.
        strength: scattered light at the lamp, in units of white.
        rng: of the place.
    """
    height, width = image.shape[:2]
    x, y = rng.uniform(0, width), rng.uniform(0, height / 2)
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width)[None, :] + 0.5
    squared = ((rows - y) ** 2 + (columns - x) ** 2) / pixels(GLARE_RADIUS, image) ** 2
    return from_light(to_light(image) + (strength / (1 + squared)).astype(np.float32)[..., None])


def fog(image: Array, depth: float, rng: np.random.Generator) -> Array:
    """Droplets take light away and scatter other light in: J t + A (1 - t), t = exp(-depth), in light.

    Koschmieder's law. The distance of things is not known, so the fog is a curtain before all of them, its
    patches 0.6 to 1.4 times as deep; its light A is the scene's (95th percentile): at night it does not
    shine. ImageNet-C adds a bright field instead.

    Args:
        image: see above.
        depth: mean optical depth.
        rng: of the patches.
    """
    light = to_light(image)
    airlight = np.float32(np.percentile(light @ _LUMINANCE, 95))
    patches = 0.6 + 0.8 * clouds((image.shape[0], image.shape[1]), rng)
    passed = np.exp(-np.float32(depth) * patches)[..., None]
    return from_light(light * passed + airlight * (1 - passed))


def overexposure(image: Array, stops: float, _: np.random.Generator) -> Array:
    """The exposure is set for the dark, as at a tunnel's end: what is bright turns white and is lost.

    Ours; ImageNet-C raises the brightness without regard to light.

    Args:
        image: see above.
        stops: doublings of the light.
    """
    return from_light(to_light(image) * np.float32(2.0**stops))


def jpeg(image: Array, quality: float, _: np.random.Generator) -> Array:
    """A link too narrow for the video: blocks, rings and lost colour. As in ImageNet-C.

    Args:
        image: see above.
        quality: of the encoder, 1 to 95.
    """
    stream = io.BytesIO()
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(stream, "JPEG", quality=round(quality))
    with Image.open(stream) as decoded:
        return np.asarray(decoded, dtype=np.float32) / np.float32(255)
