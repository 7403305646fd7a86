"""Annotated images as every tool's file is read: named regions in the order of drawing, and their pixels.

Coordinates are in pixels from the upper left corner of the image: pixel (0, 0) covers the square to (1, 1).
A shape holds the pixels whose centres lie inside it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_json
from efnet.data.components import Mask, Points
from efnet.data.decode import open_image

Size = tuple[int, int]  # (H, W)
Draw = Callable[[Size], Mask]
"""Returns the mask (H, W) of a region; a `ValueError` says why it has none ("has two points")."""

BACKGROUNDS = ("background", "_background_", "unlabeled", "unlabelled", "void")
"""Names of the class of everything that no region covers."""
IGNORED = ("ignore", "__ignore__", "ignored")
"""Names of regions whose pixels are ignored; the first is written."""

_FARTHEST = 10  # images: a corner further away is a mistake of the file


@dataclass(frozen=True)
class Region:
    """An area that a person or a program drew."""

    label: str
    draw: Draw


@dataclass(frozen=True)
class AnnotatedImage:
    """The regions of one image, the topmost last."""

    source: Path  # annotation file
    names: tuple[str, ...]  # of the image, in the order in which they are looked for
    size: Size | None  # that the file states
    regions: Sequence[Region]
    split: str = ""  # where the file names one


@dataclass(frozen=True)
class Annotations:
    """The content of one file or of several."""

    images: list[AnnotatedImage] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)  # that the file declares, in its order
    notes: list[str] = field(default_factory=list)  # what a user should know of the reading


def load_json(path: Path) -> Any:
    """Return the content of a JSON file; raises InputError if it cannot be read or is not JSON."""
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({error}); export the annotations again") from error


def polygon(points: Any) -> Draw:
    """Return the area inside a polygon of (x, y) points; where it crosses itself, by the even-odd rule."""
    return lambda size: fill(as_points(points, size, 3), size)


def as_points(values: Any, size: Size, least: int) -> Points:
    """Return at least `least` points (N, 2); a `ValueError` for anything else, or if one is far outside."""
    try:
        points = np.asarray(values, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise ValueError("has points that are not pairs of numbers") from None
    if len(points) < least:
        raise ValueError(f"has {len(points)} points, and needs {least}")
    limit = _FARTHEST * np.asarray([size[1], size[0]])
    if not (np.abs(points) <= limit).all():
        raise ValueError("has points far outside the image, or that are not finite")
    return points


def fill(points: Points, size: Size) -> Mask:
    """Return the mask (H, W) of a closed line (N, 2), by the even-odd rule."""
    height, width = size
    x0, y0 = points.T
    x1, y1 = np.roll(points, -1, axis=0).T
    # Rows whose centres lie between the ends of an edge.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    counts = last - first
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    crossing = x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    changes = np.zeros((height, width + 1), dtype=np.int64)
    np.add.at(changes, (row, column), 1)
    return np.asarray(np.cumsum(changes, axis=1)[:, :width] % 2 == 1)


def rectangle(
    left: float, top: float, right: float, bottom: float, degrees: float = 0, pivot: Any = None
) -> Draw:
    """Return a rectangle, turned clockwise about a point, by default its centre."""
    corners = np.asarray([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=np.float64)
    centre = corners.mean(axis=0) if pivot is None else np.asarray(pivot, dtype=np.float64)
    return polygon((corners - centre) @ _turn(degrees) + centre)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0) -> Draw:
    """Return an ellipse, turned clockwise about its centre."""

    def draw(size: Size) -> Mask:
        if not (np.isfinite([*centre, *radii, degrees]).all() and min(radii) > 0):
            raise ValueError("has a radius that is not above 0, or numbers that are not finite")
        y, x = np.mgrid[: size[0], : size[1]] + 0.5
        offset = np.stack([x - centre[0], y - centre[1]], axis=-1) @ _turn(-degrees)
        return np.asarray(((offset / radii) ** 2).sum(axis=-1) <= 1)

    return draw


def _turn(degrees: float) -> NDArray[np.float64]:
    """Matrix that turns rows (x, y) clockwise as seen in the image."""
    angle = np.deg2rad(degrees)
    return np.asarray([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def no_area(reason: str) -> Draw:
    """Return a region that has no pixels, such as a line: to draw it is an error with this reason."""

    def draw(_: Size) -> Mask:
        raise ValueError(reason)

    return draw


def read_png(content: Any, size: Size) -> NDArray[Any]:
    """Return the samples of a PNG in base64, no larger than `size` (H, W); else raise a `ValueError`."""
    try:
        png = base64.b64decode(content, validate=True)
        return open_image(png, name="its mask", formats=("PNG",), max_pixels=size[0] * size[1]).samples
    except (TypeError, binascii.Error) as error:
        raise ValueError("has a mask that is not base64") from error
    except InputError as error:
        raise ValueError(f"has a mask that cannot be read ({error})") from error


def placed(mask: Mask, left: int, top: int, size: Size) -> Mask:
    """Put a mask (h, w) into one of `size` (H, W); a `ValueError` if it reaches beyond."""
    whole = np.zeros(size, dtype=np.bool_)
    height, width = mask.shape
    if left < 0 or top < 0 or top + height > size[0] or left + width > size[1]:
        raise ValueError(f"has a mask of {width}x{height} at ({left}, {top}), which reaches beyond the image")
    whole[top : top + height, left : left + width] = mask
    return whole


def from_runs(counts: Any, size: Size) -> Mask:
    """Return the mask (H, W) of run lengths in the order of rows, the first run outside the area."""
    try:
        runs = np.asarray(counts, dtype=np.int64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("has run lengths that are not whole numbers") from None
    if (runs < 0).any() or (runs > size[0] * size[1]).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(f"has run lengths that do not add up to its {size[1]}x{size[0]} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size)


def to_runs(mask: Mask) -> list[int]:
    """Return the run lengths of a mask (h, w) in the order of rows, the first run outside the area."""
    flat = np.concatenate([[False], mask.ravel()])
    borders = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(length) for length in np.diff(np.concatenate([[0], borders, [mask.size]]))]
