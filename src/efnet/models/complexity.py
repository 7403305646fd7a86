"""Parameters and multiply-adds of a network, counted without computing anything (on the `meta` device)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import flop_registry

from efnet.core.compat import TorchDispatchMode
from efnet.models.base import SegmentationModel
from efnet.models.dbtc import DBTC
from efnet.models.layers import Tokens
from efnet.models.registry import create_model


@dataclass(frozen=True)
class Complexity:
    """Size of a network."""

    parameters: int  # number of them
    layers: float  # multiply-adds of convolutions and linear layers for one pair
    attention: float  # multiply-adds of the products of attention
    clustering: float  # multiply-adds of comparing all tokens with all; the exact search needs far fewer
    moved: float = 0.0  # numbers that all layers and products of attention read (weights too) and write

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators with multiply-adds, and the numbers they read and write; all others count as fused."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: dict[str, float] = {}  # multiply-adds by the name of the operator
        self.moved = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        result = function(*args, **named)
        operator = function.overloadpacket
        if operator in flop_registry:
            flops = flop_registry[operator](*args, **named, out_val=result)
            self.products[str(operator)] = self.products.get(str(operator), 0) + flops / 2
            results = result if isinstance(result, tuple) else (result,)
            held = (*args, *named.values(), *results)
            self.moved += sum(value.numel() for value in held if isinstance(value, torch.Tensor))
        return result


def measure(name: str, num_classes: int, size: tuple[int, int], **options: Any) -> Complexity:
    """Count a network of `create_model`, which takes `options`, for one pair of images of `size` (H, W)."""
    with torch.device("meta"):
        model = create_model(name, num_classes, **options)
    return count(model, size)


def count(model: SegmentationModel, size: tuple[int, int]) -> Complexity:
    """Count a network, on the `meta` device, for one pair of images of `size` (H, W)."""
    model.eval()
    pair = torch.empty(1, 3, *size, device="meta"), torch.empty(1, 1, *size, device="meta")
    compared: list[int] = []

    def compare(_: nn.Module, __: object, output: tuple[Tokens, Tokens, torch.Tensor]) -> None:
        """Count the multiply-adds of all distances between the tokens that a clustering was given."""
        tokens, channels = output[1].features.shape[1:]
        compared.append(tokens * tokens * channels)

    for part in model.modules():
        if isinstance(part, DBTC):
            part.register_forward_hook(compare)
        elif isinstance(part, nn.BatchNorm2d | nn.LayerNorm | nn.ReLU):
            # Without products, but most of the time on this device.
            part.forward = nn.Identity.forward.__get__(part)  # type: ignore[method-assign]
    with _Counter() as counter, torch.no_grad():
        model(*pair)
    # Batched products occur in attention alone; fused kernels carry its name.
    products = ("bmm", "attention")
    attention = sum(flops for key, flops in counter.products.items() if any(name in key for name in products))
    return Complexity(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=sum(counter.products.values()) - attention,
        attention=attention,
        clustering=sum(compared),
        moved=counter.moved,
    )
