"""Tokens of a stage: what passes between the modules of the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from efnet.ops.tokens import Size, TokenGrid, map_to_token, token_to_map


@dataclass(frozen=True)
class Tokens:
    """Features of tokens and where the tokens lie.

    Attributes:
        features: (B, N, C).
        grid: which token every cell of the initial grid belongs to.
        map_size: (H, W) of the map on which this stage's convolutions see the tokens.
    """

    features: Tensor
    grid: TokenGrid
    map_size: Size

    @property
    def assignment(self) -> Tensor:
        """(B, h * w) token of each cell of the initial grid."""
        return self.grid.assignment

    def with_features(self, features: Tensor) -> Tokens:
        """The same tokens with other features (B, N, C')."""
        return replace(self, features=features)

    def to_map(self, map_size: Size | None = None) -> Tensor:
        """(B, C, H, W) the features as a map, by default of this stage's size."""
        return token_to_map(self.features, self.grid, map_size or self.map_size)

    def from_map(self, features: Tensor) -> Tensor:
        """(B, N, C) a map (B, C, H, W) at these tokens."""
        return map_to_token(features, self.grid)
