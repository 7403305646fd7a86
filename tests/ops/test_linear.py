"""The linear layer against PyTorch's own, with whichever library is the faster here."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from efnet.core.compat import onednn_pays
from efnet.ops import linear as module
from efnet.ops.linear import linear


@pytest.fixture(params=[True, False], ids=["onednn", "mkl"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch is without oneDNN")
    monkeypatch.setattr(module, "onednn_pays", lambda: request.param)


@pytest.mark.parametrize("shape", [(5, 12), (2, 7, 12), (2, 3, 4, 12)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.usefixtures("either")
def test_product_and_gradients(shape: tuple[int, ...], biased: bool) -> None:
    tensors = [torch.randn(shape), torch.randn(6, 12), *([torch.randn(6)] if biased else [])]
    for tensor in tensors:
        tensor.requires_grad_()
    ours, theirs = linear(*tensors), F.linear(*tensors)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(ours)
    for mine, expected in zip(
        torch.autograd.grad(ours, tensors, grad), torch.autograd.grad(theirs, tensors, grad), strict=True
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(linear(*tensors), theirs.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("either")
def test_columns_and_single_inputs_that_need_a_gradient() -> None:
    """A slice of a weight is no block of memory; a frozen layer passes gradients on."""
    features, weight = torch.randn(4, 6, requires_grad=True), torch.randn(5, 20)[:, 3:9]
    expected = features @ weight.t()
    product = linear(features, weight)
    torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-5)
    product.sum().backward()
    torch.testing.assert_close(features.grad, weight.sum(0).expand(4, 6), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("either")
def test_types_and_autocast_are_as_ever() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        features, weight = torch.randn(3, 4, dtype=dtype), torch.randn(2, 4, dtype=dtype)
        assert torch.equal(linear(features, weight), F.linear(features, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(torch.randn(3, 4), torch.randn(2, 4)).dtype == torch.bfloat16
    assert linear(torch.empty(3, 4, device="meta"), torch.empty(2, 4, device="meta")).shape == (3, 2)


def test_the_choice_is_made_once() -> None:
    assert onednn_pays() is onednn_pays()


@pytest.mark.parametrize(
    ("maker", "capability"), [("GenuineIntel", "AVX512"), ("AuthenticAMD", "AVX2"), (None, "AVX512")]
)
def test_other_processors_keep_the_usual_product(
    maker: str | None, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("efnet.core.compat.cpu_facts", lambda: {"vendor_id": maker})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert not onednn_pays.__wrapped__()
