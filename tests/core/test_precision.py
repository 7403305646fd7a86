"""The switches of reduced precision belong to the process: threads must not turn them back for each other."""

from __future__ import annotations

import threading

import torch

from efnet.core.precision import exact_products


def switch() -> str:
    """What CPU products may be rounded to; before PyTorch 2.9 one setting for all devices."""
    matmul = torch.backends.mkldnn.matmul if hasattr(torch.backends.mkldnn, "matmul") else None
    precision: str = getattr(matmul, "fp32_precision", None) or torch.get_float32_matmul_precision()
    return precision


def test_the_last_thread_to_leave_restores_what_the_user_allowed() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    allowed = switch()
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with exact_products():
            entered.set()
            leave.wait(10)

    try:
        thread = threading.Thread(target=first)
        thread.start()
        assert entered.wait(10)
        with exact_products():
            leave.set()
            thread.join()
            # The other has left; this one still relies on exact products.
            assert switch() in ("ieee", "highest")
        assert switch() == allowed
        assert allowed not in ("ieee", "highest")
    finally:
        torch.set_float32_matmul_precision(before)
