"""A camera that goes on sending one and the same picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.prediction.modality import Camera

FREEZE_SECONDS = 2.0
"""How long a picture stands still before it counts as frozen: thermal shutters take less than a second."""

STILL_STEPS = 0.5
"""Greatest mean difference of a still picture, in steps of 255 of its range; sensor noise alone is more."""

MOVED_STEPS = 2.0
"""Least mean difference of the other camera's picture meanwhile; else the scene itself may stand still."""

_EVERY = 4


class FrozenWatch:
    """Tells which of two cameras is frozen, from pictures that come in the order of their times."""

    def __init__(self) -> None:
        self._anchors: dict[Camera, tuple[float, dict[Camera, NDArray[np.float32]]]] = {}

    def update(self, time: float, images: dict[Camera, NDArray[Any]]) -> set[Camera]:
        """The cameras that are frozen at `time`.

        Args:
            time: in seconds.
            images: colour uint8 (H, W, 3), raw thermal (H, W); one camera alone is never called frozen.
        """
        if len(images) < 2:
            self._anchors.clear()
            return set()
        now = {camera: _sketch(image) for camera, image in images.items()}
        frozen: set[Camera] = set()
        for camera in now:
            other: Camera = "thermal" if camera == "rgb" else "rgb"
            since, first = self._anchors.get(camera, (time, now))
            if _difference(first[camera], now[camera]) > STILL_STEPS:
                since, first = time, now
            self._anchors[camera] = (since, first)
            moved = _difference(first[other], now[other]) > MOVED_STEPS
            if time - since >= FREEZE_SECONDS and moved:
                frozen.add(camera)
        return frozen


def _sketch(image: NDArray[Any]) -> NDArray[np.float32]:
    """Every fourth pixel of every fourth row, one channel, in steps of 255 of 8 bits or of its own range."""
    small = image[::_EVERY, ::_EVERY]
    if small.ndim == 3:
        small = small[..., 1]
    small = small.astype(np.float32)
    if image.dtype != np.uint8:
        low, high = np.percentile(small, (1, 99))
        small = small * np.float32(255 / max(float(high - low), 1.0))
    return small


def _difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean absolute difference; endless where the sizes differ."""
    return float(np.abs(one - other).mean()) if one.shape == other.shape else float("inf")
