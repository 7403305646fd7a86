"""Areas of a label map as annotation tools take them: polygons or masks of its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.data.annotations.regions import BACKGROUNDS, IGNORED, Size
from efnet.data.components import Area, Points, areas, outline, simplified


@dataclass(frozen=True, eq=False)
class Exported:
    """A label map with the name that its image has in the tool."""

    file_name: str
    index: NDArray[np.uint8]  # (H, W)


@dataclass(frozen=True)
class Shapes:
    """How areas are written."""

    classes: ClassSet
    exact: bool = False  # write every area as a mask
    tolerance: float = 1.0  # how far a polygon may lie from the border of its area, in pixels
    min_pixels: int = 1  # smaller areas are left out
    labels: Mapping[int, str] = field(init=False)  # label value to the name of what is written

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 100:
            raise InputError(f"`tolerance` {self.tolerance}: give pixels from 0 (exact) to 100, such as 1")
        names = dict(enumerate(self.classes.names))
        if names[0].casefold() in BACKGROUNDS:
            del names[0]  # whatever no region covers
        if IGNORED[0] not in names.values():
            names[IGNORE_INDEX] = IGNORED[0]
        object.__setattr__(self, "labels", names)

    def areas(self, index: NDArray[np.uint8]) -> Iterator[Area]:
        """Yield the areas of a label map that are written."""
        for area in areas(index):
            if area.value in self.labels and area.pixels >= self.min_pixels:
                yield area

    def polygon(self, area: Area, size: Size) -> Points | None:
        """Return an area's polygon (N, 2) in the image of `size` (H, W); None: it is written as a mask.

        Corners on the frame of the image stay, so that polygons reach it.
        """
        if self.exact:
            return None
        corners, holes = outline(area.mask)
        if holes:
            return None
        corners = corners + np.asarray([area.left, area.top], dtype=np.float64)
        framed = (corners == 0) | (corners == np.asarray(size[::-1]))
        return simplified(corners, self.tolerance, framed.any(axis=1))
