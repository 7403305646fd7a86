"""What every test of exported programs begins with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """Loops that other tests ran stay compiled, and PyTorch 2.13 may fail to compare new ones with them."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
