"""Parameters and multiply-adds of a network, counted without computing anything (on the `meta` device)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from efnet.models.base import SegmentationModel
from efnet.models.dbtc import DBTC
from efnet.models.layers import Tokens
from efnet.models.registry import create_model


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


def measure(name: str, num_classes: int, size: tuple[int, int], **options: Any) -> Complexity:
    """Count a network of `create_model` for one pair of images.

    Args:
        name: preset.
        num_classes: K.
        size: (H, W) of the images.
        **options: as of `create_model`.
    """
    with torch.device("meta"):
        model = create_model(name, num_classes, **options)
    return count(model, size)


def count(model: SegmentationModel, size: tuple[int, int]) -> Complexity:
    """Count a network for one pair of images.

    Args:
        model: the network, on the `meta` device.
        size: (H, W) of the images.
    """
    model.eval()
    pair = torch.empty(1, 3, *size, device="meta"), torch.empty(1, 1, *size, device="meta")
    compared: list[int] = []
    for module in model.modules():
        if isinstance(module, DBTC):
            module.register_forward_hook(lambda _module, _inputs, output: compared.append(_all_pairs(output)))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*pair)
    counts = {str(operator): flops / 2 for operator, flops in counter.get_flop_counts()["Global"].items()}
    attention = sum(count for operator, count in counts.items() if _is_attention(operator))
    return Complexity(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=sum(counts.values()) - attention,
        attention=attention,
        clustering=sum(compared),
    )


def _is_attention(operator: str) -> bool:
    """Batched products occur in attention alone; fused kernels carry its name."""
    return "bmm" in operator or "attention" in operator


def _all_pairs(output: tuple[Tokens, Tokens, torch.Tensor]) -> int:
    """Multiply-adds of all distances between the tokens that a clustering was given."""
    _, tokens, channels = output[1].features.shape
    return tokens * tokens * channels
