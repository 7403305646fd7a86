"""The private names of PyTorch that the library uses, and what happens where a version lacks them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from io import BytesIO
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

from efnet.core.cpu_tuning import cpu_facts


def is_exporting() -> bool:
    """Whether `torch.export` traces; False in PyTorch 2.6, where it looks like `torch.compile`."""
    asked: Callable[[], bool] | None = getattr(torch.compiler, "is_exporting", None)
    return asked is not None and asked()


_STATIC: ContextVar[Callable[..., Any] | None] = ContextVar("static", default=None)


@contextmanager
def static_form(exchange: Callable[..., Any]) -> Iterator[None]:
    """Cluster by a fixed number of operators, in programs for one size: no loop, no size that data decide.

    `exchange` makes the means between tokens and maps there, see `efnet.export.static`.
    """
    token = _STATIC.set(exchange)
    try:
        yield
    finally:
        _STATIC.reset(token)


def static_exchange() -> Callable[..., Any] | None:
    """Return what `static_form` was given; None outside it."""
    return _STATIC.get()


def is_static() -> bool:
    """Whether this runs inside `static_form`."""
    return _STATIC.get() is not None


def is_recording(tensor: Tensor) -> bool:
    """Whether operators on `tensor` are traced, captured or transformed, so that values must not be read.

    Without `_functorch`, which is asked about transforms, these are not recognised: reading a value raises
    PyTorch's own error in `torch.func.vmap`.
    """
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        return True
    if torch.jit.is_tracing():  # type: ignore[no-untyped-call, attr-defined, unused-ignore]
        return True
    functorch = getattr(torch._C, "_functorch", None)
    wrapped: Callable[[Tensor], bool] | None = getattr(functorch, "is_functorch_wrapped_tensor", None)
    return wrapped is not None and wrapped(tensor)


def while_loop(
    more: Callable[..., Tensor], body: Callable[..., tuple[Tensor, ...]], start: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Repeat `body` while `more` is true, in a way that `torch.export` records as a loop.

    Raises:
        RuntimeError: this PyTorch lacks the operator; then networks that cluster cannot be exported.
    """
    try:
        from torch._higher_order_ops.while_loop import while_loop as loop
    except ImportError as error:
        raise RuntimeError(
            "this version of PyTorch has no while_loop operator: install 2.6 to 2.13"
        ) from error
    return cast(tuple[Tensor, ...], loop(more, body, start))  # type: ignore[no-untyped-call]


def tracing_any_size() -> AbstractContextManager[object]:
    """Let `torch.export` trace sizes that may also be 1; without the option it may refuse them."""
    from torch.fx.experimental import _config as shapes

    options = {"backed_size_oblivious": True} if hasattr(shapes, "backed_size_oblivious") else {}
    context: AbstractContextManager[object] = shapes.patch(options)  # type: ignore[attr-defined]
    return context


def program_archive() -> tuple[Callable[[BytesIO], Any], Callable[[BytesIO], Any]]:
    """Return what opens a `.pt2` archive without loading it, and what loads it (and no older format).

    Raises:
        ImportError: this PyTorch lacks them, as those before 2.8 do.
    """
    from torch.export.pt2_archive import PT2ArchiveReader
    from torch.export.pt2_archive._package import load_pt2

    return PT2ArchiveReader, load_pt2


def is_eager_on_cpu(tensor: Tensor) -> bool:
    """Whether operators on `tensor` run at once on the CPU: a compiler chooses its own kernels, and an
    exported graph knows common operators only.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined, unused-ignore]
        and tensor.device.type == "cpu"
        and type(tensor) is Tensor
    )


def has_onednn_linear() -> bool:
    """Whether oneDNN's matrix product can be called directly; else `torch.nn.functional.linear` is used."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@lru_cache(maxsize=1)
def onednn_pays() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than MKL here: on AMD processors with AVX-512.

    Decided by the processor, not by a measurement: a run that is repeated or resumed has to multiply as the
    first one did, to the last bit.
    """
    return (
        has_onednn_linear()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and cpu_facts().get("vendor_id") == "AuthenticAMD"
    )


def onednn_linear(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear` by oneDNN; only where `has_onednn_linear` is true."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(features, weight, bias, "none", [], "")
    return product


def has_onednn_convolution() -> bool:
    """Whether oneDNN's convolution can be called directly, with the activation in the same pass."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def onednn_convolution(
    features: Tensor, weight: Tensor, bias: Tensor, like: torch.nn.Conv2d, highest: float | None
) -> Tensor:
    """The convolution `like` with another weight and bias; only where `has_onednn_convolution` is true.

    Args:
        features: (B, C, h, w), float32 or bfloat16, as weight and bias are.
        weight: of the shape of `like.weight`.
        bias: (D,).
        like: padding with zeros, stride, dilation and groups.
        highest: values are clamped to 0 and this; infinity for ReLU, None for no clamping.
    """
    padding, stride, dilation = (list(map(int, each)) for each in (like.padding, like.stride, like.dilation))
    kind, limits = ("none", []) if highest is None else ("hardtanh", [0.0, highest])
    if highest == math.inf:
        kind, limits = "relu", []
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        features, weight, bias, padding, stride, dilation, like.groups, kind, limits, ""
    )
    return result


def has_onednn_bfloat16() -> bool:
    """Whether oneDNN multiplies bfloat16 matrices on this CPU; False if PyTorch does not say."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return available and asked is not None and bool(asked())
