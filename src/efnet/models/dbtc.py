"""DBTC: dual-distance balanced token clustering (EFNet section II-C), TCFormer's CTM with a spatial term."""

from __future__ import annotations

from fractions import Fraction

import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.config import Position
from efnet.models.layers import TokenConv, Tokens
from efnet.models.position import PixelCoordinateEncoding, make_position
from efnet.ops.dpc_knn import Clusters, dpc_knn
from efnet.ops.precision import full_precision
from efnet.ops.tokens import Size, merge_tokens


def halve(size: Size) -> Size:
    """Size of a map after a 3x3 convolution of stride 2 and padding 1."""
    return (size[0] - 1) // 2 + 1, (size[1] - 1) // 2 + 1


def kept(count: int, share: float) -> int:
    """A share of some tokens, rounded up: at least one.

    In whole numbers, which an exported program can work out for any number of tokens.
    """
    part = Fraction(share).limit_denominator(1 << 16)
    return (count * part.numerator + part.denominator - 1) // part.denominator


class DBTC(nn.Module):
    """Cluster tokens by semantic and spatial distance and merge each cluster into one token.

    Args:
        in_channels: width of the tokens that come in.
        out_channels: width of the next stage.
        neighbors: k of the density (eq. 2).
        keep: share of the tokens kept.
        position: what the spatial distance is measured on; `none`: the semantic distance alone.
        tau: balance of equation 1; the spatial distance weighs 1 - tau.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        neighbors: int,
        keep: float,
        position: Position = "none",
        tau: float = 1.0,
    ) -> None:
        super().__init__()
        self.neighbors = neighbors
        self.keep = keep
        self.tau = tau
        self.conv = TokenConv(in_channels, out_channels, stride=2)
        self.norm = nn.LayerNorm(out_channels)
        self.score = nn.Linear(out_channels, 1)
        self.position = make_position(position)
        if self.position is not None:
            self.score_position = nn.Linear(self.position.width, 1, bias=False)

    def reset_position_score(self) -> None:
        """The position starts without a say in the importance."""
        if self.position is not None:
            nn.init.zeros_(self.score_position.weight)

    def forward(self, tokens: Tokens) -> tuple[Tokens, Tokens, Tensor]:
        """Merge N tokens into M = ceil(keep * N).

        Args:
            tokens: features (B, N, in_channels).

        Returns:
            the merged tokens (B, M, out_channels), the tokens they were made of (B, N, out_channels),
            and the importance P (B, N, 1) of the latter: the queries, the keys and values, and the
            attention bias of the next stage's first block.
        """
        features = self.norm(self.conv(tokens))
        num_clusters = kept(features.shape[1], self.keep)
        importance = self.score(features)
        positions = None
        if self.position is not None:
            positions = self.position(tokens.grid, num_clusters)
            importance = importance + self._position_score(
                positions * self.position.image_unit(tokens.grid.size, num_clusters)
            )
        clusters = self._cluster(tokens.with_features(features), positions, num_clusters).assignment
        merged = Tokens(
            merge_tokens(features, importance.squeeze(-1), clusters, num_clusters),
            tokens.grid.merged(clusters, num_clusters),
            halve(tokens.map_size),
        )
        return merged, tokens.with_features(features), importance

    def clusters(self, tokens: Tokens) -> Clusters:
        """Cluster tokens as `forward` does once it has brought them to the next stage's width.

        Args:
            tokens: features (B, N, out_channels), as `forward` returns the tokens that it merged.
        """
        num_clusters = kept(tokens.features.shape[1], self.keep)
        positions = None if self.position is None else self.position(tokens.grid, num_clusters)
        return self._cluster(tokens, positions, num_clusters)

    def _cluster(self, tokens: Tokens, positions: Tensor | None, num_clusters: int) -> Clusters:
        return dpc_knn(
            tokens.features.detach(),
            num_clusters,
            k=self.neighbors,
            positions=None if positions is None else positions.detach(),
            spatial_weight=0.0 if positions is None else 1 - self.tau,
            grid=self._regular_grid(tokens),
        )

    def _regular_grid(self, tokens: Tokens) -> Size | None:
        """Size of the grid whose cells the tokens still are, with positions linear in row and column."""
        linear = isinstance(self.position, PixelCoordinateEncoding)
        return tokens.grid.size if linear and tokens.grid.regular else None

    def _position_score(self, positions: Tensor) -> Tensor:
        """(B, N, 1) what the position (B, N, P) adds to the importance.

        Assignment passes no gradient: this is the only way by which the position learns.
        """
        with full_precision(positions.device):
            return F.linear(positions, self.score_position.weight.float())
