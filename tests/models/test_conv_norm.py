"""Convolution and batch normalisation in one pass: the values of both, one after the other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from efnet.models import layers
from efnet.models.layers import Activation, ConvNorm, conv_norm

pytestmark = pytest.mark.models

CLAMPS = {None: lambda x: x, "relu": F.relu, "relu6": F.relu6}


def parts(
    channels: tuple[int, int], kernel: int, stride: int, dilation: int, groups: int, seed: int
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution, and a normalisation whose four vectors are not those of the start."""
    generator = torch.Generator().manual_seed(seed)
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(*channels, kernel, stride, padding, dilation, groups, bias=False)
    norm = nn.BatchNorm2d(channels[1], eps=1e-3)
    with torch.no_grad():
        conv.weight.normal_(generator=generator)
        norm.weight.uniform_(-2, 2, generator=generator)
        norm.bias.normal_(generator=generator)
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.1, 4, generator=generator)
    return conv.eval(), norm.eval()


def written_out(features: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, activation: str | None) -> Tensor:
    """The two formulas in float64."""
    each = features.double()
    places = (conv.stride, conv.padding, conv.dilation, conv.groups)
    each = F.conv2d(each, conv.weight.double(), None, *places)
    vectors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    mean, variance, weight, bias = (vector.double()[:, None, None] for vector in vectors)
    return CLAMPS[activation]((each - mean) / (variance + norm.eps).sqrt() * weight + bias)


@given(
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    grouped=st.booleans(),
    activation=st.sampled_from([None, "relu", "relu6"]),
    size=st.tuples(st.integers(1, 3), st.integers(1, 13), st.integers(1, 13)),
    last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_both_formulas(
    kernel: int,
    stride: int,
    dilation: int,
    grouped: bool,
    activation: Activation | None,
    size: tuple[int, int, int],
    last: bool,
    seed: int,
) -> None:
    """Of any kernel, stride, group and memory order, in inference and with gradients."""
    channels = (6, 6) if grouped else (3, 10)
    conv, norm = parts(channels, kernel, stride, dilation, 6 if grouped else 1, seed)
    batch, height, width = size
    features = torch.randn(batch, channels[0], height, width, generator=torch.Generator().manual_seed(seed))
    if last:
        features = features.contiguous(memory_format=torch.channels_last)
    expected = written_out(features, conv, norm, activation)
    with torch.inference_mode():
        fused = conv_norm(features, conv, norm, activation)
    learning = conv_norm(features, conv, norm, activation)
    assert not fused.requires_grad
    assert learning.requires_grad
    for found in (fused, learning):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "case", ["training", "float64", "bfloat16", "float16 by autocast", "no oneDNN", "no bfloat16"]
)
def test_other_cases_take_two_passes(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one pass does not compute."""

    def refuse(*_: object) -> Tensor:
        raise AssertionError("computed in one pass")

    block = ConvNorm(3, 4, 3)
    features = torch.randn(2, 3, 8, 8)
    block.train(case == "training")
    if case in ("float64", "bfloat16"):
        block, features = block.to(getattr(torch, case)), features.to(getattr(torch, case))
    if case == "no oneDNN":
        monkeypatch.setattr(layers, "has_onednn_convolution", lambda: False)
    monkeypatch.setattr(layers, "onednn_convolution", refuse)
    conv, norm = block
    monkeypatch.setattr(layers, "has_onednn_bfloat16", lambda: case != "no bfloat16")
    half = {"float16 by autocast": torch.float16, "no bfloat16": torch.bfloat16}.get(case)
    with torch.no_grad(), torch.autocast("cpu", half, enabled=half is not None):
        found = block(features)
        if case != "training":
            torch.testing.assert_close(found, F.relu(norm(conv(features))))
    assert (found >= 0).all()
    assert found.dtype == (half or features.dtype)


def test_bfloat16_in_one_pass() -> None:
    """Rounded to bfloat16 at each step of its own, as in two passes."""
    if not layers.has_onednn_bfloat16():
        pytest.skip("this CPU has no bfloat16 of oneDNN")
    conv, norm = parts((3, 10), 3, 1, 1, 1, 7)
    features = torch.randn(2, 3, 9, 11)
    expected = written_out(features, conv, norm, "relu")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = conv_norm(features, conv, norm, "relu")
    assert found.dtype == torch.bfloat16
    assert (found.double() - expected).abs().max() < 0.03 * expected.max()


def test_takes_one_pass_in_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above does not pass because nothing ever does."""
    if not layers.has_onednn_convolution():
        pytest.skip("this PyTorch has no convolution of oneDNN")
    calls: list[float | None] = []
    whole = layers.onednn_convolution

    def count(*arguments: object) -> Tensor:
        calls.append(arguments[-1])  # type: ignore[arg-type]
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(layers, "onednn_convolution", count)
    with torch.no_grad():
        ConvNorm(3, 4, 1).eval()(torch.randn(1, 3, 5, 5))
        ConvNorm(3, 4, 1, activation=None).eval()(torch.randn(1, 3, 5, 5))
    assert calls == [torch.inf, None]
