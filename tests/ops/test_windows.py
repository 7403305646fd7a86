"""Windows: a round trip at any size, and each window holds what lies there."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from efnet.ops.tokens import merge_windows, split_windows


@given(height=st.integers(1, 20), width=st.integers(1, 20), size=st.integers(1, 9), batch=st.integers(1, 2))
def test_round_trip(height: int, width: int, size: int, batch: int) -> None:
    features = torch.randn(batch, height, width, 3)
    windows = split_windows(features, size)
    assert windows.shape == (batch, -(-height // size) * -(-width // size), size * size, 3)
    assert torch.equal(merge_windows(windows, size, (height, width)), features)


def test_windows_hold_their_place() -> None:
    features = torch.arange(5 * 7).reshape(1, 5, 7, 1)
    windows = split_windows(features, 4)
    for row in range(2):
        for column in range(2):
            expected = torch.zeros(4, 4, dtype=torch.int64)
            part = features[0, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4, 0]
            expected[: part.shape[0], : part.shape[1]] = part
            assert torch.equal(windows[0, row * 2 + column, :, 0].view(4, 4), expected)
