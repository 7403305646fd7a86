"""Learning rate, parameter groups and the order of the pairs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import efnet
from efnet.training.config import ScheduleConfig
from efnet.training.optimizer import learning_rate, parameter_groups
from efnet.training.sampler import EpochSampler


def test_learning_rate_warms_up_and_decays() -> None:
    schedule = ScheduleConfig(epochs=100, warmup_epochs=10, power=0.9)
    rates = [learning_rate(step, 7, 1e-3, schedule) for step in range(700)]
    assert rates[0] == pytest.approx(1e-3 / 71)
    assert rates[69] == pytest.approx(1e-3 * 70 / 71)
    assert rates[70] == pytest.approx(1e-3)
    assert all(before < after for before, after in itertools.pairwise(rates[:71]))
    assert all(before > after for before, after in itertools.pairwise(rates[70:]))
    assert rates[385] == pytest.approx(1e-3 * 0.5**0.9)
    assert 0 < rates[-1] < 1e-5


def test_short_trials_reach_their_rate() -> None:
    schedule = ScheduleConfig(epochs=10, warmup_epochs=10)
    rates = [learning_rate(step, 5, 1.0, schedule) for step in range(50)]
    assert max(rates) == 1.0
    assert rates.index(1.0) == 5


def test_every_parameter_is_in_one_group() -> None:
    model = efnet.create_model("efnet_tiny", position="pe")
    decayed, kept = parameter_groups(model, weight_decay=0.01)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.01, 0.0)
    numbers = {id(value) for group in (decayed, kept) for value in group["params"]}
    assert numbers == {id(value) for value in model.parameters()}
    assert len(decayed["params"]) + len(kept["params"]) == len(numbers)
    names = {id(value): name for name, value in model.named_parameters()}
    kept_names = {names[id(value)] for value in kept["params"]}
    assert {"decoder.class_tokens", "token_stages.0.dbtc.position.table", "rgb.norm.weight"} <= kept_names
    assert all(value.ndim > 1 for value in decayed["params"])


@given(
    length=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    epoch=st.integers(0, 5),
    start=st.integers(0, 50),
)
def test_order_resumes_exactly(length: int, batch_size: int, epoch: int, start: int) -> None:
    order = EpochSampler(length, batch_size, seed=3)
    order.set_epoch(epoch)
    whole = list(order)
    seen = [index for batch in whole for index in batch]
    assert len(seen) == len(set(seen))
    assert len(whole) == max(1, length // batch_size)
    assert set(seen) <= set(range(length))
    order.set_epoch(epoch, start)
    assert list(order) == whole[start:]


def test_epochs_differ() -> None:
    order = EpochSampler(20, 4, seed=0)
    first = list(order)
    order.set_epoch(1)
    assert list(order) != first
