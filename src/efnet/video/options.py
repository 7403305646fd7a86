"""What a video run is asked for, and what became of it.

The picture that a video shows for a prediction.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError, one_of
from efnet.inference.missing_cameras import NOT_GIVEN, Camera
from efnet.inference.postprocess import Prediction, thermal_pixels
from efnet.inference.preprocess import Prepared, resize_thermal
from efnet.video.source import Clock

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


@dataclass(frozen=True)
class VideoOptions:
    """How videos are matched, smoothed and drawn.

    Attributes:
        style: what the video shows.
        opacity: of the class colours in the overlay, 0..1.
        smooth: weight of the past in the exponential mean of probabilities, 0 (no past) to below 1.
        offset: seconds added to thermal times.
        max_gap: greatest time difference of a pair in seconds; None: one thermal frame's duration.
        clock: see `efnet.video.source.Clock`.
        maps: folder for an index PNG of each frame (`000000.png`, ...); None: none.
        batch_size: frames in one pass of the network.

    Raises:
        InputError: a number out of its range.
    """

    style: VideoStyle = "overlay"
    opacity: float = 0.5
    smooth: float = 0.0
    offset: float = 0.0
    max_gap: float | None = None
    clock: Clock = "start"
    maps: Path | None = None
    batch_size: int = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.smooth < 1.0:
            raise InputError(f"--smooth {self.smooth}: give a number from 0 to below 1")
        if self.max_gap is not None and self.max_gap < 0:
            raise InputError(f"--max-gap {self.max_gap}: give seconds, 0 or more")
        if self.batch_size < 1:
            raise InputError(f"--batch-size {self.batch_size} is below 1")


@dataclass
class VideoSummary:
    """What became of a video.

    Attributes:
        frames: written.
        seconds: taken.
        missing: per camera, how many frames it showed nothing in, by reason.
        dropped: frames of live sources that the network was too slow for.
        damaged: packets that could not be decoded.
        interrupted: by Ctrl-C; the file is whole up to there.
    """

    frames: int = 0
    seconds: float = 0.0
    missing: dict[Camera, Counter[str]] = field(default_factory=dict)
    dropped: int = 0
    damaged: int = 0
    interrupted: bool = False

    def count(self, missing: dict[Camera, str]) -> list[Camera]:
        """Add a frame that cameras are missing in, and why; returns those that never were before."""
        self.frames += 1
        new = [
            camera for camera, reason in missing.items() if camera not in self.missing and reason != NOT_GIVEN
        ]
        for camera, reason in missing.items():
            self.missing.setdefault(camera, Counter())[reason.split(" (")[0]] += 1
        return new
