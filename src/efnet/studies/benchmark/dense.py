"""The dense formulation of clustering, as in the public token-clustering code: float32 and not exact."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from efnet.models import dbtc
from efnet.ops.clustering.dpc_knn import Clusters

MATRICES = 3.25
"""N x N float32 matrices that `dense_dpc_knn` holds at its peak; slightly more than was measured."""


@torch.no_grad()
def dense_dpc_knn(
    features: Tensor,
    num_clusters: int,
    k: int = 5,
    positions: Tensor | None = None,
    spatial_weight: float = 0.0,
    grid: tuple[int, int] | None = None,
) -> Clusters:
    """Compute equations 1-3 with N x N matrices; arguments and result as of `efnet.ops.dpc_knn`."""
    features = features.float()
    with torch.autocast(features.device.type, enabled=False):
        distance = torch.cdist(features, features) / math.sqrt(features.shape[-1])
        if spatial_weight and positions is not None:
            places = positions.float()
            distance = distance + spatial_weight * torch.cdist(places, places)
        density = distance.topk(min(k, distance.shape[-1]), dim=-1, largest=False)
        rho = density.values.square().mean(-1).neg().exp()
        denser = rho[:, None, :] > rho[:, :, None]
        farthest = distance.flatten(1).amax(-1)[:, None, None]
        separation = torch.where(denser, distance, farthest).amin(-1)
        centers = (separation * rho).topk(num_clusters, dim=-1).indices.sort(dim=-1).values
        rows = distance.gather(1, centers[..., None].expand(-1, -1, distance.shape[-1]))
        numbers = torch.arange(num_clusters, device=features.device).expand(len(features), -1)
        return Clusters(rows.argmin(1).scatter(1, centers, numbers), centers)


def dense_bytes(batch: int, tokens: int) -> int:
    """Estimate the peak of one `dense_dpc_knn` of (batch, tokens, C)."""
    return int(MATRICES * 4 * batch * tokens * tokens)


def dense_bytes_of_network(batch: int, size: tuple[int, int]) -> int:
    """Estimate the peak of a forward pass on images (H, W): the first clustering, of all cells."""
    return dense_bytes(batch, math.ceil(size[0] / 4) * math.ceil(size[1] / 4))


@contextlib.contextmanager
def clustering_by(function: Callable[..., Clusters]) -> Iterator[None]:
    """Make the networks of this process cluster by `function` within the block."""
    before = vars(dbtc)["dpc_knn"]
    vars(dbtc)["dpc_knn"] = function
    try:
        yield
    finally:
        vars(dbtc)["dpc_knn"] = before
