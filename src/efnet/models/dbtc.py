"""DBTC: dual-distance balanced token clustering (EFNet section II-C), TCFormer's CTM with a spatial term."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.compat import is_exporting
from efnet.core.precision import at_least_float32, full_precision
from efnet.models.config import Density, Distance, Position, Unit
from efnet.models.layers import TokenConv, Tokens
from efnet.models.position import PixelCoordinateEncoding, make_position
from efnet.ops.clustering.dpc_knn import Clusters, dpc_knn
from efnet.ops.tokens import Size, merge_tokens


def halve(size: Size) -> Size:
    """Size of a map after a 3x3 convolution of stride 2 and padding 1."""
    return (size[0] - 1) // 2 + 1, (size[1] - 1) // 2 + 1


def kept(count: int, share: float) -> int:
    """Number of tokens in a share, rounded up: in integers, so that exported programs take any `count`."""
    part = Fraction(share).limit_denominator(1 << 16)
    return (count * part.numerator + part.denominator - 1) // part.denominator


class Readings(TypedDict, total=False):
    """Readings of equations 1 and 2, as of `NetworkOptions`."""

    distance: Distance
    density: Density
    unit: Unit


class DBTC(nn.Module):
    """Cluster tokens by semantic and spatial distance and merge each cluster into one token.

    The density looks at `neighbors` tokens (k in eq. 2), and the share `keep` of the tokens remains. The
    spatial distance is measured on `position` (`none`: the semantic distance alone) and weighs 1 - tau (eq.
    1). `distance`, `density` and `unit` are other readings of the paper, as of `NetworkOptions`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        neighbors: int,
        keep: float,
        position: Position = "none",
        tau: float = 1.0,
        distance: Distance = "additive",
        density: Density = "itself",
        unit: Unit = "pitch",
    ) -> None:
        super().__init__()
        self.neighbors = neighbors
        self.keep = keep
        self.tau = tau
        self.semantic = tau if distance == "balanced" else 1.0
        self.density: Density = density
        self.conv = TokenConv(in_channels, out_channels, stride=2)
        self.norm = nn.LayerNorm(out_channels)
        self.score = nn.Linear(out_channels, 1)
        self.position = make_position(position, unit)
        if self.position is not None:
            self.score_position = nn.Linear(self.position.width, 1, bias=False)

    def reset_position_score(self) -> None:
        """Zero-initialise, so that position does not affect the importance at first."""
        if self.position is not None:
            nn.init.zeros_(self.score_position.weight)

    def forward(self, tokens: Tokens) -> tuple[Tokens, Tokens, Tensor]:
        """Merge tokens (B, N, in_channels) into M = ceil(keep * N).

        Returns the merged tokens (B, M, out_channels), the tokens they were made of (B, N, out_channels), and
        the latter's importance P (B, N, 1): queries, keys and values, and attention bias of the next stage's
        first block.
        """
        features = self.norm(self.conv(tokens))
        num_clusters = kept(features.shape[1], self.keep)
        importance = self.score(features)
        positions = None
        if self.position is not None:
            positions = self.position(tokens.grid, num_clusters)
            placed = positions * self.position.image_unit(tokens.grid.size, num_clusters)
            with full_precision(placed.device):  # the only source of gradients of the positions
                importance = importance + F.linear(placed, at_least_float32(self.score_position.weight))
        clusters = self._cluster(tokens.with_features(features), positions, num_clusters).assignment
        merged = Tokens(
            merge_tokens(features, importance.squeeze(-1), clusters, num_clusters),
            tokens.grid.merged(clusters, num_clusters),
            halve(tokens.map_size),
        )
        return merged, tokens.with_features(features), importance

    def clusters(self, tokens: Tokens) -> Clusters:
        """Cluster tokens (B, N, out_channels) of the kind that `forward` returns second."""
        num_clusters = kept(tokens.features.shape[1], self.keep)
        positions = None if self.position is None else self.position(tokens.grid, num_clusters)
        return self._cluster(tokens, positions, num_clusters)

    def _cluster(self, tokens: Tokens, positions: Tensor | None, num_clusters: int) -> Clusters:
        # Positions linear in row and column, and tokens that are still the grid's cells: searched by windows.
        linear = isinstance(self.position, PixelCoordinateEncoding)
        features = tokens.features.detach()
        places = None if positions is None else positions.detach()
        k = self.neighbors
        if self.semantic != 1:
            features = at_least_float32(features) * self.semantic
        if self.density == "others":
            # The mean over k others is that over k + 1 with the token itself, whose distance is zero, times
            # (k + 1) / k. This scales all distances alike, so that order of scores and assignment stay.
            factor = _others(features.shape[1], k)
            features = at_least_float32(features) * factor
            places = None if places is None else places * factor
            k += 1
        return dpc_knn(
            features,
            num_clusters,
            k=k,
            positions=places,
            spatial_weight=0.0 if positions is None else 1 - self.tau,
            grid=tokens.grid.size if linear and tokens.grid.regular else None,
        )


def _others(count: int, k: int) -> float | Tensor:
    """Return sqrt((k + 1) / k) for the neighbours that `count` tokens have; a tensor in exported programs."""
    found = torch.sym_min(count, k + 1)  # type: ignore[no-untyped-call]
    if is_exporting():
        several = torch.scalar_tensor(found)
        return (several / (several - 1).clamp_min(1)).sqrt()
    return math.sqrt(found / max(1, found - 1))
