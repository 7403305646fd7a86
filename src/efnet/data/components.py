"""Connected areas of equal values in a map, and the outline of an area."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Area:
    """Pixels of one value that share edges."""

    value: int  # of the map
    top: int  # row of the mask's first row in the map
    left: int  # column of the mask's first column
    mask: Mask  # (h, w) of its bounding box

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return int(self.mask.sum())

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the mask in the map."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def areas(index: NDArray[np.integer[Any]]) -> Iterator[Area]:
    """Yield the areas of a map (H, W), in the order of their first pixels; pixels join at edges."""
    height, width = index.shape
    begins = np.ones((height, width), dtype=np.bool_)
    begins[:, 1:] = index[:, 1:] != index[:, :-1]
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, height * width))
    run = (np.cumsum(begins.ravel()) - 1).reshape(height, width)
    touching = index[1:] == index[:-1]
    links = np.unique(run[:-1][touching] * len(starts) + run[1:][touching])
    label = _joined(len(starts), *np.divmod(links, len(starts)))
    order = np.argsort(label, kind="stable")
    borders = np.flatnonzero(np.diff(label[order])) + 1
    for runs in np.split(order, borders):
        rows, columns = np.divmod(starts[runs], width)
        ends = columns + lengths[runs]
        top, left = int(rows.min()), int(columns.min())
        mask = np.zeros((int(rows.max()) + 1 - top, int(ends.max()) - left), dtype=np.bool_)
        for row, first, last in zip(rows - top, columns - left, ends - left, strict=True):
            mask[row, first:last] = True
        yield Area(int(index.flat[starts[runs[0]]]), top, left, mask)


def _joined(count: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each of `count` nodes the least node that links join it to."""
    least = np.arange(count)
    while (least[one] != least[other]).any():
        low = np.minimum(least[one], least[other])
        np.minimum.at(least, least[one], low)
        np.minimum.at(least, least[other], low)
        while not np.array_equal(least, least[least]):
            least = least[least]
    return least


def outline(mask: Mask) -> tuple[Points, bool]:
    """Return the outer border of one area (h, w), corners (N, 2) as x and y, and whether it has holes.

    The border follows pixel edges, clockwise from the first pixel's upper left corner; pixel (0, 0) covers
    the square from (0, 0) to (1, 1).
    """
    inside = np.pad(mask, 1).tolist()
    x, y = int(mask[0].argmax()), 0
    start, corners, steps = (x, y), [(x, y)], 0
    dx, dy = 1, 0
    while True:
        x, y, steps = x + dx, y + dy, steps + 1
        if (x, y) == start:
            break
        # The area is on the right hand: pixels ahead, on the right and on the left, in padded coordinates.
        right = inside[y + (dy + dx + 1) // 2][x + (dx - dy + 1) // 2]
        left = inside[y + (dy - dx + 1) // 2][x + (dx + dy + 1) // 2]
        if right and not left:
            continue
        corners.append((x, y))
        dx, dy = (-dy, dx) if not right else (dy, -dx)
    padded = np.pad(mask, 1)
    edges = int((padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum())
    return np.asarray(corners, dtype=np.float64), edges != steps


def simplified(corners: Points, tolerance: float, fixed: Mask) -> Points:
    """Return a closed line (N, 2) with fewer corners, those left out no further than `tolerance` from it.

    Douglas and Peucker 1973. `fixed` (N,) marks corners that stay. A line that would lose its area is
    returned as it is.
    """
    if tolerance <= 0 or len(corners) < 4:
        return corners
    ring = np.concatenate([corners, corners[:1]])
    far = int(np.hypot(*(corners - corners[0]).T).argmax())
    kept = np.zeros(len(ring), dtype=np.bool_)
    kept[:-1] = fixed
    kept[[0, far, -1]] = True
    waiting = list(pairwise(np.flatnonzero(kept).tolist()))
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        distances = _distances(ring[first + 1 : last], ring[first], ring[last])
        middle = int(distances.argmax())
        if distances[middle] > tolerance:
            middle += first + 1
            kept[middle] = True
            waiting += [(first, middle), (middle, last)]
    chosen = ring[:-1][kept[:-1]]
    return chosen if len(chosen) > 2 else corners


def _distances(points: Points, start: Points, end: Points) -> NDArray[np.float64]:
    """Distances (N,) of points (N, 2) from a line segment."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    return np.asarray(np.hypot(*(points - start - share[:, None] * along).T))
