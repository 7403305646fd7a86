"""Fast distances with a proof of their error: float32 matrix multiplications, block by block.

A block compares R tokens with S others. Every approximate distance D of a row is within
D * 2^-20 + error of the true one, so that what it decides clearly it decides rightly; the rest is left to
`dpc_exact`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from efnet.ops.dpc_tiles import Tiles

RELATIVE = 2.0**-20
"""Bound of the relative rounding error of a float32 distance once its square is known."""

_BLOCK_BYTES = {"cpu": 4 << 20}
"""Size of a block of distances: on a CPU what stays in its cache."""

_OTHER_BLOCK_BYTES = 256 << 20


class Block(NamedTuple):
    """Approximate distances of t tiles.

    Attributes:
        rows: (t, R) tokens, numbered through the batch; B * N: none.
        columns: (t, S) tokens that they are compared with.
        distance: (t, S, R) float32; infinite to itself and to none.
        error: (t, R) absolute error of a row's distances.
        bound: (t, R) no token outside the columns is nearer.
    """

    rows: Tensor
    columns: Tensor
    distance: Tensor
    error: Tensor
    bound: Tensor

    def low(self, distance: Tensor) -> Tensor:
        """Lower bound of the true distance, (t, R)."""
        return (distance * (1 - RELATIVE) - self.error).clamp_min(0)

    def high(self, distance: Tensor) -> Tensor:
        """Upper bound of the true distance, (t, R)."""
        return distance * (1 + RELATIVE) + self.error


class Points:
    """The tokens of a batch, numbered 0 to B * N - 1, as equation 1 measures them.

    Args:
        features: (B, N, C).
        positions: (B, N, P) or None.
        spatial_weight: weight of the spatial distance.
    """

    def __init__(self, features: Tensor, positions: Tensor | None, spatial_weight: float) -> None:
        self.batch, self.tokens, channels = features.shape
        self.none = self.batch * self.tokens
        self.features = features.flatten(0, 1)
        self.positions = None if positions is None else positions.flatten(0, 1)
        self.spatial_weight = spatial_weight
        self.scale = math.sqrt(channels)
        self.device = features.device
        # Distances do not change by a shift, rounding errors grow with the norm. Float64: equal tokens
        # become exact zeros.
        centre = features[:, :: max(1, self.tokens // 64)].double().mean(1, keepdim=True)
        wide = features if features.dtype == torch.float64 else features.float()
        centred = (wide - centre.to(wide.dtype)).float().flatten(0, 1) / self.scale
        squares = centred.square().sum(1, keepdim=True)
        nothing = squares.new_full((1, 1), torch.inf)
        squares = torch.cat([squares, nothing])
        centred = torch.cat([centred, centred.new_zeros(1, channels)])
        one = torch.ones_like(squares)
        # row . column = |x|^2 + |y|^2 - 2 x.y
        self.as_row = torch.cat([-2 * centred, one, squares], 1)
        self.as_column = torch.cat([centred, squares, one], 1)
        self.norm = squares.sqrt().squeeze(1)
        self.norm[-1] = 0
        # Twice C + 2 roundings of the products and of the squares, and some of the centring.
        self.rounding = (2 * channels + 16) * 2.0**-24
        self.place = None
        self.place_error = 0.0
        if self.positions is not None:
            place = self.positions.float()
            self.place = torch.cat([place, place.new_zeros(1, place.shape[1])])
            if self.positions.dtype == torch.float64:
                moved = (self.positions - place).square().sum(1).sqrt().amax()
                self.place_error = 2 * spatial_weight * moved

    def distances(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Squared feature distances turned into distances, and their error.

        Args:
            rows: (t, R) tokens.
            columns: (t, S) tokens.

        Returns:
            (t, S, R) features' part of equation 1, (t, R) error.
        """
        raise NotImplementedError
