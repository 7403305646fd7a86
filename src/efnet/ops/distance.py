"""Squared Euclidean distances by matrix multiplication."""

from __future__ import annotations

import torch
from torch import Tensor

from efnet.ops.precision import full_precision


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distance of every row of `x` to every row of `y`, in float32 at least.

    |x|^2 + |y|^2 - 2 x.y cancels where x is near y: in bfloat16 nothing would be left of it, so
    autocast is switched off here and half-precision input is raised to float32.

    Args:
        x: (..., N, C).
        y: (..., K, C), leading dimensions broadcast against those of `x`.

    Returns:
        (..., N, K), not negative; float64 if both inputs are, else float32.
    """
    with full_precision(x.device):
        if x.dtype != torch.float64 or y.dtype != torch.float64:
            x, y = x.float(), y.float()
        products = x @ y.transpose(-1, -2)
        squares = x.square().sum(-1).unsqueeze(-1) + y.square().sum(-1).unsqueeze(-2)
        return (squares - 2 * products).clamp_min(0)
