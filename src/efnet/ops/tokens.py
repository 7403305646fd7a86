"""Tokens, maps and windows: where tokens lie on the initial grid, and how features pass between them.

A token owns cells of the initial grid. Token to map averages over a map cell's tokens, map to token over
a token's cells (TCFormer, arXiv 2204.08680, section 3.3), each weighted by shared cells of the initial
grid. Both are sums over groups of rows, which `embedding_bag` computes without gathering the rows first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.core.compat import is_exporting, static_exchange
from efnet.ops.segments import Exchange, Segments, exchange, segments, sum_segments

Size = tuple[int, int]


class Groups(NamedTuple):
    """Rows sorted by the group they belong to, in the form `embedding_bag` takes."""

    order: Tensor  # (rows,) row numbers, those of the first group first
    starts: Tensor  # (groups,) where each group begins in `order`
    segments: Segments | None = None  # what takes the place of `starts` in an exported program


def group_rows(group: Tensor, num_groups: int) -> Groups:
    """Sort rows by group.

    Args:
        group: (B, rows) group of each row, 0 to `num_groups` - 1 within its sample; none empty.
        num_groups: groups per sample.

    Returns:
        Groups over the B * rows flattened rows and B * num_groups groups.
    """
    flat = (group + sample_offsets(group.shape[0], num_groups, group.device)).flatten()
    ordered, order = flat.sort(stable=True)
    if is_exporting():
        parts = segments(ordered, group.shape[0] * num_groups)
        return Groups(order, parts.start, parts)
    starts = torch.searchsorted(ordered, torch.arange(group.shape[0] * num_groups, device=group.device))
    return Groups(order, starts)


def sample_offsets(batch: int, rows: int, device: torch.device) -> Tensor:
    """(B, 1) first row of each sample when B samples of `rows` rows are flattened."""
    return (torch.arange(batch, device=device) * rows)[:, None]


class TokenGrid:
    """Which token every cell of the initial grid belongs to.

    Args:
        assignment: (B, n) int64 token of each of the n = h * w cells, row-major; every token owns one.
        num_tokens: N.
        size: (h, w) of the initial grid.
        regular: the tokens are the cells of the grid, in order.
    """

    def __init__(self, assignment: Tensor, num_tokens: int, size: Size, regular: bool = False) -> None:
        self.assignment = assignment
        self.num_tokens = num_tokens
        self.size = size
        self.regular = regular
        self._cells: Groups | None = None
        self._exchanges: dict[str, Exchange] = {}
        self._to_map: dict[Size, tuple[Tensor, Groups]] = {}
        self._to_token: dict[Size, Tensor] = {}

    @classmethod
    def whole(cls, batch: int, size: Size, device: torch.device) -> TokenGrid:
        """The grid itself as tokens: one for every cell."""
        cells = size[0] * size[1]
        assignment = torch.arange(cells, device=device).expand(batch, cells)
        return cls(assignment, cells, size, regular=True)

    @property  # not a cached one, whose lock `torch.compile` cannot enter
    def cells(self) -> Groups:
        """The cells of the batch, grouped by token; found once for all that a stage asks."""
        if self._cells is None:
            self._cells = group_rows(self.assignment, self.num_tokens)
        return self._cells

    def exchange(self, map_size: Size) -> Exchange:
        """Means between the tokens of the batch and a map, for an exported program.

        There sizes are symbols, which cannot be looked up in a cache but by their names.
        """
        name, static = str(map_size), static_exchange()
        if name not in self._exchanges and static is not None:
            self._exchanges[name] = static(self, map_size)
        if name not in self._exchanges:
            batch, device = self.assignment.shape[0], self.assignment.device
            cells = map_size[0] * map_size[1]
            cell = cell_index(self.size, map_size, device) + sample_offsets(batch, cells, device)
            token = self.assignment + sample_offsets(batch, self.num_tokens, device)
            self._exchanges[name] = exchange(
                token.flatten(), cell.flatten(), batch * self.num_tokens, batch * cells, self.regular
            )
        return self._exchanges[name]

    def rows_of_map(self, map_size: Size) -> tuple[Tensor, Groups]:
        """Tokens of the batch in the order of a map's cells, and which each has; found once for a size."""
        if map_size not in self._to_map:
            batch, device = self.assignment.shape[0], self.assignment.device
            of_sample = _cells_of_map(self.size, map_size, device)
            rows = self.assignment[:, of_sample.order] + sample_offsets(batch, self.num_tokens, device)
            starts = of_sample.starts + sample_offsets(batch, len(of_sample.order), device)
            self._to_map[map_size] = rows.flatten(), Groups(of_sample.order, starts.flatten())
        return self._to_map[map_size]

    def rows_of_tokens(self, map_size: Size) -> Tensor:
        """Map cells of the batch in the order of `cells`; found once for a size."""
        if map_size not in self._to_token:
            batch, device = self.assignment.shape[0], self.assignment.device
            cells = cell_index(self.size, map_size, device)
            index = cells + sample_offsets(batch, map_size[0] * map_size[1], device)
            self._to_token[map_size] = index.flatten()[self.cells.order]
        return self._to_token[map_size]

    def merged(self, clusters: Tensor, num_clusters: int) -> TokenGrid:
        """The grid after tokens joined clusters: `clusters` (B, N) holds each token's."""
        return TokenGrid(clusters.gather(1, self.assignment), num_clusters, self.size)


_F = TypeVar("_F", bound=Callable[..., Any])


def _kept(function: _F) -> _F:
    """Keep results by their arguments, but not in a graph, which keeps constants itself and has symbols."""
    cached = lru_cache(maxsize=64)(function)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(*arguments)
        # In inference mode the cached tensor could not serve a later training step.
        with torch.inference_mode(False):
            return cached(*arguments)

    return cast(_F, call)


@_kept
def cell_index(grid_size: Size, map_size: Size, device: torch.device) -> Tensor:
    """(n,) the map cell that each initial cell falls into, by nearest-neighbour index."""
    rows, columns = (
        torch.arange(cells, device=device) * parts // cells
        for cells, parts in zip(grid_size, map_size, strict=True)
    )
    return (rows[:, None] * map_size[1] + columns).flatten()


@_kept
def _cells_of_map(grid_size: Size, map_size: Size, device: torch.device) -> Groups:
    """The initial cells grouped by the map cell they fall into."""
    return group_rows(cell_index(grid_size, map_size, device)[None], map_size[0] * map_size[1])


def token_to_map(features: Tensor, grid: TokenGrid, map_size: Size) -> Tensor:
    """Features of tokens as a map: every map cell is the mean over its initial cells' tokens.

    Args:
        features: (B, N, C).
        grid: where the tokens lie.
        map_size: (H, W), not larger than the initial grid.

    Returns:
        (B, C, H, W), channels last in memory.
    """
    batch, _, channels = features.shape
    if grid.regular and map_size == grid.size:
        # Not a view of the transpose: of one sample that has a stride by which convolutions do not
        # know the layout, and they copy the map twice.
        return features.view(batch, *map_size, channels).permute(0, 3, 1, 2)
    if is_exporting():
        cells = grid.exchange(map_size).to_map.mean(features.flatten(0, 1))
        return cells.view(batch, *map_size, channels).permute(0, 3, 1, 2)
    tokens, groups = grid.rows_of_map(map_size)
    cells = _sum_rows(features.flatten(0, 1), tokens, groups, mean=True)
    return cells.view(batch, *map_size, channels).permute(0, 3, 1, 2)


def map_to_token(features: Tensor, grid: TokenGrid) -> Tensor:
    """Features of a map at the tokens: every token is the mean over its initial cells' map cells.

    Args:
        features: (B, C, H, W).
        grid: where the tokens lie.

    Returns:
        (B, N, C).
    """
    batch, channels, height, width = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels)
    if grid.regular and (height, width) == grid.size:
        return rows.view(batch, -1, channels)
    if grid.regular:
        cells = cell_index(grid.size, (height, width), features.device)
        return rows.view(batch, -1, channels).index_select(1, cells)
    if is_exporting():
        return grid.exchange((height, width)).to_token.mean(rows).view(batch, -1, channels)
    tokens = _sum_rows(rows, grid.rows_of_tokens((height, width)), grid.cells, mean=True)
    return tokens.view(batch, grid.num_tokens, channels)


def merge_tokens(features: Tensor, importance: Tensor, clusters: Tensor, num_clusters: int) -> Tensor:
    """Merge the tokens of each cluster, weighted by e^p (EFNet eq. 4), in float32 at least.

    Args:
        features: (B, N, C).
        importance: (B, N) learned importance p.
        clusters: (B, N) cluster of each token, 0 to `num_clusters` - 1, none empty.
        num_clusters: M.

    Returns:
        (B, M, C).
    """
    batch, _, channels = features.shape
    if importance.dtype != torch.float64:
        importance = importance.float()
    # Softmax within each cluster, its largest logit taken off first so that e^p cannot overflow.
    largest = importance.detach().new_full((batch, num_clusters), -torch.inf)
    largest = largest.scatter_reduce(1, clusters, importance.detach(), "amax")
    weight = (importance - largest.gather(1, clusters)).exp()
    groups = group_rows(clusters, num_clusters)
    # In the order of the rows: a scattered sum has none on a GPU, and its last bit would vary.
    total = _sum_rows(weight.view(-1, 1), groups.order, groups).view(batch, num_clusters)
    weight = weight / total.gather(1, clusters)
    rows = features.flatten(0, 1)
    merged = _sum_rows(rows, groups.order, groups, weights=weight.flatten()[groups.order])
    return merged.view(batch, num_clusters, channels)


def _sum_rows(
    rows: Tensor, index: Tensor, groups: Groups, mean: bool = False, weights: Tensor | None = None
) -> Tensor:
    """(groups, C) sum, mean or weighted sum of `rows[index]` over the groups."""
    weights = weights if weights is None else weights.to(rows.dtype)
    if groups.segments is not None:
        assert not mean  # of tokens and maps, which `Exchange` has
        return sum_segments(rows, index, groups.segments, weights)
    mode = "mean" if mean else "sum"
    return F.embedding_bag(index, rows, groups.starts, mode=mode, per_sample_weights=weights)


def split_windows(features: Tensor, size: int) -> Tensor:
    """Cut a map into windows, zero-padded to whole windows.

    Args:
        features: (B, H, W, C).
        size: side of a window in cells.

    Returns:
        (B, windows, size * size, C), windows and cells in row-major order.
    """
    batch, height, width, channels = features.shape
    rows, columns = (height + size - 1) // size, (width + size - 1) // size
    if not (isinstance(height, int) and height % size == 0 and isinstance(width, int) and width % size == 0):
        features = F.pad(features, (0, 0, 0, columns * size - width, 0, rows * size - height))
    features = features.view(batch, rows, size, columns, size, channels)
    return features.transpose(2, 3).reshape(batch, rows * columns, size * size, channels)


def merge_windows(windows: Tensor, size: int, map_size: tuple[int, int]) -> Tensor:
    """Put windows back into a map and cut the padding off: the inverse of `split_windows`.

    Args:
        windows: (B, windows, size * size, C).
        size: side of a window in cells.
        map_size: (H, W) of the map.

    Returns:
        (B, H, W, C).
    """
    batch, _, _, channels = windows.shape
    height, width = map_size
    rows, columns = (height + size - 1) // size, (width + size - 1) // size
    features = windows.view(batch, rows, columns, size, size, channels).transpose(2, 3)
    return features.reshape(batch, rows * size, columns * size, channels)[:, :height, :width]
