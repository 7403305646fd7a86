"""Positions of tokens, for the spatial distance of a clustering (EFNet section II-C, table V)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.compat import is_exporting
from efnet.core.precision import at_least_float32, full_precision
from efnet.models.config import Position, Unit
from efnet.ops.tokens import Size, TokenGrid, map_to_token


def grid_coordinates(size: Size, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """(1, 2, h, w) row and column of every cell, from the middle of the grid, in cells."""
    axes = (torch.arange(cells, device=device).to(dtype) for cells in size)
    rows, columns = (axis - axis[-1] / 2 for axis in axes)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]


class PixelCoordinateEncoding(nn.Module):
    """PCE: a token's mean coordinates in units of the cluster pitch, under a learned linear map.

    The pitch sqrt(h w / M) is the spacing of M clusters spread evenly over the grid, the unit that makes
    distances independent of resolution. The map starts as an isometry. It stays in the plane: distances
    under a linear map A depend only on A^T A, so a wider one could express nothing more. With `unit` image
    the coordinates are divided by the grid's longer side instead, so the place counts less by far.
    """

    width = 2

    def __init__(self, unit: Unit = "pitch") -> None:
        super().__init__()
        self.unit = unit
        self.map = nn.Linear(2, self.width, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the identity."""
        nn.init.eye_(self.map.weight)

    def forward(self, grid: TokenGrid, num_clusters: int) -> Tensor:
        """(B, N, 2) positions y of the grid's tokens, float32 (float64 for a network of that type)."""
        weight = at_least_float32(self.map.weight)
        cells = grid_coordinates(grid.size, weight.device, weight.dtype)
        coordinates = map_to_token(cells.expand(grid.assignment.shape[0], -1, -1, -1), grid)
        with full_precision(weight.device):
            length = pitch(grid.size, num_clusters) if self.unit == "pitch" else longer_side(grid.size)
            return F.linear(coordinates / length, weight)

    def image_unit(self, size: Size, num_clusters: int) -> float | Tensor:
        """Factor to units of the image, in which a weight means the same at every stage and resolution."""
        return 1.0 if self.unit == "image" else pitch(size, num_clusters) / longer_side(size)


class PositionEmbedding(nn.Module):
    """PE: the usual learned absolute embedding, a table stretched over the grid."""

    width = 12
    table_size = (16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(1, self.width, *self.table_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with small normal values."""
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, grid: TokenGrid, num_clusters: int) -> Tensor:
        """(B, N, 12) positions y of the grid's tokens, float32 (float64 for a network of that type)."""
        cells = F.interpolate(at_least_float32(self.table), grid.size, mode="bilinear", align_corners=False)
        return map_to_token(cells.expand(grid.assignment.shape[0], -1, -1, -1), grid)

    @staticmethod
    def image_unit(size: Size, num_clusters: int) -> float:
        """Return 1: an embedding has no unit."""
        return 1.0


def pitch(size: Size, num_clusters: int) -> float | Tensor:
    """Spacing, in cells, of clusters spread evenly over a grid; a tensor in a program for any size."""
    if is_exporting():
        return (torch.scalar_tensor(size[0] * size[1]) / torch.scalar_tensor(num_clusters)).sqrt()
    return math.sqrt(size[0] * size[1] / num_clusters)


def longer_side(size: Size) -> float | Tensor:
    """Longer side of a grid, in cells; a tensor in a program for any size."""
    longer = torch.sym_max(*size)  # type: ignore[no-untyped-call]
    return torch.scalar_tensor(longer) if is_exporting() else longer


def make_position(kind: Position, unit: Unit = "pitch") -> PixelCoordinateEncoding | PositionEmbedding | None:
    """Make the module of a configuration's `position`; `unit` is that of PCE."""
    if kind == "pce":
        return PixelCoordinateEncoding(unit)
    return PositionEmbedding() if kind == "pe" else None
