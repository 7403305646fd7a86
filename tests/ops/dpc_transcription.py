"""Equations 1-3 of EFNet as they stand: full matrices, plain differences, float64, a fixed order of sums.

NumPy rounds each addition, multiplication and square root on its own. The order of sums is that of
`docs/clustering.md`, written down a second time: this module shares the exponential with the code under test,
and nothing else.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from efnet.ops.clustering.distances import exponential

LANES = 32

Floats = NDArray[np.float64]


def distances(features: Tensor, positions: Tensor | None, weight: float) -> Tensor:
    """Equation 1, (N, N)."""
    d = _norms(features) * (1 / math.sqrt(features.shape[-1]))
    if positions is not None and weight:
        d = d + _norms(positions) * weight
    return torch.from_numpy(d)


def _norms(points: Tensor) -> Floats:
    """(N, N) norms of differences; some rows at a time, since N x N x C numbers would fill gigabytes."""
    columns = points.detach().double().numpy().T.copy()
    rows = np.array_split(np.arange(len(points)), math.ceil(LANES * len(points) ** 2 / 2**18))
    return np.concatenate([np.sqrt(_sums(columns, some)) for some in rows])


def _sums(columns: Floats, rows: NDArray[np.int64]) -> Floats:
    """Squared distances of some rows to all: column c is in lane c mod 32, then upper half to lower.

    Lanes without a column are left out: they would add zeros.
    """
    lanes = np.zeros((min(LANES, 1 << (len(columns) - 1).bit_length()), len(rows), columns.shape[1]))
    for c, column in enumerate(columns):
        differences = column - column[rows, None]
        lanes[c % LANES] += differences * differences
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = lanes[:half] + lanes[half:]
    sums: Floats = lanes[0]
    return sums


def cluster(
    features: Tensor, num_clusters: int, k: int, positions: Tensor | None = None, weight: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Centres (M,) and assignment (N,) of one sample."""
    n = len(features)
    d = distances(features, positions, weight)
    m = torch.zeros(n, dtype=torch.float64)
    for nearest in d.topk(min(k, n), largest=False).values.unbind(1):
        m = m + nearest * nearest
    m = m * (1 / min(k, n))
    index = torch.arange(n)
    denser = (m[None] < m[:, None]) | ((m[None] == m[:, None]) & (index < index[:, None]))
    separation = d.masked_fill(~denser, torch.inf).amin(1)
    densest = ~denser.any(1)
    score = exponential(-m) * separation.masked_fill(densest, 0)
    score[densest] = torch.inf  # its separation is the largest distance: no score exceeds its own
    centers = score.argsort(descending=True, stable=True)[:num_clusters].sort().values
    assignment = d[:, centers].argmin(1)
    assignment[centers] = torch.arange(num_clusters)
    return centers, assignment
