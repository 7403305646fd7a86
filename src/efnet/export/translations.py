"""Operators whose translation to ONNX PyTorch lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxscript
import torch

op: Any = onnxscript.opset20


def _sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """A stable sort: ONNX's TopK lets the lower index win where values are equal."""
    count = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]), axis=0)
    return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The table for `torch.onnx.export`."""
    return {torch.ops.aten.sort.stable: _sort}
