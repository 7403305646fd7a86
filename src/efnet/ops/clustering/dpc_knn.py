"""Exact density-peaks clustering on k nearest neighbours (DPC-KNN), without an N x N matrix.

EFNet (arXiv 2501.10958) equations 1-3; TCFormer (arXiv 2204.08680) is the case without a spatial term.
`docs/clustering.md` explains why the result is exact. The first row that applies decides:

| condition                                       | formulation                                | module      |
|-------------------------------------------------|--------------------------------------------|-------------|
| `torch.export` traces                           | float32 windows, then a loop or one turn   | `traceable` |
| `torch.compile` traces, or the device is `meta` | one opaque operator, which decides later   | `dpc_knn`   |
| CUDA graph, `torch.jit.trace` or `torch.func`   | float32, all tokens with all               | `traceable` |
| CPU, float32, numba, k >= 2, positions in the   | compiled loops over cells, grid disks      | `compiled`  |
| plane or at most 1,536 tokens without any, and  | or one matrix product, then a sort;        |             |
| a sample shows that few need comparing          | exact in float64                           |             |
| regular grid, and a disk of 4, 6 or 9 cells     | float32 differences in the disk; bounds;   | `bounds`    |
| holds the neighbours of 97 % of the tokens      | float64 for what the bounds leave open     |             |
| positions in the plane, and windows save work   | float32 products in windows, then as above | `neighbors` |
| anything else                                   | float32 products with all, then as above   | `neighbors` |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from efnet.core.compat import is_exporting, is_recording, is_static
from efnet.core.precision import exact_products, full_precision
from efnet.ops.clustering import bounds, compiled, traceable
from efnet.ops.clustering.bounds import Bounds, Exact, Scan, grid_scan, list_scan
from efnet.ops.clustering.distances import Points
from efnet.ops.clustering.neighbors import nearest
from efnet.ops.clustering.tiling import Size

_SPARE = 3  # tokens kept beyond the neighbours: one of them is often a centre
_TOLERATED = 0.03  # share of tokens whose neighbours may lie beyond a disk before windows are cheaper


class Clusters(NamedTuple):
    """N tokens in M clusters."""

    assignment: Tensor  # (B, N) int64, for every token the position of its cluster in `centers`
    centers: Tensor  # (B, M) int64, for every cluster the token that is its centre, ascending


@torch.no_grad()
def dpc_knn(
    features: Tensor,
    num_clusters: int,
    k: int = 5,
    positions: Tensor | None = None,
    spatial_weight: float = 0.0,
    grid: tuple[int, int] | None = None,
) -> Clusters:
    """Cluster tokens by the density peaks of their features and, optionally, positions.

    With d_ij = ||x_i - x_j|| / sqrt(C) + spatial_weight * ||y_i - y_j|| (eq. 1; the 1/sqrt(C) is
    TCFormer's),

    - density rho_i = exp(-mean of d_ij^2 over the k nearest tokens, i itself counted) (eq. 2);
    - separation delta_i = distance to the nearest denser token; for the densest token, the distance to
      the farthest one (eq. 3);
    - the `num_clusters` tokens of largest rho * delta are the centres; every token joins its nearest
      centre, a centre itself.

    A smaller mean square counts as denser; of equal ones, as of equal scores and distances, the smaller index
    comes first. The densest token is always a centre. What decides is computed in float64 in a fixed order of
    IEEE operations, so the result is the same on every processor, with any number of threads, with and
    without numba. A token that holds NaN or infinity counts as zeros. No gradient passes.

    On a CPU it takes a third of the time where numba is installed (`pip install 'efnet[fast]'`);
    `EFNET_NATIVE=0` turns that off. Exported programs and CUDA graphs compute in float32: they follow the
    same rule, after that rounding.

    Args:
        features: (B, N, C) token features x.
        num_clusters: M, 1 to N.
        k: neighbours that make the density; N if there are fewer tokens.
        positions: (B, N, P) token positions y; needed if `spatial_weight` is not zero.
        spatial_weight: weight of the spatial distance, 1 - tau in the paper; not negative.
        grid: (h, w), if the tokens are the cells of a regular grid in row-major order and the positions
            linear in row and column. Only the speed depends on it.

    Returns:
        The assignment (B, N) and the centres (B, M).

    Raises:
        ValueError: a shape, M, k or the weight is out of its range.
        TypeError: features or positions are not tensors, or M or k is not a whole number.
    """
    _check(features, num_clusters, k, positions, spatial_weight, grid)
    arguments = (features, num_clusters, k, positions, spatial_weight, grid)
    if is_exporting() or (not torch.compiler.is_compiling() and is_static()):
        return Clusters(*traceable.cluster(*arguments))
    if torch.compiler.is_compiling():
        return Clusters(*_operator(*arguments))
    return Clusters(*(_shapes if features.is_meta else _cluster)(*arguments))


def _cluster(
    features: Tensor, num_clusters: int, k: int, positions: Tensor | None,
    spatial_weight: float, grid: Sequence[int] | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    size = None if grid is None else (grid[0], grid[1])
    # Under autocast or with TF32, products would be rounded beyond their proven bound.
    with full_precision(features.device), exact_products():
        if is_recording(features):
            return traceable.cluster(features, num_clusters, k, positions, spatial_weight, fixed=True)
        points = Points(features, None if spatial_weight == 0 else positions, spatial_weight)
        k = min(k, points.tokens)
        by_loops = compiled.cluster(points, num_clusters, k, size)
        if by_loops is not None:
            return by_loops
        scan, squares = _neighbors(points, k, size)
        centers = _centers(points, scan, squares, num_clusters, k)
        return _assign(points, scan, centers), centers


def _neighbors(points: Points, k: int, grid: Size | None) -> tuple[Scan, Bounds]:
    """Equation 2, by a scan that holds most tokens' neighbours."""
    disk = grid_scan(points, k, grid, _TOLERATED)
    if disk is not None:
        squares, margin = bounds.mean_squares(disk, k)
        if (margin < 0).float().mean() < _TOLERATED:
            return disk, squares
    scan = list_scan(points, nearest(points, k, max(k - 1, 1) + _SPARE))
    return scan, bounds.mean_squares(scan, k)[0]


def _centers(points: Points, scan: Scan, squares: Bounds, count: int, k: int) -> Tensor:
    """(B, M) the tokens of largest score: those that certainly are, and the best of those that may be."""
    separation = bounds.separations(scan, squares)
    score_bounds = bounds.scores(squares, separation, points.unit)
    chosen, open_, _ = bounds.select(score_bounds, points.batch, count)
    score = torch.where(chosen.flatten(), torch.inf, -1.0).double()
    unsure = open_.flatten().nonzero().squeeze(1)
    if len(unsure):
        exact = Exact(points, scan, k)
        exact.mean_squares(unsure, k, squares)
        delta = exact.separations(unsure, k, squares)
        # The densest token, than which none is denser, is always a centre.
        score[unsure] = points.scores(squares.low[unsure], delta).masked_fill(delta.isinf(), torch.inf)
    order = score.view(points.batch, -1).argsort(dim=1, descending=True, stable=True)
    return order[:, :count].sort(dim=1).values


def _assign(points: Points, scan: Scan, centers: Tensor) -> Tensor:
    """(B, N) position in `centers` (B, M) of every token's nearest centre."""
    ids = centers + torch.arange(points.batch, device=points.device)[:, None] * points.tokens
    is_center = torch.zeros(points.none, dtype=torch.bool, device=points.device)
    is_center[ids.flatten()] = True
    found, certain = bounds.nearest_centers(scan, is_center)
    unsure = (~certain & ~is_center).nonzero().squeeze(1)
    if len(unsure):
        found[unsure] = Exact(points, scan, 1, among=ids).nearest_centers(unsure, is_center)
    found[ids.flatten()] = ids.flatten()
    number = found.new_zeros(points.none + 1)
    number[ids.flatten()] = torch.arange(centers.shape[1], device=ids.device).repeat(points.batch)
    return number[found].view(points.batch, -1)


# For `torch.compile`, whose graphs cannot hold what depends on the data.
_operator = torch.library.custom_op(
    "efnet::dpc_knn",
    _cluster,
    mutates_args=(),
    schema="(Tensor features, int num_clusters, int k, Tensor? positions, float spatial_weight, int[]? grid)"
    " -> (Tensor, Tensor)",
)


@_operator.register_fake
def _shapes(
    features: Tensor, num_clusters: int, k: int, positions: object, spatial_weight: float, grid: object
) -> tuple[Tensor, Tensor]:
    batch, tokens, _ = features.shape
    assignment = features.new_empty(batch, tokens, dtype=torch.int64)
    return assignment, features.new_empty(batch, num_clusters, dtype=torch.int64)


def _check(
    features: Tensor, num_clusters: int, k: int, positions: Tensor | None,
    spatial_weight: float, grid: tuple[int, int] | None,
) -> None:  # fmt: skip
    symbols = torch.compiler.is_compiling()
    for name, tensor in () if symbols else (("features", features), ("positions", positions)):
        if tensor is None and name == "positions":
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {tensor.dtype}")
    for name, number in () if symbols else (("num_clusters", num_clusters), ("k", k)):
        if not isinstance(number, int | torch.SymInt):
            raise TypeError(f"{name} must be a whole number, got {number!r}")
    if features.ndim != 3 or 0 in features.shape:
        raise ValueError(f"features must be (B, N, C) and not empty, got {tuple(features.shape)}")
    if not 1 <= num_clusters <= features.shape[1]:
        raise ValueError(f"num_clusters must be 1 to N = {features.shape[1]}, got {num_clusters}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not 0 <= spatial_weight < math.inf:  # also where `torch.compile` made a symbol of it
        raise ValueError(f"spatial_weight must be finite and not negative, got {spatial_weight}")
    if spatial_weight > 0 and positions is None:
        raise ValueError("a spatial_weight needs positions")
    if positions is not None and (positions.ndim != 3 or positions.shape[:2] != features.shape[:2]):
        raise ValueError(
            f"positions must be (B, N, P) for features {tuple(features.shape)}, got {tuple(positions.shape)}"
        )
    if grid is not None and grid[0] * grid[1] != features.shape[1]:
        raise ValueError(f"a grid of {grid} has not N = {features.shape[1]} cells")
