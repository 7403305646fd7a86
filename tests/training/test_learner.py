"""A training step: gradients summed over passes, and rates of what is fresh."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from test_train import QUIET, config

import efnet
from efnet.core.classes import ClassSet
from efnet.training import train
from efnet.training.config import LossConfig, NetworkConfig, ScheduleConfig
from efnet.training.optimizer import parameter_groups, set_rate
from efnet.training.step import Learner, build_network


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_accumulated_gradients_are_those_of_the_whole_batch(scenes: Path, parts: int) -> None:
    """Within rounding, where pixels without supervision lie unevenly and weights differ."""
    short = config(scenes, network=NetworkConfig(name="efnet_tiny"), loss=LossConfig(class_weights="enet"))
    generator = torch.Generator().manual_seed(0)
    batch = {
        "rgb": torch.rand(3, 3, 64, 96, generator=generator),
        "thermal": torch.rand(3, 1, 64, 96, generator=generator),
        "label": torch.randint(0, 9, (3, 64, 96), generator=generator),
        "index": torch.arange(3),
    }
    batch["label"][0, 20:] = 255
    gradients = []
    for size in (3, -(-3 // parts)):
        torch.manual_seed(1)
        network, _ = build_network(short.network, ClassSet.generic(9))
        one = dataclasses.replace(short, data=dataclasses.replace(short.data, batch_size=size))
        learner = Learner(one, network, (), (2,), 10)
        learner.objective.class_weights = torch.arange(1.0, 10.0)
        learner.step(batch, 0)
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    scale = max(float(gradient.abs().max()) for gradient in gradients[0])
    for whole, sum_ in zip(*gradients, strict=True):
        torch.testing.assert_close(sum_, whole, rtol=1e-3, atol=1e-5 * scale)


def test_accumulation_takes_the_pairs_of_the_large_batch(scenes: Path, tmp_path: Path) -> None:
    data = config(scenes).data
    still = NetworkConfig(name="efnet_tiny")  # dropped paths are drawn per pass
    outs = []
    for size, accumulate in ((2, 1), (1, 2)):
        changed = dataclasses.replace(data, batch_size=size, accumulate=accumulate)
        outs.append(tmp_path / str(size))
        one = config(scenes, data=changed, network=still, schedule=ScheduleConfig(epochs=1))
        train(one, outs[-1], reporter=QUIET)
    first, second = (json.loads((out / "metrics.jsonl").read_text())["loss"] for out in outs)
    assert second == pytest.approx(first, rel=1e-3)


def test_fresh_parameters_get_their_own_rate() -> None:
    model = efnet.create_model("efnet_tiny")
    fresh = [name for name, _ in model.named_parameters() if name.startswith(("fusion.", "decoder."))]
    groups = parameter_groups(model, 0.01, fresh, fresh_lr=10)
    numbers = {id(value): group for group in groups for value in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(numbers) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert numbers[id(parameter)].get("lr_scale", 1) == (10 if name in fresh else 1)
        assert numbers[id(parameter)]["weight_decay"] in (0, 0.01)
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    set_rate(optimizer, 0.5)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.5, 5.0]
    assert len(parameter_groups(model, 0.01, fresh, fresh_lr=1)) == 2
