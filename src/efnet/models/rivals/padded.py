"""Networks whose maps must halve evenly: images of any size are padded, their logits cropped."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.models.rivals.base import Rival


class PaddedRival(Rival):
    """A subclass implements `score_padded`, which gets sides that are multiples of `stride`."""

    stride: ClassVar[int] = 32

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images (B, 3, H', W'), None where not looked at, to logits on that or a coarser grid."""
        raise NotImplementedError

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, K, H, W)."""
        image = rgb if rgb is not None else thermal
        assert image is not None
        height, width = image.shape[2:]
        whole = (self._round_up(height), self._round_up(width))
        border = (0, whole[1] - width, 0, whole[0] - height)
        # The last row and column are repeated: a border of zeros would be an edge of its own.
        padded = [
            None if images is None else F.pad(images, border, mode="replicate") for images in (rgb, thermal)
        ]
        logits = self.score_padded(*padded)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if logits.shape[2:] != whole:
            logits = F.interpolate(logits, whole, mode="bilinear", align_corners=False)
        # A crop that is a copy, unlike a slice: whether that one is contiguous would depend on the size, and
        # an exported program would be bound to sizes that need no padding.
        return F.pad(logits, [-side for side in border])

    def _round_up(self, side: int) -> int:
        # Written as a product, an exporter sees that it halves evenly.
        return (side + self.stride - 1) // self.stride * self.stride
