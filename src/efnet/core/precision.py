"""Where half precision would lose what matters."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from efnet.core.compat import is_exporting


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A context without autocast on `device`; the `meta` device knows none, an export has none."""
    if device.type == "meta" or is_exporting():
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


_lock = threading.Lock()
_inside: list[Callable[[], None]] = []  # one for each thread within; the first restores the switches


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Float32 products in float32, whatever the user allowed: TF32 on a GPU, bfloat16 on a CPU."""
    # Switches of the whole process: the first thread in turns them, the last one out restores them.
    with _lock:
        _inside.append((lambda: None) if _inside else _forbid_reduced_precision())
    try:
        yield
    finally:
        with _lock:
            _inside.pop()()


def _forbid_reduced_precision() -> Callable[[], None]:
    """Turn the switches; returns what turns them back."""
    backends: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # before PyTorch 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        return lambda: torch.set_float32_matmul_precision(before)
    allowed = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"

    def restore() -> None:
        for backend, precision in zip(backends, allowed, strict=True):
            backend.fp32_precision = precision

    return restore


def at_least_float32(values: Tensor) -> Tensor:
    """Raise half precision to float32; float32 and float64 stay as they are."""
    return values if values.dtype == torch.float64 else values.float()
