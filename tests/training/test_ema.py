"""The average of the weights against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from efnet.core.errors import InputError
from efnet.training.config import EmaConfig
from efnet.training.optimizer import WeightAverage


def test_average_follows_its_definition() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = WeightAverage(network, EmaConfig(decay=0.6, warmup=10))
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    for step, kept in zip(
        range(1, 9), (2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5), strict=True
    ):
        for parameter in network.parameters():
            parameter.data.normal_()
        network(torch.randn(5, 3))
        average.update(network, step)
        for name, value in network.state_dict().items():
            counts = not value.is_floating_point()
            expected[name] = value.clone() if counts else kept * expected[name] + (1 - kept) * value
    assert EmaConfig(decay=0.6, warmup=10).kept(100) == 0.6
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert int(average.network[1].num_batches_tracked) == 8


def test_the_copy_is_apart_and_does_not_learn() -> None:
    network = nn.Linear(2, 2).train()
    average = WeightAverage(network, EmaConfig(decay=0.9))
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert not average.network.training
    before = average.network.weight.clone()
    network.weight.data.fill_(7)
    assert torch.equal(average.network.weight, before)
    average.update(network, 1)
    assert not average.network.weight.requires_grad
    assert torch.equal(network.weight, torch.full((2, 2), 7.0))


def test_without_decay_or_warm_up() -> None:
    assert EmaConfig(decay=0.0).kept(5) == 0  # the network itself
    assert EmaConfig(decay=0.9, warmup=1).kept(1) == 0.9


@pytest.mark.parametrize(
    "values", [{"decay": 1.0}, {"decay": -0.1}, {"warmup": 0.5}, {"warmup": float("nan")}]
)
def test_bad_configuration(values: dict) -> None:
    with pytest.raises(InputError, match=rf"ema\.{next(iter(values))}"):
        EmaConfig(**values)
