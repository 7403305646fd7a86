"""Squared distances against plain differences."""

from __future__ import annotations

import torch

from efnet.ops.linear import squared_distance


def test_equals_plain_differences() -> None:
    x, y = torch.randn(2, 7, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    expected = (x[:, :, None] - y).square().sum(-1)
    torch.testing.assert_close(squared_distance(x, y), expected)
    close = squared_distance(x.float(), y.float())
    torch.testing.assert_close(close.double(), expected, rtol=1e-4, atol=1e-5)


def test_stays_float32_under_autocast() -> None:
    x = 10 + torch.randn(6, 64)
    exact = squared_distance(x.double(), x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = squared_distance(x, x)
        halves = squared_distance(x.bfloat16(), x.bfloat16())
    assert inside.dtype == halves.dtype == torch.float32
    torch.testing.assert_close(inside.double(), exact, rtol=1e-3, atol=1e-2)
    assert (inside >= 0).all()
