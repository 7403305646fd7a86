"""Large images in tiles: the network sees a part at a time, and the parts are blended where they overlap.

Memory is bounded by the tile and one row of tiles, not by the image. A network with attention over the whole
image sees less in a tile than in the image: results near those of the whole image, not the same
(`docs/video.md` has figures). A network that looks at each pixel by itself gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from efnet.core.errors import InputError
from efnet.inference.preprocess import Prepared
from efnet.models.base import MIN_SIZE

GRID = 32
"""Tiles begin at multiples of this where they can: the windows of MIF then lie as in the whole image."""

DEFAULT_OVERLAP = 64


@dataclass(frozen=True)
class Tiling:
    """How an image is cut; raises InputError for tiles too small, or an overlap of more than half a tile."""

    size: tuple[int, int]  # (H, W) of a tile; an image smaller than that along an axis is not cut along it
    overlap: int = DEFAULT_OVERLAP  # least number of pixels that neighbours share; blended linearly

    def __post_init__(self) -> None:
        height, width = self.size
        if min(self.size) < MIN_SIZE:
            raise InputError(f"tile {height}x{width}: both sides are at least {MIN_SIZE} pixels")
        if not 0 <= self.overlap <= min(self.size) // 2:
            raise InputError(
                f"overlap {self.overlap}: give 0 to {min(self.size) // 2}, half the tile's shorter side"
            )

    def axes(self, size: tuple[int, int]) -> tuple[Axis, Axis]:
        """Cut the rows and the columns of an image of `size` (H, W)."""
        return Axis.cut(size[0], self.size[0], self.overlap), Axis.cut(size[1], self.size[1], self.overlap)


@dataclass(frozen=True, eq=False)
class Axis:
    """Tiles along one axis."""

    starts: tuple[int, ...]  # first pixel of each of the n tiles
    tile: int  # their length
    weights: NDArray[np.float32]  # (n, tile) share of each tile at its pixels; a pixel's shares sum to one

    @classmethod
    def cut(cls, length: int, tile: int, overlap: int) -> Axis:
        """Cut `length` pixels; the last tile ends with the image, so it may share more than `overlap`."""
        if length <= tile:
            return cls((0,), length, np.ones((1, length), dtype=np.float32))
        step = tile - overlap
        step = step // GRID * GRID or step
        starts = (*range(0, length - tile, step), length - tile)
        # A tent that is flat but for its ends: continuous seams however many tiles share a pixel.
        place = np.arange(tile)
        ramp = np.minimum(1.0, (np.minimum(place, tile - 1 - place) + 1.0) / (overlap + 1.0))
        weights = np.repeat(ramp[None], len(starts), axis=0)
        weights[0, : tile // 2] = 1.0
        weights[-1, tile // 2 :] = 1.0
        total = np.zeros(length)
        for start, weight in zip(starts, weights, strict=True):
            total[start : start + tile] += weight
        for start, weight in zip(starts, weights, strict=True):
            weight /= total[start : start + tile]
        return cls(starts, tile, weights.astype(np.float32))

    @property
    def length(self) -> int:
        """Pixels of the whole axis."""
        return self.starts[-1] + self.tile


Infer = Callable[[Sequence[Prepared]], Tensor]  # from B pairs of one size (h, w) to their logits (B, K, h, w)


def tiled_logits(prepared: Prepared, tiling: Tiling, infer: Infer, batch_size: int = 1) -> Iterator[Tensor]:
    """Blend the logits of a pair from tiles, `batch_size` in a pass; yield (K, r, W) from top to bottom."""
    rows, columns = tiling.axes(prepared.network_size)
    blend = _Blend(rows)
    for number, top in enumerate(rows.starts):
        parts = []
        for left in columns.starts:
            window = slice(top, top + rows.tile), slice(left, left + columns.tile)
            rgb = None if prepared.rgb is None else prepared.rgb[window]
            thermal = None if prepared.thermal is None else prepared.thermal[window]
            parts.append(replace(prepared, rgb=rgb, thermal=thermal, size=(rows.tile, columns.tile)))
        band = _Blend(columns)
        for first in range(0, len(parts), batch_size):
            for logits in infer(parts[first : first + batch_size]):
                band.add(logits.transpose(1, 2))
        blend.add(band.take(columns.length).transpose(1, 2))  # (K, tile, W)
        following = rows.starts[number + 1] if number + 1 < len(rows.starts) else rows.length
        yield blend.take(following)


class _Blend:
    """Weighted mean of pieces (K, tile, ...) that come in order along the second axis."""

    def __init__(self, axis: Axis) -> None:
        self._axis = axis
        self._number = 0
        self._start = 0
        self._values: Tensor | None = None
        self._weight = torch.zeros(0)

    def add(self, piece: Tensor) -> None:
        """Blend the next tile in."""
        offset = self._axis.starts[self._number] - self._start
        weight = torch.from_numpy(self._axis.weights[self._number]).to(piece.device)
        self._number += 1
        if self._values is None:
            self._values, self._weight = piece.clone(), weight
            return
        shared = self._weight.shape[0] - offset
        before = self._weight[offset:]
        total = before + weight[:shared]
        # As a step towards the new values: where both agree, not a bit changes.
        share = (weight[:shared] / total).view(1, -1, *[1] * (piece.dim() - 2))
        old = self._values[:, offset:]
        mixed = old + share * (piece[:, :shared] - old)
        self._values = torch.cat([self._values[:, :offset], mixed, piece[:, shared:]], dim=1)
        self._weight = torch.cat([self._weight[:offset], total, weight[shared:]])

    def take(self, stop: int) -> Tensor:
        """Hand over what lies before the pixel `stop`, which no later tile changes."""
        assert self._values is not None
        count = stop - self._start
        done, self._values = self._values[:, :count], self._values[:, count:].clone()
        self._weight = self._weight[count:]
        self._start = stop
        return done
