"""Where half precision would lose what matters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from efnet.ops.exporting import is_exporting


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A context without autocast on `device`; the `meta` device knows none, an export has none."""
    if device.type == "meta" or is_exporting():
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Float32 products in float32, whatever the user allowed: TF32 on a GPU, bfloat16 on a CPU."""
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # before PyTorch 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    allowed = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, allowed, strict=True):
            backend.fp32_precision = precision
