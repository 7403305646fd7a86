"""What goes wrong between the cameras: thermal images that do not lie on their colour images, absent images.

Labels are drawn on the colour image. So it is the thermal image that moves, and label and colour image stay.
"""

from __future__ import annotations

import math

import numpy as np

from efnet.alignment.homography import warp_matrix
from efnet.data.augment import PAD_RGB, PAD_THERMAL
from efnet.evaluation.corruptions.fields import Array, pixels


def shift(image: Array, length: float, rng: np.random.Generator) -> Array:
    """A mount that was knocked, or near objects before cameras side by side: thermal moves, in any direction.

    What comes in has the values of the border.

    Args:
        image: thermal (H, W) in [0, 1].
        length: in pixels of 480.
        rng: of the direction.
    """
    angle = rng.uniform(0, 2 * math.pi)
    way = pixels(length, image)
    matrix = np.array([[1, 0, way * math.cos(angle)], [0, 1, way * math.sin(angle)], [0, 0, 1]])
    return warp_matrix(image, matrix, (image.shape[0], image.shape[1]))


def rotation(image: Array, degrees: float, rng: np.random.Generator) -> Array:
    """A mount that has turned about the line of sight: thermal is turned about its centre, either way.

    Args:
        image: thermal (H, W) in [0, 1].
        degrees: of the turn.
        rng: of its sense.
    """
    angle = math.radians(degrees) * rng.choice((-1.0, 1.0))
    cosine, sine = math.cos(angle), math.sin(angle)
    y, x = (image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2
    matrix = np.array(
        [
            [cosine, -sine, x - cosine * x + sine * y],
            [sine, cosine, y - sine * x - cosine * y],
            [0, 0, 1],
        ]
    )
    return warp_matrix(image, matrix, (image.shape[0], image.shape[1]))


def missing_rgb(image: Array, _: float, __: np.random.Generator) -> Array:
    """There is no colour image (H, W, 3): the grey that `efnet predict --rgb none` puts in its place."""
    absent: Array = np.broadcast_to(
        np.asarray(PAD_RGB, dtype=np.float32) / np.float32(255), image.shape
    ).copy()
    return absent


def missing_thermal(image: Array, _: float, __: np.random.Generator) -> Array:
    """There is no thermal image (H, W): the grey that `efnet predict --thermal none` puts in its place."""
    return np.full_like(image, PAD_THERMAL)
