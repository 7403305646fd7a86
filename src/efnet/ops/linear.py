"""Linear layers by the faster of the two matrix multiplications that PyTorch carries for a CPU.

`torch.nn.functional.linear` in float32 always calls MKL. On processors of other makers than Intel, MKL
leaves half of their vector width unused; oneDNN, which PyTorch also carries, does not. Both compute the
same sums in float32, in another order. Which one is used is measured once in a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

_GAIN = 1.2
"""By how much oneDNN must be faster to be chosen: where both are alike, nothing changes."""


def linear(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, with gradients, on the faster library.

    Args:
        features: (..., C).
        weight: (D, C).
        bias: (D,) or None.

    Returns:
        (..., D).
    """
    if not _eligible(features, weight):
        return F.linear(features, weight, bias)
    if torch.is_grad_enabled():
        return cast(Tensor, _Linear.apply(features, weight, bias))  # type: ignore[no-untyped-call]
    return _onednn(features, weight, bias)


def _eligible(features: Tensor, weight: Tensor) -> bool:
    """Whether this is a product in float32 on a CPU, run as it stands, where oneDNN is the faster."""
    return (
        # A compiler chooses its own kernels, and an exported graph knows common operators only.
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and features.device.type == "cpu"
        and features.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and type(features) is Tensor
        and onednn_pays()
    )


class _Linear(torch.autograd.Function):
    """The product with its gradients."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As `linear`."""
        ctx.save_for_backward(features, weight)
        return _onednn(features, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[override]
        """Gradients of features, weight and bias."""
        (grad,) = grads
        features, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            linear(grad, weight.t()) if wanted[0] else None,
            rows.t() @ features.flatten(0, -2) if wanted[1] else None,
            rows.sum(0) if wanted[2] else None,
        )


def _onednn(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(features, weight, bias, "none", [], "")
    return product


@lru_cache(maxsize=1)
@torch.inference_mode()
def onednn_pays() -> bool:
    """Whether oneDNN multiplies float32 matrices clearly faster than `linear` here; takes about 20 ms."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    features, weight = torch.ones(1024, 256), torch.ones(512, 256)
    try:
        _onednn(features, weight, None)
    except (RuntimeError, NotImplementedError):
        return False
    theirs = _seconds(lambda: F.linear(features, weight))
    return theirs > _GAIN * _seconds(lambda: _onednn(features, weight, None))


def _seconds(call: Callable[[], Tensor]) -> float:
    """The best of a few runs: what disturbs a run only ever makes it longer."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
