"""Device and precision of a computation, by the names that all commands use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, get_args

import torch

from efnet.core.errors import InputError, one_of

# `32`: everything in float32; `bf16`: products in bfloat16 under autocast, weights in float32.
Precision = Literal["32", "bf16"]


def pick_device(name: str) -> torch.device:
    """Return the device of a name: `auto` (CUDA if there is any, else the CPU), `cpu`, `cuda` or `cuda:1`.

    Raises:
        InputError: the name is unknown, the device is absent, or it has no float64.
    """
    if name == "auto":
        # Not MPS: it has no float64, which is needed to compare distances of near tokens.
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:1") from error
    if chosen.type == "mps":
        raise InputError("device 'mps' has no float64, which clustering tokens needs; use `device` cpu")
    if chosen.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:1")
    try:
        torch.empty(0, device=chosen)
    # Absent devices raise different errors.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {name!r} is not available here; use auto or cpu") from error
    return chosen


def check_precision(precision: str) -> Precision:
    """Return the precision of that name; raises InputError if there is none."""
    known: tuple[Precision, ...] = get_args(Precision)
    return one_of(precision, known, f"precision {precision!r} is unknown; choose")


@contextlib.contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute the block in a precision on the network's device; `32` switches an outer autocast off."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        yield
