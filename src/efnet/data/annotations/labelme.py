"""LabelMe's files: one JSON for each image, with shapes in the order in which they were drawn.

The format is that of `labelme.LabelFile` (versions 3 to 5), which X-AnyLabeling writes too.
"""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from efnet.core.errors import InputError
from efnet.data.annotations.regions import (
    AnnotatedImage,
    Annotations,
    Draw,
    Region,
    Size,
    as_points,
    ellipse,
    no_area,
    placed,
    polygon,
    read_png,
    rectangle,
)
from efnet.data.components import Mask


def is_labelme(content: Any) -> bool:
    """Whether the content of a JSON file is LabelMe's."""
    return isinstance(content, dict) and "shapes" in content and "imagePath" in content


def read_labelme(path: Path, content: Any) -> Annotations:
    """Read one image's file; raises InputError if a key is missing or of another type."""
    try:
        size = content.get("imageHeight"), content.get("imageWidth")
        regions = [Region(str(shape["label"]), _shape(shape)) for shape in content["shapes"]]
        name = PureWindowsPath(content["imagePath"]).name  # both kinds of slashes
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is not a file of LabelMe ({error!r}); save it again there") from error
    stated = (size[0], size[1]) if isinstance(size[0], int) and isinstance(size[1], int) else None
    return Annotations([AnnotatedImage(path, (name, path.stem), stated, regions)])


def _shape(shape: dict[str, Any]) -> Draw:
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    # X-AnyLabeling, which writes this format too, gives all four corners of a rectangle.
    if kind in ("polygon", "oriented_rectangle", "rotation") or (kind == "rectangle" and len(points) > 2):
        return polygon(points)
    if kind == "mask":
        return lambda size: _mask(shape, size)
    if kind in ("rectangle", "circle"):

        def draw(size: Size) -> Mask:
            (x0, y0), (x1, y1) = as_points(points, size, 2)[:2].tolist()
            if kind == "rectangle":
                return rectangle(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))(size)
            radius = float(np.hypot(x1 - x0, y1 - y0))
            return ellipse((x0, y0), (radius, radius))(size)

        return draw
    return no_area(f"is a {kind}, which has no area")


def _mask(shape: dict[str, Any], size: Size) -> Mask:
    """Mask of a PNG in base64 whose first pixel lies at the first point."""
    left, top = as_points(shape["points"], size, 2)[0].astype(int).tolist()
    samples = read_png(shape.get("mask"), size)
    if samples.ndim != 2:
        raise ValueError("has a mask with colours")
    return placed(samples > 0, left, top, size)
