"""The picture that a video shows for a prediction."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from efnet.errors import one_of
from efnet.prediction.arrays import Prepared, resize_thermal
from efnet.prediction.render import thermal_pixels
from efnet.prediction.result import Prediction

VideoStyle = Literal["overlay", "map", "side-by-side"]
"""Class colours over the image; class colours alone; or image, thermal as the network saw it, and overlay."""


def check_style(style: str) -> VideoStyle:
    """The style of that name.

    Raises:
        InputError: there is none.
    """
    known: tuple[VideoStyle, ...] = get_args(VideoStyle)
    return one_of(style, known, f"--video-style {style} is unknown; choose")


def compose(
    prediction: Prediction, prepared: Prepared, style: VideoStyle, opacity: float
) -> NDArray[np.uint8]:
    """Draw a prediction, uint8 (H, W, 3), or (H, 2W or 3W, 3) side by side.

    Args:
        prediction: of `prepared`.
        prepared: gives the images.
        style: see `VideoStyle`.
        opacity: of the class colours in the overlay.
    """
    if style == "map":
        return prediction.classes.colorize(prediction.index)
    overlay = np.asarray(prediction.overlay(prepared.original, opacity))
    if style == "overlay":
        return overlay
    panels = [prepared.original, overlay]
    if prepared.rgb is not None and prepared.thermal is not None:
        panels.insert(1, thermal_pixels(resize_thermal(prepared.thermal, prepared.size)))
    return np.concatenate(panels, axis=1)
