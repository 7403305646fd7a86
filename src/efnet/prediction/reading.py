"""Which images of a pair a predictor reads, by what its model looks at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from efnet.data.images import ThermalScale
from efnet.errors import InputError
from efnet.models.config import Modality
from efnet.prediction.arrays import ImageLike, as_rgb, as_rgbt, as_thermal, has_four_channels

Images = tuple[NDArray[np.uint8] | None, NDArray[np.float32] | None]
"""Colour uint8 (H, W, 3) and thermal float32 (h, w) in [0, 1]; None for one that is not looked at."""


def read_pair(
    rgb: ImageLike | None, thermal: ImageLike | None, modality: Modality, scale: ThermalScale
) -> Images:
    """The images that a model uses, as arrays; an image it does not use is not even read.

    Raises:
        InputError: one is missing, or what `as_rgb` and `as_thermal` refuse.
    """
    if modality == "thermal":
        if thermal is None and rgb is not None and has_four_channels(rgb):
            return None, as_rgbt(rgb, scale)[1]
        if thermal is None:
            raise InputError("the thermal image is missing, and this model segments thermal images")
        return None, as_thermal(thermal, scale)
    if rgb is None:
        raise InputError("the RGB image is missing, and this model needs it")
    if modality == "rgb":
        return as_rgb(rgb), None
    if thermal is None:
        return as_rgbt(rgb, scale)
    return as_rgb(rgb), as_thermal(thermal, scale)


def read_given(rgb: ImageLike | None, thermal: ImageLike | None, scale: ThermalScale) -> Images:
    """Those images of an RGB-thermal model that are there, where one of them is known to be missing.

    Raises:
        InputError: both are missing, or what `as_rgb` and `as_thermal` refuse.
    """
    if rgb is None and thermal is None:
        raise InputError("both images are missing")
    return (
        None if rgb is None else as_rgb(rgb),
        None if thermal is None else as_thermal(thermal, scale),
    )
