"""Scaled dot-product attention by the faster of two ways.

`torch.nn.functional.scaled_dot_product_attention` in float32 multiplies by MKL on every CPU. Where oneDNN
is the faster (see `efnet.ops.linear`), the same sums are taken by it, for as many queries at a time as keep
their weights in the cache. In bfloat16 on a CPU products of all heads at once are the faster way; they round
the logits, which PyTorch's own keeps in float32.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.ops.linear import linear, onednn_multiplies

_BLOCK_BYTES = 1 << 21
"""Size of the attention weights of the queries that are looked at together."""

_HALF_BLOCK_BYTES = 1 << 22
"""The same in bfloat16, of all heads."""


def attention(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d) + bias) V, with gradients.

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
        if not torch.is_grad_enabled() and _is_half(queries):
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


def _is_half(queries: Tensor) -> bool:
    """Whether these are bfloat16 numbers on a CPU that multiplies them, in a program run as it stands."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined, unused-ignore]
        and queries.device.type == "cpu"
        and queries.dtype == torch.bfloat16
        and type(queries) is Tensor
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


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
