"""Learning rate, parameter groups and the order of the pairs."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import efnet
from efnet.training.config import ScheduleConfig
from efnet.training.optimizer import group_as_saved, learning_rate, parameter_groups
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


@pytest.mark.parametrize("position", ["pe", "pce"])
def test_positions_do_not_decay(position: str) -> None:
    """Neither where tokens are, nor what their place adds to the importance."""
    model = efnet.create_model("efnet_tiny", position=position)
    decayed, _ = parameter_groups(model, weight_decay=0.01)
    ids = {id(value) for value in decayed["params"]}
    decaying = {name for name, value in model.named_parameters() if id(value) in ids}
    assert not [name for name in decaying if "position" in name]
    assert {"token_stages.0.dbtc.score.weight", "token_stages.0.dbtc.conv.skip.weight"} <= decaying


@pytest.mark.parametrize("fresh_lr", [1.0, 10.0])
def test_a_state_from_before_positions_were_exempt_is_resumed(fresh_lr: float) -> None:
    """Its groups differ, and so do the numbers of its parameters; decay goes on as it began."""
    model = efnet.create_model("efnet_tiny")
    fresh = [name for name, _ in model.named_parameters() if "dbtc" in name or "decoder" in name]
    groups = parameter_groups(model, 0.01, fresh, fresh_lr)
    scores = [value for name, value in model.named_parameters() if "score_position" in name]
    before = [{**group, "params": list(group["params"])} for group in groups]
    owner = next(group for group in before if any(value is scores[0] for value in group["params"]))
    decayed = before[before.index(owner) - 1]
    owner["params"] = [value for value in owner["params"] if all(value is not score for score in scores)]
    order = {id(value): number for number, value in enumerate(model.parameters())}
    decayed["params"] = sorted([*decayed["params"], *scores], key=lambda value: order[id(value)])
    old = torch.optim.AdamW(before)
    for number, value in enumerate(model.parameters()):
        value.grad = torch.full_like(value, number)
    old.step()
    new = torch.optim.AdamW(groups)
    group_as_saved(model, new, old.state_dict())
    new.load_state_dict(old.state_dict())
    for value in model.parameters():
        assert torch.equal(new.state[value]["exp_avg"], old.state[value]["exp_avg"])
    again = torch.optim.AdamW(parameter_groups(model, 0.01, fresh, fresh_lr))
    group_as_saved(model, again, again.state_dict())
    sizes = [len(group["params"]) for group in again.param_groups]
    assert sizes == [len(group["params"]) for group in parameter_groups(model, 0.01, fresh, fresh_lr)]


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
