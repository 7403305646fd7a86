"""Exact density-peaks clustering on k nearest neighbours (DPC-KNN), without an N x N matrix.

EFNet (arXiv 2501.10958) equations 1-3; TCFormer (arXiv 2204.08680) is the case without a spatial term.

Where the spatial term bounds the search, `dpc_grid` says which cells of a grid to compare, `dpc_tiles` which
tokens off it, whose nearest few `dpc_windows` finds; `dpc_whole` finds those of all where nothing bounds it.
`dpc_scan` keeps the distances, `dpc_bounds` draws from them what is certain, `dpc_exact` settles the rest.
Where numba is installed and compiled loops pay, `dpc_native` does all that on a CPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from efnet.ops import dpc_bounds, dpc_exact, dpc_exported, dpc_native, dpc_static
from efnet.ops.dpc_bounds import Bounds
from efnet.ops.dpc_points import Points
from efnet.ops.dpc_scan import GridScan, Lattice, ListScan, Near, Scan, suitable_radius
from efnet.ops.dpc_tiles import Tiles, layout, spatial_tiles
from efnet.ops.dpc_whole import nearest_of_all
from efnet.ops.dpc_windows import nearest_in_windows
from efnet.ops.exporting import is_exporting
from efnet.ops.precision import exact_products, full_precision

_RADII = (4, 6, 9)
"""Radii to try on a regular grid, in cells."""

_SPARE = 3
"""Tokens kept beyond the neighbours: one of them is often a centre."""

_REACHES = (0.75, 1.0, 1.5, 3.0)
"""Windows to try, in their usual size."""

_SAMPLED = 12
"""Of so many tiles one is tried first."""

_TOLERATED = 0.03
"""Share of tokens whose neighbours may lie beyond a radius before a wider one is cheaper."""


class Clusters(NamedTuple):
    """Result of a clustering of N tokens into M clusters.

    Attributes:
        assignment: (B, N) int64, for every token the position of its cluster in `centers`.
        centers: (B, M) int64, for every cluster the token that is its centre, ascending.
    """

    assignment: Tensor
    centers: Tensor


@torch.no_grad()
def dpc_knn(
    features: Tensor,
    num_clusters: int,
    k: int = 5,
    positions: Tensor | None = None,
    spatial_weight: float = 0.0,
    grid: tuple[int, int] | None = None,
) -> Clusters:
    r"""Cluster tokens by the density peaks of their features and, optionally, positions.

    With d_ij = ||x_i - x_j|| / sqrt(C) + spatial_weight * ||y_i - y_j|| (eq. 1; the 1/sqrt(C) is
    TCFormer's),

    - density rho_i = exp(-mean of d_ij^2 over the k nearest tokens, i itself counted) (eq. 2);
    - separation delta_i = distance to the nearest denser token; for the densest token, the distance to
      the farthest one (eq. 3);
    - the `num_clusters` tokens of largest rho * delta are the centres; every token joins its nearest
      centre, a centre itself.

    Ties are ordered by index (of equally dense tokens the first counts as denser, of equal scores or
    distances the first wins), so the result does not depend on noise or on the run. Distances that
    decide are evaluated in float64. No gradient passes. A token that holds NaN or infinity counts as zeros.

    On a CPU it takes a third of the time where numba is installed (`pip install 'efnet[fast]'`);
    `EFNET_NATIVE=0` forbids that. For `torch.compile` this is one operator. An exported program finds the
    same by plain operators and loops (`dpc_exported`), a CUDA graph, where nothing may depend on the data, by
    comparing all tokens with all (`dpc_static`); both in float32, ties ordered after that rounding.

    Args:
        features: (B, N, C) token features x.
        num_clusters: M, 1 to N.
        k: neighbours that make the density; N if there are fewer tokens.
        positions: (B, N, P) token positions y; needed if `spatial_weight` is not zero.
        spatial_weight: weight of the spatial distance, 1 - tau in the paper; not negative.
        grid: (h, w), if the tokens are the cells of a regular grid in row-major order and the positions
            linear in row and column. It makes no difference but to speed.

    Returns:
        The assignment (B, N) and the centres (B, M).

    Raises:
        ValueError: a shape, M, k or the weight is out of its range.
        TypeError: no tensors, or M or k no whole number.
    """
    _check(features, num_clusters, k, positions, spatial_weight, grid)
    if is_exporting():
        used = None if spatial_weight == 0 else positions
        return Clusters(*dpc_exported.cluster(features, used, spatial_weight, num_clusters, k, grid))
    if torch.compiler.is_compiling():
        return Clusters(*_operator(features, num_clusters, k, positions, spatial_weight, grid))
    if features.is_meta:  # somebody counts operations or shapes
        return Clusters(*_shapes(features, num_clusters, k, positions, spatial_weight, grid))
    return _cluster(features, num_clusters, k, positions, spatial_weight, grid)


def _cluster(
    features: Tensor,
    num_clusters: int,
    k: int,
    positions: Tensor | None,
    spatial_weight: float,
    grid: tuple[int, int] | None,
) -> Clusters:
    k = min(k, features.shape[1])
    points = Points(features, None if spatial_weight == 0 else positions, spatial_weight)
    # Under autocast or with TF32 the products would be rounded beyond their proven bound.
    with full_precision(features.device), exact_products():
        if _is_recorded(features):
            return Clusters(*dpc_static.cluster(points, num_clusters, k))
        native = dpc_native.cluster(points, num_clusters, k, grid)
        if native is not None:
            return Clusters(*native)
        scan, squares = _neighbors(points, k, grid)
        centers = _centers(points, scan, squares, num_clusters, k)
        return Clusters(_assign(points, scan, centers, k), centers)


def _is_recorded(features: Tensor) -> bool:
    """Whether operators are recorded or transformed, so that nothing may depend on values."""
    return (
        (features.is_cuda and torch.cuda.is_current_stream_capturing())
        or torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined, unused-ignore]
        or torch._C._functorch.is_functorch_wrapped_tensor(features)  # type: ignore[attr-defined, unused-ignore]
    )


@torch.library.custom_op(
    "efnet::dpc_knn",
    mutates_args=(),
    schema="(Tensor features, int num_clusters, int k, Tensor? positions, float spatial_weight, int[]? grid)"
    " -> (Tensor, Tensor)",
)
def _operator(
    features: Tensor,
    num_clusters: int,
    k: int,
    positions: Tensor | None,
    spatial_weight: float,
    grid: list[int] | None,
) -> tuple[Tensor, Tensor]:
    """One opaque operator for `torch.compile`, whose graphs cannot hold what depends on the data."""
    size = None if grid is None else (grid[0], grid[1])
    clusters = _cluster(features, num_clusters, k, positions, spatial_weight, size)
    return clusters.assignment, clusters.centers


@_operator.register_fake
def _shapes(
    features: Tensor, num_clusters: int, k: int, positions: object, spatial_weight: float, grid: object
) -> tuple[Tensor, Tensor]:
    batch, tokens, _ = features.shape
    assignment = features.new_empty(batch, tokens, dtype=torch.int64)
    return assignment, features.new_empty(batch, num_clusters, dtype=torch.int64)


def _check(
    features: Tensor,
    num_clusters: int,
    k: int,
    positions: Tensor | None,
    spatial_weight: float,
    grid: tuple[int, int] | None,
) -> None:
    if not torch.compiler.is_compiling():  # then they are symbols
        _check_types(features, num_clusters, k, positions)
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


def _check_types(features: Tensor, num_clusters: int, k: int, positions: Tensor | None) -> None:
    for name, tensor in (("features", features), ("positions", positions)):
        if tensor is None and name == "positions":
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {tensor.dtype}")
    for name, number in (("num_clusters", num_clusters), ("k", k)):
        if not isinstance(number, int | torch.SymInt):
            raise TypeError(f"{name} must be a whole number, got {number!r}")


def _neighbors(points: Points, k: int, grid: tuple[int, int] | None) -> tuple[Scan, Bounds]:
    """Equation 2, by a scan that holds most tokens' neighbours."""
    scan: Scan | None = _grid_scan(points, k, grid)
    if scan is not None:
        squares, margin = dpc_bounds.mean_squares(scan, k)
        if (margin < 0).float().mean() < _TOLERATED:
            return scan, squares
    scan = ListScan(points, _nearest(points, k, max(k - 1, 1) + _SPARE))
    return scan, dpc_bounds.mean_squares(scan, k)[0]


def _grid_scan(points: Points, k: int, grid: tuple[int, int] | None) -> GridScan | None:
    """The cells of a regular grid within a radius that a sample of the tokens finds wide enough."""
    if grid is None or points.places is None or points.places.shape[1] != 2:
        return None
    lattice = Lattice(points, grid)
    radius = suitable_radius(lattice, k, _RADII, _TOLERATED)
    return None if radius is None else GridScan(lattice, radius)


def _nearest(points: Points, k: int, count: int) -> Near:
    """The nearest few of each token: those of its window where they are proved enough, else of all."""
    tiles = _suitable_tiles(points, k, count)
    if tiles is None:
        return nearest_of_all(points, count)
    near = nearest_in_windows(points, tiles, count)
    unproved = near.unproved(points, k)
    left = near.rows[unproved].sort().values
    if not len(left):
        return near
    parts = zip(near, nearest_of_all(points, count, left), strict=True)
    return Near(*(torch.cat([part[~unproved], whole]) for part, whole in parts))


def _suitable_tiles(points: Points, k: int, count: int) -> Tiles | None:
    """The tiling with fewest distances to measure, by a sample of its tiles; None: compare all with all."""
    places = points.places
    if places is None or places.shape[1] != 2:
        return None
    best, least = None, float(points.tokens)
    for reach in _REACHES:
        sizes = layout(points.tokens, points.spatial_weight / reach)
        if sizes is None or 3 * sizes.run >= least:
            break
        if 3 * sizes.run < count:
            continue
        tiles = spatial_tiles(places.view(points.batch, -1, 2), points.spatial_weight, sizes)
        some = nearest_in_windows(points, Tiles(*(part[::_SAMPLED] for part in tiles)), count)
        share = float(some.unproved(points, k).float().mean())
        if 3 * sizes.run + share * points.tokens < least:
            best, least = tiles, 3 * sizes.run + share * points.tokens
    return best


def _centers(points: Points, scan: Scan, squares: Bounds, count: int, k: int) -> Tensor:
    """(B, M) the tokens of largest score: those that certainly are, and the best of those that may be."""
    separation = dpc_bounds.separations(scan, squares)
    score_bounds = dpc_bounds.scores(squares, separation, points.unit)
    chosen, open_ = dpc_bounds.select(score_bounds, points.batch, count)
    score = torch.where(chosen.flatten(), torch.inf, -1.0).double()
    unsure = open_.flatten().nonzero().squeeze(1)
    if len(unsure):
        exact = dpc_exact.Exact(points, scan, k)
        dpc_exact.mean_squares(exact, unsure, k, squares)
        delta = dpc_exact.separations(exact, unsure, k, squares)
        # The densest token, than which none is denser, is always a centre.
        score[unsure] = points.scores(squares.low[unsure], delta).masked_fill(delta.isinf(), torch.inf)
    order = score.view(points.batch, -1).argsort(dim=1, descending=True, stable=True)
    return order[:, :count].sort(dim=1).values


def _assign(points: Points, scan: Scan, centers: Tensor, k: int) -> Tensor:
    """(B, N) position in `centers` (B, M) of every token's nearest centre."""
    ids = centers + torch.arange(points.batch, device=points.device)[:, None] * points.tokens
    is_center = torch.zeros(points.none, dtype=torch.bool, device=points.device)
    is_center[ids.flatten()] = True
    nearest, certain = dpc_bounds.nearest_centers(scan, is_center)
    unsure = (~certain & ~is_center).nonzero().squeeze(1)
    if len(unsure):
        exact = dpc_exact.Exact(points, scan, 1, among=ids)
        nearest[unsure] = dpc_exact.nearest_centers(exact, unsure, is_center)
    nearest[ids.flatten()] = ids.flatten()
    number = nearest.new_zeros(points.none + 1)
    number[ids.flatten()] = torch.arange(centers.shape[1], device=ids.device).repeat(points.batch)
    return number[nearest].view(points.batch, -1)
