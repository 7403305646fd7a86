"""Devices and precisions: the vocabulary of all commands."""

from __future__ import annotations

import pytest
import torch

from efnet.core.devices import autocast, check_precision, pick_device
from efnet.core.errors import InputError


def test_auto_is_cuda_or_the_cpu() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == torch.device("cpu")


def test_auto_passes_mps_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mps", "no float64, which clustering tokens needs; use `device` cpu"),
        ("gpu", "'gpu' is unknown"),
        ("", "'' is unknown"),
        ("cuda:x", "'cuda:x' is unknown"),
        ("meta", "'meta' is not supported"),
        ("cuda:99", "'cuda:99' is not available here"),
    ],
)
def test_refused_devices(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pick_device(name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_numbered_device() -> None:
    assert pick_device("cuda:0") == torch.device("cuda", 0)


def test_precisions() -> None:
    assert check_precision("32") == "32"
    assert check_precision("bf16") == "bf16"
    for wrong in ("float32", "bfloat16", "16", ""):
        with pytest.raises(InputError, match="choose 32 or bf16"):
            check_precision(wrong)


def test_autocast_decides_what_products_are_made_of() -> None:
    cpu, one = torch.device("cpu"), torch.ones(2, 2)
    with autocast(cpu, "bf16"):
        assert (one @ one).dtype == torch.bfloat16
        with autocast(cpu, "32"):
            assert (one @ one).dtype == torch.float32
    assert (one @ one).dtype == torch.float32
