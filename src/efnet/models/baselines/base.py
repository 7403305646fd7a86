"""What the networks of other papers share.

Networks whose maps must halve evenly: images of any size are padded, their logits cropped.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, ClassVar, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.models.base import SegmentationModel
from efnet.models.config import Modality
from efnet.models.tcformer_weights import LoadReport


@dataclass(frozen=True)
class RivalConfig:
    """A network as its paper has it, for K classes."""

    num_classes: int = 9
    modality: Modality = "rgbt"
    """Both images, or one alone: then the other one's branch does not exist and nothing is fused."""

    def __post_init__(self) -> None:
        if type(self.num_classes) is not int or self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")
        if self.modality not in get_args(Modality):
            raise ValueError(
                f"modality must be one of {', '.join(get_args(Modality))}, got {self.modality!r}"
            )

    @property
    def least_parameters(self) -> int:
        """A filter for each class."""
        return self.num_classes

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: an unknown key or a value out of its range.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"not a configuration: {error}") from error


class Rival(SegmentationModel):
    """A network of another paper. A subclass names its `architecture` and implements `score_cells`.

    Args:
        config: classes and modality.
        name: as of `create_model`.
        classes: names and colours of the K classes; numbered ones if None.
    """

    config_type = RivalConfig
    config: RivalConfig

    def __init__(self, config: RivalConfig, name: str = "", classes: ClassSet | None = None) -> None:
        super().__init__(config, name or self.architecture, classes)

    def load_encoder(self, path: str | os.PathLike[str]) -> LoadReport:
        """Start the encoder, or each of them, from a file of published weights.

        Raises:
            InputError: the file cannot be read or does not fit, or no weights are published for this network.
        """
        raise InputError(
            f"{path}: no pretrained encoder is known for {self.name}; give a checkpoint folder of ours"
        )


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
