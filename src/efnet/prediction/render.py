"""Pictures of a label map: the map itself as an indexed PNG, in class colours, and laid over the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.classes import ClassSet
from efnet.errors import InputError


def index_image(index: NDArray[np.integer[Any]], classes: ClassSet) -> Image.Image:
    """A palette image whose pixel values are the class indices.

    Viewers show it in class colours, and readers that know palettes get the indices back unchanged.

    Args:
        index: label map (H, W), values below 256.
        classes: gives the palette.
    """
    image = Image.fromarray(np.ascontiguousarray(index, dtype=np.uint8))
    image.putpalette(classes.flat_palette())
    return image


def color_image(index: NDArray[np.uint8], classes: ClassSet) -> Image.Image:
    """The label map (H, W) in its class colours, as an RGB image."""
    return Image.fromarray(classes.colorize(index))


def overlay_image(
    rgb: NDArray[np.uint8], index: NDArray[np.uint8], classes: ClassSet, opacity: float = 0.5
) -> Image.Image:
    """Lay the class colours over the image.

    A class whose colour is black (the unlabeled or background class of every supported data set) is
    left untinted: veiling most of the picture in black would hide what the picture is for.

    Args:
        rgb: image (H, W, 3).
        index: label map (H, W).
        classes: gives the colours.
        opacity: weight of the class colour, 0 (image alone) to 1 (colour alone).

    Raises:
        InputError: the sizes differ, or the opacity lies outside 0..1.
    """
    if not 0.0 <= opacity <= 1.0:
        raise InputError(f"opacity {opacity} is not between 0 and 1")
    if rgb.shape != (*index.shape, 3):
        raise InputError(
            f"the image is {_size(rgb)} but the prediction {_size(index)} (width x height); "
            "pass the image that was predicted"
        )
    # A 256-entry table in fixed point: one lookup and one integer blend, no float image in between.
    weight = np.full(256, round(opacity * 256), dtype=np.uint16)
    for value, color in enumerate(classes.palette):
        if color == (0, 0, 0):
            weight[value] = 0
    share = weight[index][..., None]
    blended = (rgb * (256 - share) + classes.colorize(index) * share + 128) >> 8
    return Image.fromarray(blended.astype(np.uint8))


def thermal_pixels(thermal: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The scaled thermal image (H, W), values in [0, 1], as grey pixels (H, W, 3)."""
    grey = np.rint(np.clip(thermal, 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
