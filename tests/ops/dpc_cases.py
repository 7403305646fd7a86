"""Tokens for tests of the clustering, and the comparison with the transcription of its equations."""

from __future__ import annotations

import pytest
import torch
from dpc_transcription import cluster
from torch import Tensor

from efnet.ops.clustering.dpc_knn import dpc_knn


def assert_exact(
    features: Tensor,
    num_clusters: int,
    k: int = 5,
    positions: Tensor | None = None,
    weight: float = 0.0,
    size: tuple[int, int] | None = None,
) -> None:
    """By products as by compiled loops: the same as the transcription."""
    results = []
    for loops in ("0", "1"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EFNET_NATIVE", loops)
            results.append(dpc_knn(features, num_clusters, k, positions, weight, size))
        assert results[-1].centers.shape == (len(features), num_clusters)
    for sample in range(len(features)):
        own = None if positions is None else positions[sample]
        centers, assignment = cluster(features[sample], num_clusters, k, own, weight)
        for result in results:
            torch.testing.assert_close(result.centers[sample], centers, rtol=0, atol=0)
            torch.testing.assert_close(result.assignment[sample], assignment, rtol=0, atol=0)


def grid(height: int, width: int, pitch: float = 2.0) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns], -1).flatten(0, 1).float()[None] / pitch


def smooth(height: int, width: int, channels: int, seed: int = 0, batch: int = 1) -> Tensor:
    """Layer-normalised features that change slowly over a grid, with some noise."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, channels, max(2, height // 6), max(2, width // 6), generator=random)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    fine = fine + 0.2 * torch.randn(fine.shape, generator=random)
    return torch.nn.functional.layer_norm(fine.flatten(2).transpose(1, 2), (channels,))


def clustered(tokens: int, channels: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    means = torch.randn(1, 9, channels, generator=random)
    pick = torch.randint(9, (tokens,), generator=random)
    return means[:, pick] + 0.05 * torch.randn(1, tokens, channels, generator=random)


def duplicated(tokens: int, channels: int, kinds: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(1, kinds, channels, generator=random)[
        :, torch.randint(kinds, (tokens,), generator=random)
    ]


def integers(tokens: int, channels: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 3, (1, tokens, channels), generator=random).float()


FEATURES = {
    "random": torch.randn(1, 620, 16, generator=torch.Generator().manual_seed(1)),
    "clustered": clustered(620, 16),
    "near": 30 + 1e-4 * torch.randn(1, 620, 16, generator=torch.Generator().manual_seed(2)),
    "far": 1e3 * torch.randn(1, 620, 16, generator=torch.Generator().manual_seed(3)),
    "duplicated": duplicated(620, 16, 150),
    "few kinds": duplicated(620, 16, 7),
    "equal": torch.full((1, 620, 16), 0.3),
    "integers": integers(620, 4),
    "smooth": smooth(20, 31, 16),
}
