"""Ranger against the formulas of its three papers, and its state in a run that is resumed."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import efnet
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.scenes import write_dataset
from efnet.training.config import OptimizerConfig
from efnet.training.optimizer import Ranger, make_optimizer, set_rate
from efnet.training.state import read_state

Array = NDArray[np.float64]


def literal(start: Array, gradients: list[Array], rates: list[float], decay: float) -> Array:
    """RAdam (algorithm 2 of 1908.03265), decoupled decay, centred gradients, lookahead of 6 and 0.5."""
    beta1, beta2, eps = 0.95, 0.999, 1e-5
    theta, slow = start.copy(), start.copy()
    first, second = np.zeros_like(start), np.zeros_like(start)
    longest = 2 / (1 - beta2) - 1
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        if gradient.ndim > 1:
            rows = gradient.reshape(len(gradient), -1)
            gradient = (rows - rows.mean(1)[:, None]).reshape(gradient.shape)
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        theta = theta - rate * decay * theta
        unbiased = first / (1 - beta1**t)
        length = longest - 2 * t * beta2**t / (1 - beta2**t)
        if length > 5:
            rectified = math.sqrt(
                (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            )
            unbiased = rectified * unbiased * math.sqrt(1 - beta2**t) / (np.sqrt(second) + eps)
        theta = theta - rate * unbiased
        if t % 6 == 0:
            slow = slow + 0.5 * (theta - slow)
            theta = slow.copy()
    return theta


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**20),
    shape=st.sampled_from([(3,), (2, 4), (3, 2, 3, 3), ()]),
    steps=st.integers(1, 20),
    decay=st.sampled_from([0.0, 0.1]),
)
def test_steps_equal_the_formulas(seed: int, shape: tuple[int, ...], steps: int, decay: float) -> None:
    rng = np.random.default_rng(seed)
    start, rates = rng.standard_normal(shape), list(rng.uniform(0.001, 0.1, steps))
    gradients = [np.asarray(rng.standard_normal(shape)) for _ in range(steps)]
    value = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = Ranger([{"params": [value], "weight_decay": decay}], 1.0)
    for gradient, rate in zip(gradients, rates, strict=True):
        value.grad = torch.tensor(gradient, dtype=torch.float64)
        set_rate(optimizer, rate)
        optimizer.step()
    expected = literal(np.asarray(start), gradients, rates, decay)
    np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_it_rectifies_from_the_sixth_step_on() -> None:
    """Before, a gradient ten times as large moves ten times as far; then the square root evens that out."""
    moves = []
    for scale in (1.0, 10.0):
        value = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer, places = Ranger([value], 0.01), [0.0]
        for _ in range(8):
            value.grad = torch.full((1,), scale, dtype=torch.float64)
            optimizer.step()
            places.append(float(value.detach()))
        moves.append(np.diff(places))
    ratio = moves[1] / moves[0]
    assert ratio[:5] == pytest.approx(np.full(5, 10.0))
    assert ratio[6:] == pytest.approx(np.ones(2), rel=1e-3)


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1))
    config = OptimizerConfig(kind="ranger", lr=0.01, weight_decay=0.1, betas=(0.95, 0.999))

    def steps(module: torch.nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for number in numbers:
            images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            module(images).square().mean().backward()
            optimizer.step()

    whole = copy.deepcopy(network)
    steps(whole, make_optimizer(whole, config), range(15))
    optimizer = make_optimizer(network, config)
    steps(network, optimizer, range(8))  # between two meetings of slow and fast weights
    content = io.BytesIO()
    torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict()}, content)
    state = torch.load(io.BytesIO(content.getvalue()), weights_only=True)
    again = copy.deepcopy(network)
    again.load_state_dict(state["network"])
    resumed = make_optimizer(again, config)
    resumed.load_state_dict(state["optimizer"])
    steps(again, resumed, range(8, 15))
    for first, second in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)
    (group,) = resumed.param_groups  # norms and biases decay too
    assert (group["weight_decay"], len(group["params"])) == (0.1, 6)


def test_a_closure_is_evaluated_once_before_the_gradients_are_centred() -> None:
    value = torch.nn.Parameter(torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    optimizer, calls = Ranger([value], 0.1), []

    def closure() -> float:
        calls.append(1)
        optimizer.zero_grad()
        loss = (value * torch.tensor([[1.0, 3.0]])).sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 7.0
    assert len(calls) == 1
    # The gradient (1, 3) less its mean, with the first step's momentum undone.
    assert value.detach().numpy() == pytest.approx(np.array([[1.1, 1.9]]))


def test_a_run_resumes_with_the_same_bits(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_dataset(root, train=2, val=1, test=1, size=(64, 64), seed=2)
    base = ["train", "--dataset", "mfnet", "--root", str(root), "--model", "mfnet", "--size", "32x48"]
    more = ["--optimizer.kind", "ranger", "--lr", "0.01", "--batch-size", "1", "--workers", "0"]
    quiet = ["--device", "cpu", "--validation.samples", "0", "--quiet"]
    # Slow and fast weights meet after the third epoch, which is in the resumed part.
    schedule = ["--schedule.gamma", "0.9", "--warmup-epochs", "0", "--val-every", "9"]
    for name, epochs in (("whole", "4"), ("parts", "2")):
        words = [*base, *more, *quiet, *schedule, "--out", str(tmp_path / name), "--epochs", epochs]
        assert main(words) == 0
    assert main(["train", "--out", str(tmp_path / "parts"), "--resume", "--epochs", "4", "--quiet"]) == 0
    states = [read_state(tmp_path / name / "last" / "state.pt") for name in ("whole", "parts")]
    for key, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][key])
    entries = states[1]["optimizer"]["state"].values()
    assert {key for entry in entries for key in entry} == {"step", "exp_avg", "exp_avg_sq", "slow"}


def test_other_rates_of_the_decoder() -> None:
    config = OptimizerConfig(decoder_lr=10.0, lr=0.1)
    model = efnet.create_model("segformer_b0", 4, modality="rgb")
    optimizer = make_optimizer(model, config)
    set_rate(optimizer, 0.1)
    rates = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
    for name, value in model.named_parameters():
        assert rates[id(value)] == pytest.approx(0.1 if name.startswith("encoder.") else 1.0)
    with pytest.raises(InputError, match="decoder_lr needs a network with a ResNet or a MiT"):
        make_optimizer(efnet.create_model("mfnet", 4), config)
    with pytest.raises(InputError, match=r"fresh_lr is 2.0; give it or optimizer.decoder_lr, not both"):
        OptimizerConfig(decoder_lr=10.0, fresh_lr=2.0)
