"""Windows on a regular grid, for exported programs: tiles of cells against the cells around them.

All tiles at once are one batched matrix multiplication. With positions y = a + A (row, column), cells an
offset o apart are at least ||o|| times the smallest singular value of A apart (EFNet, arXiv 2501.10958,
equation 1): what is nearer to a token than that, at the nearest cell beyond its window, nothing outside can
undercut.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efnet.ops.dpc_loop import HUGE, Table, masked_by_rank, partner

TILE = 8
"""Side of a tile, in cells."""

HALO = 4
"""Cells looked at beyond a tile on each side."""

_SIDE = TILE + 2 * HALO

_NONE = 2**62
"""Beyond any cell."""

_SAFE = 1 - 2.0**-16
"""Keeps rounding on the safe side of a bound."""


@dataclass(frozen=True)
class Window:
    """Distances of T tiles of R cells to the S cells of their windows.

    Attributes:
        distance: (B, T, R, S).
        column: (T, S) the cells of a window; N for none.
        place: (N,) where in T * R a cell is.
        bound: (N,) no cell outside its window is nearer.
    """

    distance: Tensor
    column: Tensor
    place: Tensor
    bound: Tensor

    def nearest(self, k: int) -> tuple[Tensor, Tensor]:
        """Distances and numbers (B, N, k) of the nearest cells in the window."""
        near = self.distance.topk(k, 3, largest=False)
        return self._by_cell(near.values), self._cells(near.indices)

    def nearest_denser(self, rank: Tensor) -> Tensor:
        """(B, N) distance to the nearest cell of lower rank (B, N) in the window; huge: there is none."""
        none = torch.full_like(rank[:, :1], 2.0**24)
        ranks = torch.cat([rank, none], 1)
        theirs, own = ranks[:, self.column][:, :, None], ranks[:, self._rows()][..., None]
        return self._by_cell(masked_by_rank(self.distance, theirs, own).amin(3))

    def nearest_allowed(self, barred: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and number (B, N) of the nearest cell that is not `barred` (B, N) by a huge number."""
        penalty = torch.cat([barred, torch.full_like(barred[:, :1], HUGE)], 1)
        distance, index = (self.distance + penalty[:, self.column][:, :, None]).min(3)
        return self._by_cell(distance), self._cells(index[..., None])[..., 0]

    def _rows(self) -> Tensor:
        """(T, R) the cells of a tile, N for none."""
        inner = torch.arange(TILE, device=self.column.device) + HALO
        return self.column[:, (inner[:, None] * _SIDE + inner).flatten()]

    def _by_cell(self, values: Tensor) -> Tensor:
        """(B, T, R, ...) to (B, N, ...)."""
        return values.flatten(1, 2).index_select(1, self.place)

    def _cells(self, index: Tensor) -> Tensor:
        """Places in a window (B, T, R, c) as cells (B, N, c); none becomes the last cell."""
        column = self.column.clamp_max(self.place.shape[0] - 1)
        tile = torch.arange(column.shape[0], device=column.device)[:, None, None]
        return column.flatten()[self._by_cell(index + tile * column.shape[1])]


def window_of(table: Table, grid: tuple[int, int]) -> Window:
    """Compare every cell of a grid with those of its window.

    Args:
        table: of the N = h * w cells, row-major, with places linear in row and column.
        grid: (h, w).
    """
    assert table.places is not None
    height, width = grid
    device = table.values.device
    down, across = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    side = torch.arange(_SIDE, device=device) - HALO
    row = (torch.arange(down, device=device) * TILE)[:, None, None, None] + side[:, None]
    column = (torch.arange(across, device=device) * TILE)[:, None, None] + side
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    cells = (row * width + column).masked_fill(~inside, _NONE).clamp_max(height * width)
    cells = cells.flatten(0, 1).flatten(1)  # (T, S)

    none = torch.zeros_like(table.values[:, :1])
    none[..., -2:] = torch.tensor([HUGE, 1.0], device=device)
    values = torch.cat([table.values, none], 1)
    inner = torch.arange(TILE, device=device) + HALO
    # (B, T, S, C + 2)
    around = values.index_select(1, cells.flatten())
    around = around.view(values.shape[0], down * across, _SIDE**2, values.shape[2])
    rows = partner(around.index_select(2, (inner[:, None] * _SIDE + inner).flatten()))
    apart = (rows @ around.transpose(2, 3)).abs().sqrt()
    steps = _steps(table.places[0], height, width)
    y, x = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    place = ((y // TILE * across + x // TILE) * TILE**2 + y % TILE * TILE + x % TILE).flatten()
    return Window(
        apart + _spatial(steps),
        cells,
        place,
        _bound(steps).flatten()[place % TILE**2],
    )


def _steps(places: Tensor, height: int, width: int) -> Tensor:
    """(2, P) how a weighted position changes from row to row, and from column to column."""
    first, last_row, last_column = places[0], places[(height - 1) * width], places[width - 1]
    rows, columns = torch.scalar_tensor(height - 1), torch.scalar_tensor(width - 1)
    return torch.stack([(last_row - first) / rows, (last_column - first) / columns])


def _spatial(steps: Tensor) -> Tensor:
    """(R, S) spatial distance between the cells of a tile and those of its window, the same for all tiles."""
    tile = torch.arange(TILE, device=steps.device)
    side = torch.arange(_SIDE, device=steps.device) - HALO
    offset = (side - tile[:, None]).float()  # (TILE, SIDE)
    down = offset[:, None, :, None, None] * steps[0]
    right = offset[None, :, None, :, None] * steps[1]
    return (down + right).square().sum(-1).sqrt().view(TILE**2, _SIDE**2)


def _bound(steps: Tensor) -> Tensor:
    """(TILE, TILE) what is outside the window of a tile's cell is at least so far from it."""
    a, b, c = steps[0].square().sum(), (steps[0] * steps[1]).sum(), steps[1].square().sum()
    # Of [[a, b], [b, c]], whose roots of eigenvalues are the singular values.
    middle, spread = (a + c) / 2, (((a - c) / 2).square() + b.square()).sqrt()
    least = (middle - spread - (middle + spread) * 2.0**-20).clamp_min(0).sqrt()
    tile = torch.arange(TILE, device=steps.device)
    gap = torch.minimum(tile, TILE - 1 - tile) + HALO + 1
    return torch.minimum(gap[:, None], gap).float() * least * _SAFE
