"""Exact density-peaks clustering on k nearest neighbours (DPC-KNN), in blocks: no N x N matrix ever exists.

EFNet (arXiv 2501.10958) equations 1-3; TCFormer (arXiv 2204.08680) is the case without a spatial term.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK_BYTES = 24 << 20
"""Size of one block of distances; about five blocks are alive at once."""


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
    decide are evaluated in float64. No gradient passes.

    Args:
        features: (B, N, C) token features x.
        num_clusters: M, 1 to N.
        k: neighbours that make the density; N if there are fewer tokens.
        positions: (B, N, P) token positions y; needed if `spatial_weight` is not zero.
        spatial_weight: weight of the spatial distance, 1 - tau in the paper; not negative.

    Returns:
        The assignment (B, N) and the centres (B, M).

    Raises:
        ValueError: a shape, M, k or the weight is out of its range.
    """
    _check(features, num_clusters, k, positions, spatial_weight)
    if spatial_weight == 0:
        positions = None
    samples = [
        _cluster_one(
            _Space(sample, None if positions is None else positions[index], spatial_weight),
            num_clusters,
            min(k, features.shape[1]),
        )
        for index, sample in enumerate(features)
    ]
    return Clusters(*(torch.stack(parts) for parts in zip(*samples, strict=True)))


def _check(
    features: Tensor, num_clusters: int, k: int, positions: Tensor | None, spatial_weight: float
) -> None:
    if features.ndim != 3 or 0 in features.shape:
        raise ValueError(f"features must be (B, N, C) and not empty, got {tuple(features.shape)}")
    if not 1 <= num_clusters <= features.shape[1]:
        raise ValueError(f"num_clusters must be 1 to N = {features.shape[1]}, got {num_clusters}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if spatial_weight < 0 or not math.isfinite(spatial_weight):
        raise ValueError(f"spatial_weight must be finite and not negative, got {spatial_weight}")
    if spatial_weight > 0 and positions is None:
        raise ValueError("a spatial_weight needs positions")
    if positions is not None and (positions.ndim != 3 or positions.shape[:2] != features.shape[:2]):
        raise ValueError(
            f"positions must be (B, N, P) for features {tuple(features.shape)}, got {tuple(positions.shape)}"
        )


class _Space:
    """The N tokens of one sample as points between which equation 1 measures, in float64."""

    def __init__(self, features: Tensor, positions: Tensor | None, spatial_weight: float) -> None:
        self.features = features.double()
        self.positions = None if positions is None else positions.double()
        self.spatial_weight = spatial_weight
        self.squares = self.features.square().sum(-1)
        self.scale = math.sqrt(features.shape[-1])

    def __len__(self) -> int:
        return len(self.features)

    def select(self, index: Tensor | slice) -> _Space:
        """The points at `index`, in its order."""
        part = object.__new__(_Space)
        part.features = self.features[index]
        part.positions = None if self.positions is None else self.positions[index]
        part.spatial_weight = self.spatial_weight
        part.squares = self.squares[index]
        part.scale = self.scale
        return part

    def all_pairs(self, other: _Space) -> Tensor:
        """Distances (len(self), len(other)) by matrix multiplication.

        What rounding leaves of the distance between equal features becomes an exact zero.
        """
        squares = self.squares[:, None] + other.squares
        distance = torch.addmm(squares, self.features, other.features.T, alpha=-2)
        noise = 4 * self.features.shape[-1] * torch.finfo(torch.float64).eps
        distance.masked_fill_(distance <= squares.mul_(noise), 0).sqrt_().div_(self.scale)
        if self.positions is not None and other.positions is not None:
            spatial = torch.zeros_like(distance)
            for y, z in zip(self.positions.T, other.positions.T, strict=True):
                spatial += (y[:, None] - z).square_()
            distance.add_(spatial.sqrt_(), alpha=self.spatial_weight)
        return distance

    def row_pairs(self, other: _Space) -> Tensor:
        """Distance of every point to the point of the same row in `other`, by plain differences.

        Equal rows give bit-equal distances, on which the order of ties rests.
        """
        distance = (self.features - other.features).square_().sum(-1).sqrt_().div_(self.scale)
        if self.positions is not None and other.positions is not None:
            spatial = (self.positions - other.positions).square_().sum(-1).sqrt_()
            distance.add_(spatial, alpha=self.spatial_weight)
        return distance

    def blocks(self, columns: int) -> list[slice]:
        """Row ranges whose distances to `columns` points fill one block of memory."""
        rows = max(1, _BLOCK_BYTES // (8 * max(columns, self.features.shape[-1])))
        return [slice(start, min(start + rows, len(self))) for start in range(0, len(self), rows)]


def _cluster_one(space: _Space, num_clusters: int, k: int) -> tuple[Tensor, Tensor]:
    density = _density(space, k)
    score = density * _separation(space, density)
    centers = score.argsort(descending=True, stable=True)[:num_clusters].sort().values
    return _assign(space, centers), centers


def _density(space: _Space, k: int) -> Tensor:
    """Equation 2, (N,)."""
    density = torch.empty_like(space.squares)
    for rows in space.blocks(len(space)):
        block = space.select(rows)
        nearest = block.all_pairs(space).topk(k, largest=False).indices
        distances = [block.row_pairs(space.select(column)) for column in nearest.unbind(1)]
        # Sorted, so that equal sets of distances add up to bit-equal densities.
        density[rows] = torch.stack(distances, 1).sort(1).values.square().mean(1).neg().exp()
    return density


def _separation(space: _Space, density: Tensor) -> Tensor:
    """Equation 3, (N,). In order of density the denser tokens of a row are the rows before it."""
    order = density.argsort(descending=True, stable=True)
    ranked = space.select(order)
    nearest = torch.zeros_like(order)
    for rows in space.blocks(len(space)):
        distance = ranked.select(rows).all_pairs(ranked.select(slice(0, rows.stop)))
        rank = torch.arange(rows.start, rows.stop, device=order.device)
        own = torch.arange(rows.start, rows.stop, device=order.device) >= rank[:, None]
        distance[:, rows].masked_fill_(own, torch.inf)
        nearest[rows] = distance.argmin(1)
    nearest[0] = ranked.select(slice(0, 1)).all_pairs(ranked)[0].argmax()
    separation = torch.empty_like(density)
    for rows in space.blocks(space.features.shape[-1]):
        separation[order[rows]] = ranked.select(rows).row_pairs(ranked.select(nearest[rows]))
    return separation


def _assign(space: _Space, centers: Tensor) -> Tensor:
    """Position in `centers` of every token's nearest centre, (N,)."""
    assignment = torch.empty_like(space.squares, dtype=torch.int64)
    chosen = space.select(centers)
    for rows in space.blocks(len(centers)):
        distance = space.select(rows).all_pairs(chosen)
        # Rounding must not decide between centres at one distance: the first within it wins.
        nearest = distance.amin(1, keepdim=True)
        assignment[rows] = (distance <= nearest + 1e-12 * (1 + nearest)).int().argmax(1)
    assignment[centers] = torch.arange(len(centers), device=centers.device)
    return assignment
