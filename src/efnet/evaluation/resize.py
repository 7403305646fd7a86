"""Nearest-pixel resizing of label maps."""

from __future__ import annotations

import numpy as np

from efnet.evaluation.confusion import LabelMap


def resize_nearest(values: LabelMap, size: tuple[int, int]) -> LabelMap:
    """Bring a label map (H, W) to `size`, each pixel taking the value under its centre.

    Pixel i of n looks at source pixel floor((i + 1/2) * N / n): the grid of bilinear resizing with
    `align_corners=False`, so that labels and resized logits lie on each other. Computed in whole
    numbers, so exact at any size. The same map comes back where nothing is to do.
    """
    height, width = values.shape
    if (height, width) == size:
        return values
    rows, columns = _centres(height, size[0]), _centres(width, size[1])
    resized: LabelMap = values[rows[:, None], columns[None, :]]
    return resized


def _centres(old: int, new: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return ((2 * np.arange(new) + 1) * old) // (2 * new)
