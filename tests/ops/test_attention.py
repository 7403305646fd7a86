"""Attention by blocks against the formula in float64 and against PyTorch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from efnet.ops import linear as module
from efnet.ops.linear import attention


def by_formula(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    queries, keys, values = queries.double(), keys.double(), values.double()
    logits = queries @ keys.mT / math.sqrt(queries.shape[-1])
    if bias is not None:
        logits = logits + bias.double()[:, None, None, :]
    return logits.softmax(-1) @ values


@pytest.fixture(params=["blocks", "sdpa"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "blocks" and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch is without oneDNN")
    monkeypatch.setattr(module, "onednn_pays", lambda: request.param == "blocks")
    return str(request.param)


@pytest.mark.parametrize("shape", [(1, 1, 37, 5, 16), (2, 3, 50, 1, 8), (3, 2, 1, 70, 64)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_equals_formula(
    shape: tuple[int, ...], biased: bool, rows: int, either: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, heads, tokens, others, width = shape
    monkeypatch.setattr(module, "_BLOCK_BYTES", rows * 4 * others)
    # As the network has them: heads between tokens and channels in memory.
    queries = torch.randn(batch, tokens, heads, width).transpose(1, 2)
    keys, values = torch.randn(2, batch, others, heads, width).transpose(2, 3)
    bias = 3 * torch.randn(batch, others) if biased else None
    with torch.inference_mode():
        result = attention(queries, keys, values, bias)
    torch.testing.assert_close(result.double(), by_formula(queries, keys, values, bias), rtol=1e-5, atol=1e-5)


def test_gradients_and_half_precision_take_the_usual_way(either: str) -> None:
    queries, keys, values = torch.randn(3, 1, 2, 9, 8)
    bias = torch.randn(1, 9, requires_grad=True)
    attention(queries, keys, values, bias).sum().backward()
    expected = torch.autograd.grad(by_formula(queries, keys, values, bias).sum(), bias)[0]
    torch.testing.assert_close(bias.grad, expected.float(), rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        half = attention(queries.bfloat16(), keys.bfloat16(), values.bfloat16(), bias)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), by_formula(queries, keys, values, bias), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("shape", [(1, 1, 37, 5, 16), (2, 3, 50, 1, 8), (3, 2, 1, 70, 64)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("size", [2, 5000, 1 << 22])
def test_in_half_precision(
    shape: tuple[int, ...], biased: bool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, heads, tokens, others, width = shape
    monkeypatch.setattr(module, "_HALF_BLOCK_BYTES", size)
    queries = torch.randn(batch, tokens, heads, width).transpose(1, 2).bfloat16()
    keys, values = torch.randn(2, batch, heads, others, width).bfloat16()
    bias = torch.randn(batch, others) if biased else None
    with torch.inference_mode():
        found = module._in_half(
            queries, keys, values, None if bias is None else bias.bfloat16()[:, None, None]
        )
        through = attention(queries, keys, values, bias)
    assert found.dtype == through.dtype == torch.bfloat16
    expected = by_formula(queries, keys, values, None if bias is None else bias.bfloat16())
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.03)
    torch.testing.assert_close(through.double(), expected, rtol=0.02, atol=0.03)
