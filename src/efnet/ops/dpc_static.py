"""Clustering by a fixed sequence of tensor operators: nothing depends on the data but the values.

For CUDA graphs, which cannot wait for the host (exported programs can loop: `dpc_exported`). All tokens are
compared with all, some rows at a time, three times over; distances by products are rounded to float32, so
tokens that are equally far but for that rounding may be told apart otherwise than by `dpc_knn` elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from efnet.ops.dpc_arithmetic import mean_square
from efnet.ops.dpc_points import Points

_ROWS = 2048
"""Rows compared with all tokens together."""


def cluster(points: Points, num_clusters: int, k: int) -> tuple[Tensor, Tensor]:
    """Equations 1-3 of EFNet (arXiv 2501.10958).

    Args:
        points: B samples of N tokens.
        num_clusters: M.
        k: neighbours that make the density, the token itself one of them; at most N.

    Returns:
        assignment (B, N) and centres (B, M), as of `dpc_knn`.
    """
    samples = [_sample(points, tokens, num_clusters, k) for tokens in points.numbers().unbind(0)]
    return torch.stack([assignment for assignment, _ in samples]), torch.stack([own for _, own in samples])


def _sample(points: Points, tokens: Tensor, num_clusters: int, k: int) -> tuple[Tensor, Tensor]:
    """Assignment (N,) and centres (M,) of the sample with these tokens."""
    parts = torch.split(tokens, _ROWS)
    squares = torch.cat([_mean_square(points, part, tokens, k) for part in parts])
    order = torch.arange(len(tokens), device=tokens.device)
    places = torch.split(order, _ROWS)
    delta = []
    for part, place in zip(parts, places, strict=True):
        distance = _distances(points, part, tokens)
        own = squares[place, None]
        denser = (squares < own) | ((squares == own) & (order < place[:, None]))
        # The densest token, than which none is denser, is always a centre.
        delta.append(distance.masked_fill(~denser, torch.inf).amin(1))
    # A stable sort, not top-k: of equal scores the first wins.
    separation = torch.cat(delta)
    score = ((-squares).exp() * separation).masked_fill(separation.isinf(), torch.inf)
    centers = score.argsort(descending=True, stable=True)[:num_clusters].sort().values
    chosen = tokens[centers]
    assignment = torch.cat([_distances(points, part, chosen).argmin(1) for part in parts])
    number = torch.arange(num_clusters, device=tokens.device)
    return assignment.scatter(0, centers, number), centers


def _mean_square(points: Points, rows: Tensor, tokens: Tensor, k: int) -> Tensor:
    """(m,) mean squared distance to the k nearest, those measured again by differences."""
    nearest = tokens[_distances(points, rows, tokens).topk(k, 1, largest=False).indices]
    return mean_square(points.apart(rows, nearest).sort(1).values[:, 1:], k)


def _distances(points: Points, rows: Tensor, columns: Tensor) -> Tensor:
    """(m, n) distances by products."""
    distance = (points.partners(rows) @ points.table[columns].T).clamp_min(0).sqrt()
    points.add_spatial(distance, columns, rows[:, None])
    return distance.masked_fill(rows[:, None] == columns, 0)
