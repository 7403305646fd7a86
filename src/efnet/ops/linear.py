"""Linear layers by the faster of the two matrix multiplications that PyTorch carries for a CPU.

`torch.nn.functional.linear` in float32 always calls MKL. On processors of other makers than Intel, MKL
leaves half of their vector width unused; oneDNN, which PyTorch also carries, does not. Both compute the
same sums in float32, in another order.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, with gradients, on the faster library.

    Args:
        features: (..., C).
        weight: (D, C).
        bias: (D,) or None.

    Returns:
        (..., D).
    """
    if not onednn_multiplies(features, weight):
        return F.linear(features, weight, bias)
    if torch.is_grad_enabled():
        return cast(Tensor, _Linear.apply(features, weight, bias))  # type: ignore[no-untyped-call]
    return _onednn(features, weight, bias)


def onednn_multiplies(features: Tensor, weight: Tensor) -> bool:
    """Whether this is a product in float32 on a CPU, run as it stands, where oneDNN is the faster."""
    return (
        # A compiler chooses its own kernels, and an exported graph knows common operators only.
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined, unused-ignore]
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
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
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
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # of anything else oneDNN's reference code makes seconds
    product: Tensor = torch.ops.mkldnn._linear_pointwise(features, weight, bias, "none", [], "")
    return product


@lru_cache(maxsize=1)
def onednn_pays() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than MKL here: on AMD processors with AVX-512.

    Decided by the processor, not by a measurement: a run that is repeated or resumed has to multiply as the
    first one did, to the last bit.
    """
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return (
        available
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and _maker() == "AuthenticAMD"
    )


def _maker() -> str | None:
    """Vendor of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), None)
