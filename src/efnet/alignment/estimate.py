"""A homography from the edges of one or several pairs of one camera head, coarse to fine, and its preview.

Scale, rotation and shift come first, over the whole image. Then each part of the image is shifted by itself,
and a homography is fitted to the parts that agree. Pairs of one head share the mapping, so their correlations
add: another pair may show edges where one has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from efnet.alignment import edges, homography
from efnet.alignment.edges import CONFIDENT, Field, Grey, edge_field, luminance, resize
from efnet.alignment.homography import Fit, Homography, Points, resize_matrix, size_of, warp_matrix
from efnet.core.errors import InputError

SCALES = tuple(1.05**step for step in range(-10, 9))
"""Sizes of the thermal view tried, relative to one stretched onto the colour image: 0.61 to 1.48."""

ROTATIONS = tuple(math.radians(degrees) for degrees in range(-6, 7, 2))

MIN_PARTS = 8  # least number of image parts, of 30, that must agree; views that do not match have 0 to 2

# Least share of the image, along both axes, that these parts span. Below the first a similarity is fitted,
# because a homography would be a guess beyond the parts; below the second nothing is.
HOMOGRAPHY_COVER, MIN_COVER = 0.7, 0.4

_COARSE, _LEVELS = 160, (320, 320, 640)
_REACH = 0.25  # greatest shift in the first search, as a share of the longer side

_GRID = (5, 6)
_PART_RADIUS = 16
_PART_PEAK = 4.2

Progress = Callable[[int, int], None]
Views = Sequence[tuple[Grey, Grey]]  # colour, as grey, and thermal images


def estimate_homography(
    pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]], progress: Progress | None = None
) -> Homography:
    """Estimate how thermal images (h, w) map onto the colour images, uint8 (H, W, 3), of one camera head.

    `progress` is called with the steps done and their total. `about` of the result has the residuals of the
    image parts that agree, in colour pixels.

    Raises:
        InputError: sizes differ between pairs, or the estimate is no better than chance.
    """
    if not pairs:
        raise InputError("no pair to estimate a homography from")
    rgb_size, thermal_size = size_of(pairs[0][0]), size_of(pairs[0][1])
    if any((size_of(rgb), thermal.shape) != (rgb_size, thermal_size) for rgb, thermal in pairs):
        raise InputError("the pairs differ in size; a homography holds for one pair of cameras")
    views = [(luminance(rgb), thermal) for rgb, thermal in pairs]
    steps = len(SCALES) * len(ROTATIONS) + len(_LEVELS)

    def advance(done: int) -> None:
        if progress is not None:
            progress(done, steps)

    matrix, peak = _search(views, advance)
    for number, level in enumerate(_LEVELS, start=1):
        fit, model = _refine(views, matrix, min(level, max(rgb_size)))
        matrix = fit.matrix
        advance(steps - len(_LEVELS) + number)
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


def _search(views: Views, advance: Callable[[int], None]) -> tuple[NDArray[np.float64], float]:
    """The best scale, rotation and shift: the matrix at full size, and the height of its peak."""
    rgb_size, thermal_size = (size_of(image) for image in views[0])
    size = edges.working_size(rgb_size, _COARSE)
    fixed = [edge_field(resize(rgb, size)) for rgb, _ in views]
    best, found = -math.inf, np.eye(3)
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    for number, (scale, angle) in enumerate(product(SCALES, ROTATIONS)):
        # Scale and rotation leave the centre in its place.
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        turn = [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y], [0.0, 0.0, 1.0]]
        matrix = np.array(turn) @ resize_matrix(thermal_size, size)
        moving = (_warped_field(thermal, matrix, size) for _, thermal in views)
        surface = sum(map(edges.correlate, fixed, moving))
        right, down, peak = edges.find_peak(np.asarray(surface), round(_REACH * max(size)))
        if peak > best:
            shift = np.array([[1.0, 0.0, right], [0.0, 1.0, down], [0.0, 0.0, 1.0]])
            best, found = peak, resize_matrix(size, rgb_size) @ shift @ matrix
        advance(number + 1)
    if best < CONFIDENT:
        raise _unsure(f"the edges of the images hardly agree anywhere (peak {best:.1f}, {CONFIDENT} needed)")
    return found, best


def _refine(views: Views, matrix: NDArray[np.float64], level: int) -> tuple[Fit, str]:
    """Shift parts of the image by themselves and fit a mapping to them, all at one resolution."""
    rgb_size = size_of(views[0][0])
    size = edges.working_size(rgb_size, level)
    to_level = resize_matrix(rgb_size, size)
    moved = to_level @ matrix
    fixed = [edge_field(resize(rgb, size)) for rgb, _ in views]
    moving = [np.pad(_warped_field(thermal, moved, size), _PART_RADIUS) for _, thermal in views]
    places, shifts = [], []
    for part in _parts(size):
        rows, columns = part
        # Each part of the colour image against its surroundings in the thermal one.
        around = tuple(slice(span.start, span.stop + 2 * _PART_RADIUS) for span in part)
        parts = (np.pad(field[part], _PART_RADIUS) for field in fixed)
        surface = sum(map(edges.correlate, parts, (field[around] for field in moving)))
        right, down, peak = edges.find_peak(np.asarray(surface), _PART_RADIUS)
        if peak >= _PART_PEAK and max(abs(right), abs(down)) < _PART_RADIUS:
            places.append(((columns.start + columns.stop - 1) / 2, (rows.start + rows.stop - 1) / 2))
            shifts.append((right, down))
    if len(places) < MIN_PARTS:
        raise _unsure(f"only {len(places)} parts of the image match, {MIN_PARTS} needed")
    here: Points = np.array(places, dtype=np.float64)
    tolerance = 0.008 * max(rgb_size)
    target = homography.apply_matrix(np.linalg.inv(to_level), here + np.array(shifts, dtype=np.float64))
    source = homography.apply_matrix(np.linalg.inv(moved), here)
    try:
        fit = homography.fit_homography(source, target, tolerance)
    except InputError as error:
        raise _unsure("the parts of the image that match do not agree with each other") from error
    if fit.inliers.sum() < max(MIN_PARTS, len(places) / 2):
        raise _unsure(f"only {int(fit.inliers.sum())} of {len(places)} matching parts agree with each other")
    cover, axis = _cover(here[fit.inliers], size)
    if cover >= HOMOGRAPHY_COVER:
        return fit, "homography"
    if cover >= MIN_COVER:
        fit = homography.fit_similarity(source, target, fit.inliers)
    if cover < MIN_COVER or fit.rms > tolerance:
        raise _unsure(f"the parts that match span only {100 * cover:.0f} % of the {axis}")
    return fit, "similarity"


def _cover(places: Points, size: tuple[int, int]) -> tuple[float, str]:
    """The share of the width or of the height that parts span, whichever is less, and its name."""
    shares = []
    for axis, name in enumerate(("width", "height")):
        reach = [(part[1 - axis].start + part[1 - axis].stop) / 2 for part in _parts(size)]
        shares.append((float(np.ptp(places[:, axis])) / (max(reach) - min(reach)), name))
    return min(shares)


def _unsure(reason: str) -> InputError:
    return InputError(
        f"no homography can be estimated with confidence: {reason}; give several pairs with clear edges all "
        "over the image, or mark point pairs by hand (`point`)"
    )


def _parts(size: tuple[int, int]) -> list[tuple[slice, slice]]:
    """A grid of windows, each overlapping its neighbours by half."""
    spans = []
    for length, count in zip(size, _GRID, strict=True):
        window = round(2 * length / (count + 1))
        starts = np.linspace(0, length - window, count).round().astype(int)
        spans.append([slice(int(start), int(start) + window) for start in starts])
    return list(product(*spans))


def _warped_field(thermal: Grey, matrix: NDArray[np.float64], size: tuple[int, int]) -> Field:
    """Edges of a thermal image brought into the colour view; none within a margin of its border."""
    x, y, depth = homography.back_project(matrix, size)
    x, y = x / depth, y / depth
    # Three pixels of the result, however many of the source those are.
    margin = 3 / math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))
    height, width = thermal.shape
    seen = (x > margin) & (x < width - 1 - margin) & (y > margin) & (y < height - 1 - margin) & (depth > 0)
    return edge_field(warp_matrix(thermal, matrix, size), seen)


_GAP = 8


def preview(
    rgb: NDArray[np.uint8], thermal: Grey, homography: Homography, points: tuple[Points, Points] | None = None
) -> Image.Image:
    """Overlay colour (H, W, 3) in green, thermal (h, w) in magenta: stretched left, mapped right.

    Where both are equally bright the picture is grey; an edge with a green and a magenta side is misaligned.
    `points`, thermal and colour (N, 2), are marked by crosses and circles.
    """
    size = size_of(rgb)
    before = Homography.stretched(size_of(thermal), size)
    width, grey, arm = size[1], _stretched(luminance(rgb)), max(3, max(size) // 100)
    sheet = Image.new("RGB", (2 * width + _GAP, size[0]), (255, 255, 255))
    for left, view in ((0, before), (width + _GAP, homography)):
        heat = _stretched(view.warp(thermal, size))
        panel = Image.fromarray(np.stack([heat, grey, heat], axis=-1))
        if points is not None:
            draw = ImageDraw.Draw(panel)
            for x, y in view.map(points[0]):
                draw.line((x - arm, y, x + arm, y), fill=(255, 255, 0))
                draw.line((x, y - arm, x, y + arm), fill=(255, 255, 0))
            for x, y in points[1]:
                draw.ellipse((x - arm, y - arm, x + arm, y + arm), outline=(0, 255, 255))
        sheet.paste(panel, (left, 0))
    return sheet


def _stretched(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Contrast from the 1st to the 99th percentile."""
    low, high = np.percentile(image, (1, 99))
    scaled = np.clip((image - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    pixels: NDArray[np.uint8] = np.rint(scaled * 255).astype(np.uint8)
    return pixels
