"""Whether a program is being exported: then only common operators may appear, for any size."""

from __future__ import annotations

from collections.abc import Callable

import torch


def is_exporting() -> bool:
    """Whether `torch.export` traces; PyTorch 2.6 cannot tell it from `torch.compile`."""
    asked: Callable[[], bool] | None = getattr(torch.compiler, "is_exporting", None)
    return asked is not None and asked()
