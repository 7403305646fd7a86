"""Boundary IoU (Cheng et al., CVPR 2021): the IoU of the pixels near a class's outline alone.

IoU of a large object hardly changes with its outline. Boundary IoU counts only pixels of a mask within a
distance d of the mask's contour, in both maps. d is 2 % of the image's diagonal, as in the paper's code
(16 pixels at 480x640), and the distance is the chessboard one, d erosions by 3x3. The image's border counts
as contour, as there. Unlike there, sums run over the whole split, as for every other IoU of this package.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import IGNORE_INDEX
from efnet.evaluation.protocols import Protocol

DILATION = 0.02
"""Distance as a share of the image's diagonal."""


def boundary_distance(size: tuple[int, int]) -> int:
    """Return d in pixels for an image (H, W): 2 % of its diagonal, rounded, at least 1."""
    return max(1, round(DILATION * math.hypot(*size)))


def boundary_counts(
    truth: NDArray[np.integer[Any]],
    prediction: NDArray[np.integer[Any]],
    num_classes: int,
    protocol: Protocol,
) -> NDArray[np.int64]:
    """Count the boundary pixels of one pair of label maps (H, W), both with values 0..K-1 or 255.

    Returns int64 (3, K): pixels on the boundary of the class in both maps, in truth, in the prediction.
    Pixels that the protocol ignores are left out of all three; they still end a mask.
    """
    distance = boundary_distance((truth.shape[0], truth.shape[1]))
    kept = ~np.isin(truth, (*protocol.ignored_truth, IGNORE_INDEX))
    kept &= ~np.isin(prediction, protocol.ignored_prediction)
    edges = [near_contour(values, distance) & kept for values in (truth, prediction)]
    both = edges[0] & edges[1] & (truth == prediction)
    counts = [
        np.bincount(values[chosen].astype(np.int64), minlength=num_classes)
        for values, chosen in ((truth, both), (truth, edges[0]), (prediction, edges[1]))
    ]
    return np.stack(counts).astype(np.int64)


def near_contour(values: NDArray[np.integer[Any]], distance: int) -> NDArray[np.bool_]:
    """Return which pixels of a label map (H, W) have another label, or no pixel, within a distance."""
    # A window of one label is a window whose smallest and largest labels agree.
    small = large = np.pad(values, distance, constant_values=values.dtype.type(IGNORE_INDEX))
    outside = np.pad(np.zeros(values.shape, dtype=bool), distance, constant_values=True)
    for axis in (0, 1):
        small = _windowed(small, distance, axis, np.minimum)
        large = _windowed(large, distance, axis, np.maximum)
        outside = _windowed(outside, distance, axis, np.logical_or)
    near: NDArray[np.bool_] = (small != large) | outside
    return near


def _windowed(values: NDArray[Any], distance: int, axis: int, combine: np.ufunc) -> NDArray[Any]:
    """Combine 2 d + 1 neighbours along an axis, which becomes 2 d shorter; windows double in length."""
    wanted, length = 2 * distance + 1, 1
    values = np.moveaxis(values, axis, 0)
    while length < wanted:
        step = min(length, wanted - length)
        values = combine(values[:-step], values[step:])
        length += step
    return np.moveaxis(values, 0, axis)
