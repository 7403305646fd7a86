"""The base of the networks of other papers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from efnet.core.classes import ClassSet
from efnet.models.base import SegmentationModel
from efnet.models.config import BaselineConfig
from efnet.ops.precision import at_least_float32


class Baseline(SegmentationModel):
    """A network of another paper. A subclass names its `architecture` and implements `score_cells`."""

    config_type = BaselineConfig
    config: BaselineConfig

    def __init_subclass__(cls, **attributes: Any) -> None:
        """Set class attributes from the keywords of a class statement, such as the sizes of a network."""
        super().__init_subclass__()
        for name, value in attributes.items():
            setattr(cls, name, value)

    def __init__(self, config: BaselineConfig, name: str = "", classes: ClassSet | None = None) -> None:
        super().__init__(config, name or self.architecture, classes)


class PaddedBaseline(Baseline):
    """A network whose maps must halve evenly: images of any size are padded, and their logits cropped.

    A subclass implements `score_padded`, which gets sides that are multiples of `stride`.
    """

    stride: ClassVar[int] = 32

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images (B, 3, H', W'), None where not used, to logits on that or a coarser grid."""
        raise NotImplementedError

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, K, H, W)."""
        image = rgb if rgb is not None else thermal
        assert image is not None
        height, width = image.shape[2:]
        whole = (self._round_up(height), self._round_up(width))
        border = (0, whole[1] - width, 0, whole[0] - height)
        # The last row and column are repeated: a border of zeros would itself be an edge.
        padded = [
            images if images is None else F.pad(images, border, "replicate") for images in (rgb, thermal)
        ]
        logits = at_least_float32(self.score_padded(*padded))
        if logits.shape[2:] != whole:
            logits = F.interpolate(logits, whole, mode="bilinear", align_corners=False)
        # This crop copies. A slice would be contiguous or not depending on the size, which would bind an
        # exported program to sizes that need no padding.
        return F.pad(logits, [-side for side in border])

    def _round_up(self, side: int) -> int:
        # Written as a product, so that an exporter sees that it halves evenly.
        return (side + self.stride - 1) // self.stride * self.stride
