"""A homography from the edges of one or several pairs of one camera head, coarse to fine.

Scale, rotation and shift first, over the whole image; then each part of the image is shifted by itself, and a
homography is fitted to the parts that agree. Pairs of one head share the mapping, so their correlations add:
what one pair shows no edges of, another may.

A picture of a pair before and after its alignment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from efnet.alignment.edges import CONFIDENT, Field, Grey, correlate, edge_field, find_peak, luminance, resize
from efnet.alignment.homography import (
    Fit,
    Homography,
    Points,
    apply_matrix,
    fit_homography,
    fit_similarity,
    resize_matrix,
    warp_matrix,
)
from efnet.core.errors import InputError

SCALES = tuple(1.05**step for step in range(-10, 9))
"""Sizes of the thermal view tried, relative to one stretched onto the colour image: 0.61 to 1.48."""

ROTATIONS = tuple(math.radians(degrees) for degrees in range(-6, 7, 2))

MIN_PARTS = 8
"""Least number of image parts, of 30, that must agree; views that do not match have 0 to 2."""

HOMOGRAPHY_COVER, MIN_COVER = 0.7, 0.4
"""Least share of the image, along both axes, that these parts span. Beyond them a homography is a guess;
below the first figure a similarity is fitted, which bends nothing, below the second one nothing."""

_COARSE, _LEVELS = 160, (320, 320, 640)
_REACH = 0.25
"""Greatest shift in the first search, as a share of the longer side."""

_GRID = (5, 6)
_PART_RADIUS = 16
_PART_PEAK = 4.2

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class _View:
    """A pair in grey."""

    rgb: Grey
    thermal: Grey


def estimate_homography(
    pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]], progress: Progress | None = None
) -> Homography:
    """Estimate how thermal images map onto their colour images.

    Args:
        pairs: colour uint8 (H, W, 3) and thermal (h, w) of the same two cameras, fixed to each other.
        progress: told how far it is.

    Returns:
        the mapping; `about` has the residuals of the image parts that agree, in colour pixels.

    Raises:
        InputError: sizes differ between pairs, or the estimate is no better than chance.
    """
    if not pairs:
        raise InputError("no pair to estimate a homography from")
    rgb_size = (pairs[0][0].shape[0], pairs[0][0].shape[1])
    thermal_size = (pairs[0][1].shape[0], pairs[0][1].shape[1])
    for rgb, thermal in pairs:
        if rgb.shape[:2] != rgb_size or thermal.shape != thermal_size:
            raise InputError("the pairs differ in size; a homography holds for one pair of cameras")
    views = [_View(luminance(rgb), thermal) for rgb, thermal in pairs]
    steps = len(SCALES) * len(ROTATIONS) + len(_LEVELS)

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, steps)

    matrix, peak = _search(views, tell)
    for number, level in enumerate(_LEVELS, start=1):
        fit, model = _refine(views, matrix, min(level, max(rgb_size)))
        matrix = fit.matrix
        tell(steps - len(_LEVELS) + number)
    about = {
        "method": "edges",
        "model": model,
        "pairs": len(pairs),
        "peak": round(peak, 2),
        "parts": int(fit.inliers.sum()),
        "parts_seen": len(fit.residuals),
        "rms": round(fit.rms, 3),
        "residuals": [round(float(residual), 3) for residual in fit.residuals[fit.inliers]],
    }
    return Homography(matrix, thermal_size, rgb_size, about)


def _search(views: Sequence[_View], tell: Callable[[int], None]) -> tuple[NDArray[np.float64], float]:
    """The best scale, rotation and shift: the matrix at full size, and the height of its peak."""
    rgb_size, thermal_size = _sizes(views)
    size = _work_size(rgb_size, _COARSE)
    fixed = [edge_field(resize(view.rgb, size)) for view in views]
    best, found = -math.inf, np.eye(3)
    for number, (scale, angle) in enumerate(product(SCALES, ROTATIONS)):
        turn = _about_centre(size, scale, angle)
        matrix = turn @ resize_matrix(thermal_size, size)
        surface = sum(
            correlate(field, _warped_field(view.thermal, matrix, size))
            for field, view in zip(fixed, views, strict=True)
        )
        right, down, peak = find_peak(np.asarray(surface), round(_REACH * max(size)))
        if peak > best:
            shift = np.array([[1.0, 0.0, right], [0.0, 1.0, down], [0.0, 0.0, 1.0]])
            best, found = peak, resize_matrix(size, rgb_size) @ shift @ matrix
        tell(number + 1)
    if best < CONFIDENT:
        raise _unsure(f"the edges of the images hardly agree anywhere (peak {best:.1f}, {CONFIDENT} needed)")
    return found, best


def _refine(views: Sequence[_View], matrix: NDArray[np.float64], level: int) -> tuple[Fit, str]:
    """Shift parts of the image by themselves and fit a mapping to them; all at one resolution."""
    rgb_size, _ = _sizes(views)
    size = _work_size(rgb_size, level)
    to_level = resize_matrix(rgb_size, size)
    radius = _PART_RADIUS
    moved = to_level @ matrix
    fields = [
        (edge_field(resize(view.rgb, size)), _warped_field(view.thermal, moved, size)) for view in views
    ]
    places, shifts = [], []
    for rows, columns in _parts(size):
        surface = sum(_part_correlation(fixed, other, rows, columns, radius) for fixed, other in fields)
        right, down, peak = find_peak(np.asarray(surface), radius)
        if peak >= _PART_PEAK and max(abs(right), abs(down)) < radius:
            places.append(((columns.start + columns.stop - 1) / 2, (rows.start + rows.stop - 1) / 2))
            shifts.append((right, down))
    if len(places) < MIN_PARTS:
        raise _unsure(f"only {len(places)} parts of the image match, {MIN_PARTS} needed")
    here: Points = np.array(places, dtype=np.float64)
    tolerance = 0.008 * max(rgb_size)
    target = apply_matrix(_inverse(to_level), here + np.array(shifts, dtype=np.float64))
    source = apply_matrix(_inverse(moved), here)
    try:
        fit = fit_homography(source, target, tolerance)
    except InputError as error:
        raise _unsure("the parts of the image that match do not agree with each other") from error
    if fit.inliers.sum() < max(MIN_PARTS, len(places) / 2):
        raise _unsure(f"only {int(fit.inliers.sum())} of {len(places)} matching parts agree with each other")
    cover, axis = _cover(here[fit.inliers], size)
    if cover < MIN_COVER:
        raise _unsure(f"the parts that match span only {100 * cover:.0f} % of the {axis}")
    if cover < HOMOGRAPHY_COVER:
        fit = fit_similarity(source, target, fit.inliers)
        if fit.rms > tolerance:
            raise _unsure(f"the parts that match span only {100 * cover:.0f} % of the {axis}")
        return fit, "similarity"
    return fit, "homography"


def _cover(places: Points, size: tuple[int, int]) -> tuple[float, str]:
    """The share of the width or of the height that parts span, whichever is less, and which it is."""
    shares = []
    for axis, what in enumerate(("width", "height")):
        spans = _parts(size)
        reach = [(span[1 - axis].start + span[1 - axis].stop) / 2 for span in spans]
        shares.append((float(np.ptp(places[:, axis])) / (max(reach) - min(reach)), what))
    return min(shares)


def _unsure(reason: str) -> InputError:
    return InputError(
        f"no homography can be estimated with confidence: {reason}; give several pairs with clear edges all "
        "over the image, or mark point pairs by hand (--point)"
    )


def _part_correlation(
    fixed: Field, moving: Field, rows: slice, columns: slice, radius: int
) -> NDArray[np.float64]:
    """Correlation of one part of the colour image with what lies around it in the thermal one."""
    wide = np.pad(moving, radius)[
        rows.start : rows.stop + 2 * radius, columns.start : columns.stop + 2 * radius
    ]
    part = np.pad(fixed[rows, columns], radius)
    return correlate(part, wide)


def _parts(size: tuple[int, int]) -> list[tuple[slice, slice]]:
    """A grid of windows, each overlapping its neighbours by half."""
    spans = []
    for length, count in zip(size, _GRID, strict=True):
        window = round(2 * length / (count + 1))
        starts = np.linspace(0, length - window, count).round().astype(int)
        spans.append([slice(int(start), int(start) + window) for start in starts])
    return list(product(*spans))


def _warped_field(thermal: Grey, matrix: NDArray[np.float64], size: tuple[int, int]) -> Field:
    """Edges of a thermal image brought into the colour view; none beyond its border."""
    seen = _inside(matrix, (thermal.shape[0], thermal.shape[1]), size)
    return edge_field(warp_matrix(thermal, matrix, size), seen)


def _inside(matrix: NDArray[np.float64], source: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels of the result show the source, a margin of its border left out."""
    inverse = _inverse(matrix)
    rows, columns = np.mgrid[: size[0], : size[1]]
    x, y, depth = (inverse[k, 0] * columns + inverse[k, 1] * rows + inverse[k, 2] for k in range(3))
    x, y = x / depth, y / depth
    # Three pixels of the result, however many of the source those are.
    margin = 3 / math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))
    seen: NDArray[np.bool_] = (
        (x > margin)
        & (x < source[1] - 1 - margin)
        & (y > margin)
        & (y < source[0] - 1 - margin)
        & (depth > 0)
    )
    return seen


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _about_centre(size: tuple[int, int], scale: float, angle: float) -> NDArray[np.float64]:
    """Scale and rotation that leave the centre in its place."""
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y], [0.0, 0.0, 1.0]])


def _sizes(views: Sequence[_View]) -> tuple[tuple[int, int], tuple[int, int]]:
    rgb, thermal = views[0].rgb.shape, views[0].thermal.shape
    return (rgb[0], rgb[1]), (thermal[0], thermal[1])


def _work_size(rgb_size: tuple[int, int], long_side: int) -> tuple[int, int]:
    scale = long_side / max(rgb_size)
    return max(16, round(rgb_size[0] * scale)), max(16, round(rgb_size[1] * scale))


_GAP = 8


def preview(
    rgb: NDArray[np.uint8],
    thermal: NDArray[np.float32],
    homography: Homography,
    points: tuple[Points, Points] | None = None,
) -> Image.Image:
    """Colour in green and thermal in magenta, laid over each other: stretched left, mapped right.

    Where both are alike bright the picture is grey; edges with a green and a magenta side are off.

    Args:
        rgb: uint8 (H, W, 3).
        thermal: float32 (h, w) in [0, 1].
        homography: drawn on the right.
        points: thermal and colour points (N, 2), marked by crosses and circles.
    """
    size = (rgb.shape[0], rgb.shape[1])
    thermal_size = (thermal.shape[0], thermal.shape[1])
    before = Homography.stretched(thermal_size, size)
    panels = [_panel(rgb, thermal, view, points) for view in (before, homography)]
    width = panels[0].width
    sheet = Image.new("RGB", (2 * width + _GAP, size[0]), (255, 255, 255))
    for number, panel in enumerate(panels):
        sheet.paste(panel, (number * (width + _GAP), 0))
    return sheet


def _panel(
    rgb: NDArray[np.uint8],
    thermal: NDArray[np.float32],
    view: Homography,
    points: tuple[Points, Points] | None,
) -> Image.Image:
    heat = _stretched(view.warp(thermal, (rgb.shape[0], rgb.shape[1])))
    panel = Image.fromarray(np.stack([heat, _stretched(luminance(rgb)), heat], axis=-1))
    if points is not None:
        draw = ImageDraw.Draw(panel)
        arm = max(3, max(rgb.shape[:2]) // 100)
        for x, y in view.map(points[0]):
            draw.line((x - arm, y, x + arm, y), fill=(255, 255, 0))
            draw.line((x, y - arm, x, y + arm), fill=(255, 255, 0))
        for x, y in points[1]:
            draw.ellipse((x - arm, y - arm, x + arm, y + arm), outline=(0, 255, 255))
    return panel


def _stretched(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Contrast from the 1st to the 99th percentile."""
    low, high = np.percentile(image, (1, 99))
    scaled = np.clip((image - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    pixels: NDArray[np.uint8] = np.rint(scaled * 255).astype(np.uint8)
    return pixels
