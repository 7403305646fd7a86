"""Equations 1-3 of EFNet as they stand: full matrices, plain differences, float64, ties by index."""

import math

import torch
from torch import Tensor


def distances(features: Tensor, positions: Tensor | None, weight: float) -> Tensor:
    """Equation 1, (N, N)."""
    x = features.double()
    d = _norms(x) / math.sqrt(x.shape[-1])
    if positions is not None and weight:
        y = positions.double()
        d = d + weight * _norms(y)
    return d


def _norms(points: Tensor) -> Tensor:
    """(N, N) norms of differences; row by row, since N x N x C numbers would fill gigabytes."""
    return torch.stack([(points - point).square().sum(-1).sqrt() for point in points])


def cluster(
    features: Tensor, num_clusters: int, k: int, positions: Tensor | None = None, weight: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Centres (M,) and assignment (N,) of one sample."""
    n = len(features)
    d = distances(features, positions, weight)
    density = torch.exp(-d.sort(dim=1).values[:, : min(k, n)].square().mean(1))
    index = torch.arange(n)
    denser = (density[None] > density[:, None]) | (
        (density[None] == density[:, None]) & (index < index[:, None])
    )
    separation = d.masked_fill(~denser, torch.inf).amin(1)
    separation = torch.where(denser.any(1), separation, d.amax(1))
    score = density * separation
    centers = score.argsort(descending=True, stable=True)[:num_clusters].sort().values
    assignment = d[:, centers].argmin(1)
    assignment[centers] = torch.arange(num_clusters)
    return centers, assignment
