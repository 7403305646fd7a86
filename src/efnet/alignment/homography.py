"""Homographies that bring a thermal image into the view of its colour image: fitted, applied, and stored.

Two cameras side by side see one plane, or a distant scene, through a homography; things nearer or farther
are off by the parallax, which no single mapping removes. Coordinates are (x, y) in pixels; (0, 0) is the
centre of the top left pixel, as in OpenCV. Fits follow Hartley and Zisserman, Multiple View Geometry:
algorithm 4.2 (normalised DLT), 4.6 (robust estimation).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from efnet.core.errors import InputError
from efnet.core.files import write_json
from efnet.core.safe_parse import parse_json

Points = NDArray[np.float64]  # (N, 2), x and y
Matrix = NDArray[np.float64]  # (3, 3) unless noted

_ASPECT_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Homography:
    """The mapping of thermal pixels to colour pixels.

    Raises:
        InputError: the matrix mirrors or folds the thermal image, or is not a 3x3 matrix.
    """

    matrix: NDArray[np.float64]  # float64 (3, 3), thermal to colour, its last entry 1
    thermal_size: tuple[int, int]  # (H, W) of the thermal images it was made for
    rgb_size: tuple[int, int]  # (H, W) of the colour images
    about: Mapping[str, Any] = field(default_factory=dict)  # origin: method, residuals in colour pixels, ...

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, dtype=np.float64)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(matrix[2, 2]) < 1e-12:
            raise InputError("a homography is a 3x3 matrix of finite numbers with a last entry other than 0")
        object.__setattr__(self, "matrix", matrix / matrix[2, 2])
        depths = np.c_[corners(self.thermal_size), np.ones(4)] @ self.matrix[2]
        if depths.min() <= 1e-6 or np.linalg.det(self.matrix) <= 0:
            raise InputError(
                "the homography mirrors or folds the thermal image; check the point pairs (thermal x, y, "
                "then colour x, y, in the same order)"
            )

    @classmethod
    def stretched(cls, thermal_size: tuple[int, int], rgb_size: tuple[int, int]) -> Homography:
        """Return the mapping of aligned views: the thermal image's borders go to the colour image's."""
        return cls(resize_matrix(thermal_size, rgb_size), thermal_size, rgb_size, {"method": "stretched"})

    def resized(self, thermal_size: tuple[int, int], rgb_size: tuple[int, int]) -> Homography:
        """Return the same mapping for the same cameras at another resolution.

        Raises:
            InputError: an aspect ratio differs by more than 1 %: a crop, not another resolution.
        """
        sizes = ("thermal", self.thermal_size, thermal_size), ("rgb", self.rgb_size, rgb_size)
        for what, made, size in sizes:
            if abs(made[1] * size[0] / (made[0] * size[1]) - 1) > _ASPECT_TOLERANCE:
                raise InputError(
                    f"the homography was made for {what} images of {made[1]}x{made[0]} (width x height), and "
                    f"{size[1]}x{size[0]} is of another shape; calibrate again with images of that size"
                )
        before, after = resize_matrix(thermal_size, self.thermal_size), resize_matrix(self.rgb_size, rgb_size)
        return Homography(after @ self.matrix @ before, thermal_size, rgb_size, self.about)

    def map(self, points: Points) -> Points:
        """Map thermal points (N, 2) to the colour image."""
        return apply_matrix(self.matrix, points)

    def warp(self, thermal: NDArray[np.float32], rgb_size: tuple[int, int]) -> NDArray[np.float32]:
        """Warp a thermal image, of any resolution of its camera, to the colour image's view and size (H, W).

        Pixels that the thermal camera does not see get the value of the nearest pixel of its border.
        Errors as `resized`.
        """
        size, matrix = size_of(thermal), self.matrix
        if (size, rgb_size) != (self.thermal_size, self.rgb_size):
            matrix = self.resized(size, rgb_size).matrix
        return warp_matrix(thermal, matrix, rgb_size)

    def displacement(self) -> float:
        """Return the root mean square distance, in colour pixels, from `stretched` at corners and centre."""
        points = np.r_[corners(self.thermal_size), corners(self.thermal_size).mean(axis=0, keepdims=True)]
        plain = apply_matrix(resize_matrix(self.thermal_size, self.rgb_size), points)
        return float(np.sqrt(((self.map(points) - plain) ** 2).sum(axis=1).mean()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "matrix": self.matrix.tolist(),
            "maps": "thermal pixel (x, y, 1) to rgb pixel, (0, 0) the centre of the top left pixel",
            "thermal_size": list(self.thermal_size),
            "rgb_size": list(self.rgb_size),
            "about": dict(self.about),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON file."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Homography:
        """Read what `save` wrote; an `InputError` if the file is missing or not a homography."""
        try:
            values = parse_json(Path(path).read_text(encoding="utf-8"))
            matrix = np.asarray(values["matrix"], dtype=np.float64)
            sizes = [(int(values[key][0]), int(values[key][1])) for key in ("thermal_size", "rgb_size")]
            if min(min(size) for size in sizes) < 1:
                raise ValueError("a size below 1")
            return cls(matrix, sizes[0], sizes[1], dict(values.get("about", {})))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(
                f"{path}: not a homography file ({error}); `efnet calibrate` writes one"
            ) from error


def size_of(image: NDArray[Any]) -> tuple[int, int]:
    """Return an image's (H, W)."""
    return image.shape[0], image.shape[1]


def corners(size: tuple[int, int]) -> Points:
    """Return the centres of the corner pixels of an image of `size` (H, W), clockwise from the top left."""
    bottom, right = size[0] - 1.0, size[1] - 1.0
    return np.array([[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]])


def resize_matrix(old: tuple[int, int], new: tuple[int, int]) -> NDArray[np.float64]:
    """Return the matrix from pixels of an image of size `old` (H, W) to those of it resized to `new`."""
    y, x = new[0] / old[0], new[1] / old[1]
    return np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2], [0.0, 0.0, 1.0]])


def apply_matrix(matrix: NDArray[Any], points: Points) -> Points:
    """Map points (N, 2) by a 3x3 matrix."""
    mapped = np.c_[points, np.ones(len(points))] @ matrix.T
    result: Points = mapped[:, :2] / mapped[:, 2:]
    return result


def warp_matrix(image: NDArray[np.float32], matrix: Matrix, size: tuple[int, int]) -> NDArray[np.float32]:
    """Warp an image (H, W) to `size` by the 3x3 matrix of its pixels; borders are continued."""
    # When shrinking, average first: bilinear sampling alone would skip pixels.
    shrink = math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))
    if shrink < 0.67:
        smaller = (max(1, round(image.shape[0] * shrink)), max(1, round(image.shape[1] * shrink)))
        matrix = matrix @ resize_matrix(smaller, size_of(image))
        image = np.asarray(Image.fromarray(image).resize(smaller[::-1], Image.Resampling.BILINEAR))
    grid = _grid(matrix.tobytes(), size_of(image), size)
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))[None, None]
    warped = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return warped[0, 0].numpy()


@lru_cache(maxsize=2)
def _grid(matrix: bytes, source: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Source of each pixel of the result, in `grid_sample`'s units; cached for the next video frame."""
    x, y, depth = back_project(np.frombuffer(matrix, dtype=np.float64).reshape(3, 3), size)
    # Points behind the camera are not seen: such pixels get the border, like all beyond it.
    depth = np.maximum(depth, 1e-9)
    last = (max(source[0] - 1, 1), max(source[1] - 1, 1))
    grid = np.stack([2 * x / depth / last[1] - 1, 2 * y / depth / last[0] - 1], axis=-1)
    return torch.from_numpy(np.clip(grid, -4.0, 4.0).astype(np.float32))[None]


def back_project(matrix: NDArray[np.float64], size: tuple[int, int]) -> tuple[NDArray[np.float64], ...]:
    """Return homogeneous source coordinates x, y, depth, each (H, W), of the pixels of a warped image."""
    inverse = np.linalg.inv(matrix)
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float64)
    return tuple(inverse[k, 0] * columns + inverse[k, 1] * rows + inverse[k, 2] for k in range(3))


# Quadruples tried if there are more; they find good pairs with 99.9 % if these are at least 24 % of all.
_SUBSETS = 2000
# Least ratio of the eighth to the first singular value: below, a line through three of four points fits.
_DEGENERATE = 1e-4


@dataclass(frozen=True, eq=False)
class Fit:
    """A homography and the residuals of the point pairs."""

    matrix: Matrix
    inliers: NDArray[np.bool_]  # bool (N,), the pairs that it was fitted to
    residuals: NDArray[np.float64]  # (N,), mapped point to partner, in the partner's pixels

    @property
    def rms(self) -> float:
        """Root mean square residual of the pairs kept."""
        return float(np.sqrt((self.residuals[self.inliers] ** 2).mean()))


def fit_homography(source: Points, target: Points, tolerance: float) -> Fit:
    """Fit the homography from `source` (N, 2) to `target` (N, 2) that the most pairs agree with, N >= 4.

    A pair agrees within `tolerance` target pixels. Pairs are rejected only where five or more of the others
    agree: any four pairs fit exactly.

    Raises:
        InputError: fewer than four pairs, three of four points on a line, or pairs that do not agree.
    """
    count = len(source)
    if count < 4 or len(target) != count:
        raise InputError(f"{count} point pairs; a homography needs four or more")
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise InputError("point coordinates are NaN or infinite")
    everything = np.ones(count, dtype=np.bool_)
    fit = _fit(source, target, everything)
    if fit is None:
        raise InputError(
            "the points lie on a line, or three of four do: they do not determine a homography; spread them "
            "over the image"
        )
    if count > 4 and fit.residuals.max() > tolerance:
        fit = _largest_agreement(source, target, tolerance) or fit
    if fit.residuals[fit.inliers].max() > tolerance:
        worst = ", ".join(f"pair {k + 1}: {fit.residuals[k]:.1f}" for k in np.argsort(-fit.residuals)[:3])
        raise InputError(
            f"the point pairs do not agree on a homography within {tolerance:g} pixels ({worst}); correct "
            "them, or allow a larger `tolerance`"
        )
    return fit


def fit_similarity(source: Points, target: Points, chosen: NDArray[np.bool_]) -> Fit:
    """Fit shift, rotation and one scale to the pairs `chosen`, bool (N,), two at least, by least squares."""
    a, b = source[chosen] @ (1, 1j), target[chosen] @ (1, 1j)
    centre, partner = a.mean(), b.mean()
    turn = np.vdot(a - centre, b - partner) / np.vdot(a - centre, a - centre)
    shift = partner - turn * centre
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0, 0, 1]])
    return Fit(matrix, chosen, _residuals(matrix, source, target))


def _largest_agreement(source: Points, target: Points, tolerance: float) -> Fit | None:
    """Fit the largest set of at least five pairs that agree; None without one."""
    best: NDArray[np.bool_] | None = None
    key = (4, 0.0)
    count, rng = len(source), np.random.default_rng(0)
    subsets = (np.array(chosen, dtype=np.intp) for chosen in combinations(range(count), 4))
    if comb(count, 4) > _SUBSETS:  # random ones, the same each time
        subsets = (rng.choice(count, 4, replace=False) for _ in range(_SUBSETS))
    for chosen in subsets:
        if (matrix := _direct(source[chosen], target[chosen])) is not None:
            residuals = _residuals(matrix, source, target)
            agree = residuals <= tolerance
            score = (int(agree.sum()), -float(residuals[agree].sum()))
            if score > key and score[0] > 4:
                best, key = agree, score
    fit = None if best is None else _fit(source, target, best)
    for _ in range(5):  # least squares may add pairs that the quadruple left out
        if fit is None:
            return None
        agree = fit.residuals <= tolerance
        if agree.sum() < 5 or (agree == fit.inliers).all():
            break
        fit = _fit(source, target, agree)
    return fit


def _fit(source: Points, target: Points, chosen: NDArray[np.bool_]) -> Fit | None:
    if (matrix := _direct(source[chosen], target[chosen])) is None:
        return None
    matrix = _least_squares(matrix, source[chosen], target[chosen])
    return Fit(matrix, chosen, _residuals(matrix, source, target))


def _residuals(matrix: NDArray[np.float64], source: Points, target: Points) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.linalg.norm(apply_matrix(matrix, source) - target, axis=1)
    finite: NDArray[np.float64] = np.nan_to_num(distance, nan=np.inf)
    return finite


def _direct(source: Points, target: Points) -> NDArray[np.float64] | None:
    """Normalised DLT; None if the points do not determine a homography."""
    from_source, to_target = _normaliser(source), _normaliser(target)
    if from_source is None or to_target is None:
        return None
    a, b = apply_matrix(from_source, source), apply_matrix(to_target, target)
    one, zero = np.ones(len(a)), np.zeros((len(a), 3))
    point = np.c_[a, one]
    rows = np.r_[np.c_[point, zero, -b[:, :1] * point], np.c_[zero, point, -b[:, 1:] * point]]
    _, singular, right = np.linalg.svd(rows)
    if singular[7] < _DEGENERATE * singular[0]:
        return None
    matrix: NDArray[np.float64] = np.linalg.inv(to_target) @ right[-1].reshape(3, 3) @ from_source
    if abs(np.linalg.det(right[-1].reshape(3, 3))) < 1e-9 or abs(matrix[2, 2]) < 1e-12:
        return None
    matrix /= matrix[2, 2]
    return matrix


def _normaliser(points: Points) -> NDArray[np.float64] | None:
    """The matrix that moves the points' mean to the origin and their mean distance from it to sqrt(2)."""
    middle = points.mean(axis=0)
    spread = np.linalg.norm(points - middle, axis=1).mean()
    if spread < 1e-9:
        return None
    scale = np.sqrt(2) / spread
    return np.array([[scale, 0, -scale * middle[0]], [0, scale, -scale * middle[1]], [0, 0, 1]])


def _least_squares(matrix: NDArray[np.float64], source: Points, target: Points) -> NDArray[np.float64]:
    """Minimise the sum of squared distances in the target, by Levenberg and Marquardt's steps."""
    # In normalised coordinates, else the perspective entries are a million times smaller than the shifts.
    from_source, to_target = _normaliser(source), _normaliser(target)
    assert from_source is not None
    assert to_target is not None
    a, b = apply_matrix(from_source, source), apply_matrix(to_target, target)
    current = to_target @ matrix @ np.linalg.inv(from_source)
    current /= current[2, 2]
    damping, error = 1e-3, float((_residuals(current, a, b) ** 2).sum())
    for _ in range(50):
        jacobian, off = _jacobian(current, a, b)
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), -jacobian.T @ off)
        tried = current + np.append(step, 0.0).reshape(3, 3)
        new = float((_residuals(tried, a, b) ** 2).sum())
        if new < error:
            done = error - new < 1e-14 * error
            current, error, damping = tried, new, damping / 10
        else:
            damping *= 10
            done = damping > 1e6
        if done:
            break
    fitted: NDArray[np.float64] = np.linalg.inv(to_target) @ current @ from_source
    fitted /= fitted[2, 2]
    return fitted


def _jacobian(matrix: Matrix, source: Points, target: Points) -> tuple[Matrix, NDArray[np.float64]]:
    """Derivatives (2N, 8) of the distances (2N,) by the matrix' first eight entries."""
    point = np.c_[source, np.ones(len(source))]
    x, y, depth = (matrix @ point.T)[:, :, None]
    zero = np.zeros((len(source), 3))
    across = np.c_[point / depth, zero, -(x / depth**2) * point[:, :2]]
    down = np.c_[zero, point / depth, -(y / depth**2) * point[:, :2]]
    off = apply_matrix(matrix, source) - target
    return np.r_[across, down], np.r_[off[:, 0], off[:, 1]]
