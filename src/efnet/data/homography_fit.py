"""A homography through point pairs: normalised DLT, least squares, and rejection of pairs that do not fit.

Hartley and Zisserman, Multiple View Geometry: algorithm 4.2 (normalised DLT), 4.6 (robust estimation).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from efnet.data.homography import Points, apply_matrix
from efnet.errors import InputError

_SUBSETS = 2000
"""Quadruples tried when there are more than that; the least share of good pairs found with 99.9 % is 24 %."""

_DEGENERATE = 1e-4
"""Least ratio of the eighth to the first singular value: below, a line through three of four points fits."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A homography and how well the pairs agree with it.

    Attributes:
        matrix: float64 (3, 3).
        inliers: bool (N,): the pairs that it was made from.
        residuals: float64 (N,): distance of each mapped point from its partner, in the partner's pixels.
    """

    matrix: NDArray[np.float64]
    inliers: NDArray[np.bool_]
    residuals: NDArray[np.float64]

    @property
    def rms(self) -> float:
        """Root mean square residual of the pairs kept."""
        return float(np.sqrt((self.residuals[self.inliers] ** 2).mean()))


def fit_homography(source: Points, target: Points, tolerance: float) -> Fit:
    """The homography from `source` to `target` that the most pairs agree with.

    Pairs are rejected only where five or more of the others agree: any four points fit exactly, so four
    prove nothing.

    Args:
        source: (N, 2), N at least 4.
        target: (N, 2), their partners.
        tolerance: distance in target pixels up to which a pair agrees.

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
            "the points lie on a line, or three of four do: they do not fix a homography; spread them over "
            "the image"
        )
    if count > 4 and fit.residuals.max() > tolerance:
        fit = _largest_agreement(source, target, tolerance) or fit
    if fit.residuals[fit.inliers].max() > tolerance:
        worst = ", ".join(f"pair {place + 1}: {fit.residuals[place]:.1f}" for place in _worst(fit))
        raise InputError(
            f"the point pairs do not agree on a homography within {tolerance:g} pixels ({worst}); correct "
            "them, or allow more with --tolerance"
        )
    return fit


def fit_similarity(source: Points, target: Points, chosen: NDArray[np.bool_]) -> Fit:
    """Shift, rotation and one scale, by least squares over the pairs `chosen`; at least two of them.

    Args:
        source: (N, 2).
        target: (N, 2), their partners.
        chosen: bool (N,).
    """
    a, b = source[chosen] @ (1, 1j), target[chosen] @ (1, 1j)
    centre, partner = a.mean(), b.mean()
    turn = np.vdot(a - centre, b - partner) / np.vdot(a - centre, a - centre)
    shift = partner - turn * centre
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0, 0, 1]])
    return Fit(matrix, chosen, _residuals(matrix, source, target))


def _worst(fit: Fit) -> list[int]:
    return [int(place) for place in np.argsort(-fit.residuals)[:3]]


def _largest_agreement(source: Points, target: Points, tolerance: float) -> Fit | None:
    """The fit to the largest set of at least five pairs that agree; None: there is none."""
    best: NDArray[np.bool_] | None = None
    key = (4, 0.0)
    for chosen in _subsets(len(source)):
        matrix = _direct(source[chosen], target[chosen])
        if matrix is None:
            continue
        residuals = _residuals(matrix, source, target)
        agree = residuals <= tolerance
        score = (int(agree.sum()), -float(residuals[agree].sum()))
        if score > key and score[0] > 4:
            best, key = agree, score
    if best is None:
        return None
    fit = _fit(source, target, best)
    for _ in range(5):  # least squares may bring in some that the quadruple left out
        if fit is None:
            return None
        agree = fit.residuals <= tolerance
        if agree.sum() < 5 or (agree == fit.inliers).all():
            break
        fit = _fit(source, target, agree)
    return fit


def _subsets(count: int) -> Iterator[NDArray[np.intp]]:
    """All quadruples, or as many at random, the same each time."""
    if comb(count, 4) <= _SUBSETS:
        yield from (np.array(chosen, dtype=np.intp) for chosen in combinations(range(count), 4))
        return
    rng = np.random.default_rng(0)
    for _ in range(_SUBSETS):
        yield rng.choice(count, 4, replace=False)


def _fit(source: Points, target: Points, chosen: NDArray[np.bool_]) -> Fit | None:
    matrix = _direct(source[chosen], target[chosen])
    if matrix is None:
        return None
    matrix = _least_squares(matrix, source[chosen], target[chosen])
    return Fit(matrix, chosen, _residuals(matrix, source, target))


def _residuals(matrix: NDArray[np.float64], source: Points, target: Points) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.linalg.norm(apply_matrix(matrix, source) - target, axis=1)
    finite: NDArray[np.float64] = np.nan_to_num(distance, nan=np.inf)
    return finite


def _direct(source: Points, target: Points) -> NDArray[np.float64] | None:
    """Normalised DLT; None where the points do not fix a homography."""
    from_source, to_target = _normaliser(source), _normaliser(target)
    if from_source is None or to_target is None:
        return None
    a, b = apply_matrix(from_source, source), apply_matrix(to_target, target)
    one, zero = np.ones(len(a)), np.zeros((len(a), 3))
    point = np.c_[a, one]
    rows = np.r_[
        np.c_[point, zero, -b[:, :1] * point],
        np.c_[zero, point, -b[:, 1:] * point],
    ]
    _, singular, right = np.linalg.svd(rows)
    if singular[7] < _DEGENERATE * singular[0]:
        return None
    matrix = np.linalg.inv(to_target) @ right[-1].reshape(3, 3) @ from_source
    if abs(np.linalg.det(right[-1].reshape(3, 3))) < 1e-9 or abs(matrix[2, 2]) < 1e-12:
        return None
    return _scaled(matrix)


def _normaliser(points: Points) -> NDArray[np.float64] | None:
    """Moves the points' mean to the origin and their mean distance from it to the square root of 2."""
    middle = points.mean(axis=0)
    spread = np.linalg.norm(points - middle, axis=1).mean()
    if spread < 1e-9:
        return None
    scale = np.sqrt(2) / spread
    return np.array([[scale, 0, -scale * middle[0]], [0, scale, -scale * middle[1]], [0, 0, 1]])


def _least_squares(matrix: NDArray[np.float64], source: Points, target: Points) -> NDArray[np.float64]:
    """Least sum of squared distances in the target, by Levenberg and Marquardt's steps."""
    # In normalised coordinates, else the perspective entries are a million times smaller than the shifts.
    from_source, to_target = _normaliser(source), _normaliser(target)
    assert from_source is not None
    assert to_target is not None
    a, b = apply_matrix(from_source, source), apply_matrix(to_target, target)
    current = to_target @ matrix @ np.linalg.inv(from_source)
    current /= current[2, 2]
    damping, error = 1e-3, _squared(current, a, b)
    for _ in range(50):
        jacobian, off = _jacobian(current, a, b)
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), -jacobian.T @ off)
        tried = current + np.append(step, 0.0).reshape(3, 3)
        new = _squared(tried, a, b)
        if new < error:
            done = error - new < 1e-14 * error
            current, error, damping = tried, new, damping / 10
            if done:
                break
        else:
            damping *= 10
            if damping > 1e6:
                break
    return _scaled(np.linalg.inv(to_target) @ current @ from_source)


def _scaled(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """With 1 as the last entry."""
    scaled: NDArray[np.float64] = matrix / matrix[2, 2]
    return scaled


def _squared(matrix: NDArray[np.float64], source: Points, target: Points) -> float:
    return float((_residuals(matrix, source, target) ** 2).sum())


def _jacobian(
    matrix: NDArray[np.float64], source: Points, target: Points
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Derivatives (2N, 8) of the distances (2N,) by the matrix' first eight entries."""
    point = np.c_[source, np.ones(len(source))]
    x, y, depth = (matrix @ point.T)[:, :, None]
    zero = np.zeros((len(source), 3))
    across = np.c_[point / depth, zero, -(x / depth**2) * point[:, :2]]
    down = np.c_[zero, point / depth, -(y / depth**2) * point[:, :2]]
    off = apply_matrix(matrix, source) - target
    return np.r_[across, down], np.r_[off[:, 0], off[:, 1]]
