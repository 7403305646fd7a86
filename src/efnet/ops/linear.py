"""Matrix products by the faster library on a CPU: linear layers, attention, squared distances.

PyTorch carries two. `torch.nn.functional.linear` in float32 always calls MKL, which on processors of other
makers than Intel leaves half of their vector width unused; oneDNN does not. Both compute the same sums in
float32, in another order.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.core.compat import has_onednn_bfloat16, is_eager_on_cpu, onednn_linear, onednn_pays
from efnet.core.precision import full_precision


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
    """Whether this is an eager float32 product on a CPU where oneDNN is faster."""
    same = features.dtype == weight.dtype == torch.float32
    return same and not torch.is_autocast_enabled("cpu") and is_eager_on_cpu(features) and onednn_pays()


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
        weight = weight.contiguous()  # oneDNN's reference code, used for anything else, takes seconds
    return onednn_linear(features, weight, bias)


_BLOCK_BYTES = 1 << 21  # size of the attention weights of the queries handled together, float32, one head
_HALF_BLOCK_BYTES = 1 << 22  # the same in bfloat16, all heads


def attention(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute softmax(Q K^T / sqrt(d) + bias) V, with gradients, on the faster library.

    `torch.nn.functional.scaled_dot_product_attention` multiplies float32 by MKL on every CPU. Where oneDNN is
    faster, it computes the same sums, for as many queries at a time as keep their weights in the cache. In
    bfloat16 on a CPU, products of all heads at once are faster; they round the logits, which PyTorch's own
    attention keeps in float32.

    Args:
        queries: (B, heads, N, d).
        keys: (B, heads, M, d).
        values: (B, heads, M, d).
        bias: (B, M) added to the logits of all queries and heads (EFNet, arXiv 2501.10958, eq. 5), or None.

    Returns:
        (B, heads, N, d).
    """
    if torch.is_grad_enabled() or not onednn_multiplies(queries, keys):
        mask = None if bias is None else bias.to(queries.dtype)[:, None, None, :]
        half = queries.dtype == torch.bfloat16 and is_eager_on_cpu(queries) and has_onednn_bfloat16()
        if half and not torch.is_grad_enabled():
            return _in_half(queries, keys, values, mask)
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    batch, heads, tokens, width = queries.shape
    keys = keys / math.sqrt(width)
    out = queries.new_empty(batch, tokens, heads, width)
    step = max(1, _BLOCK_BYTES // (4 * keys.shape[2]))
    for sample in range(batch):
        added = None if bias is None else bias[sample]
        for head in range(heads):
            columns = values[sample, head].t().contiguous()
            for first in range(0, tokens, step):
                logits = linear(queries[sample, head, first : first + step], keys[sample, head], added)
                out[sample, first : first + step, head] = linear(logits.softmax(-1), columns)
    return out.transpose(1, 2)


def _in_half(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention by products in bfloat16; logits and weights are rounded to it, as in any other layer."""
    batch, heads, tokens, width = queries.shape
    columns = (keys / math.sqrt(width)).transpose(-1, -2)
    out = queries.new_empty(batch, tokens, heads, width)
    step = max(1, _HALF_BLOCK_BYTES // (2 * heads * batch * keys.shape[2]))
    for first in range(0, tokens, step):
        logits = queries[:, :, first : first + step] @ columns
        weights = (logits if mask is None else logits + mask).softmax(-1)
        out[:, first : first + step] = (weights @ values).transpose(1, 2)
    return out.transpose(1, 2)


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
