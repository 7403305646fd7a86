"""Parameters and multiply-adds of a network, counted without computing anything (on the `meta` device)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from efnet.models.base import SegmentationModel
from efnet.models.registry import create_model
from efnet.ops import dpc_knn


@dataclass(frozen=True)
class Complexity:
    """Size of a network.

    Attributes:
        parameters: number of them.
        layers: multiply-adds of convolutions and linear layers for one pair.
        attention: multiply-adds of the products of attention.
        clustering: multiply-adds that comparing all tokens with all would take; the exact search
            of `efnet.ops.dpc_knn` needs far fewer.
    """

    parameters: int
    layers: float
    attention: float
    clustering: float

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)
