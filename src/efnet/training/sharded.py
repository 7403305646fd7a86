"""A network whose weights are spread over processes (FSDP2), and the same network in one piece.

Files, validation and averaged weights want it whole: they hold the same whatever the number of processes.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from efnet.models.base import SegmentationModel

_WHOLE = StateDictOptions(full_state_dict=True)


def shard(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Spread a network over the processes of a mesh: its transformer blocks one by one, then what is left."""
    for name, module in network.named_modules():
        # Not every list: what a part hands on must be no view, which sums with shortcuts are not.
        if name.endswith("blocks") and isinstance(module, nn.ModuleList):
            for block in module:
                fully_shard(block, mesh=mesh["data_parallel"])
    fully_shard(network, mesh=mesh["data_parallel"])
    return network


class Whole:
    """A network in one piece on every process, and what moves between it and the spread one.

    Args:
        network: before it is spread; it is copied.

    Attributes:
        network: the copy, as of the last `collect`.
    """

    def __init__(self, network: SegmentationModel) -> None:
        self.network = copy.deepcopy(network)

    def collect(self, spread: nn.Module) -> SegmentationModel:
        """The network in one piece; every process must call this."""
        state: dict[str, Any] = get_model_state_dict(spread, options=_WHOLE)
        for name, _ in spread.named_buffers():  # batch statistics, of each process's own pairs
            torch.distributed.broadcast(state[name], 0)
        self.network.load_state_dict(state)
        return self.network

    def collect_optimizer(self, spread: nn.Module, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """An optimizer of `network` in the state of the spread one's; every process must call this."""
        names = {id(parameter): name for name, parameter in spread.named_parameters()}
        own = dict(self.network.named_parameters())
        groups = [
            {**group, "params": [own[names[id(parameter)]] for parameter in group["params"]]}
            for group in optimizer.param_groups
        ]
        collected = torch.optim.AdamW(groups)
        if optimizer.state:  # before the first step PyTorch would make one up, and count it
            state: Any = get_optimizer_state_dict(spread, optimizer, options=_WHOLE)
            collected.load_state_dict(_numbered(state))
        return collected

    def spread(
        self, spread: nn.Module, optimizer: torch.optim.Optimizer, collected: torch.optim.Optimizer
    ) -> None:
        """Bring `network` and its optimizer's state to the spread ones; every process must call this."""
        set_model_state_dict(spread, self.network.state_dict(), options=_WHOLE)
        if collected.state:
            names = [name for group in _names(self.network, collected) for name in group]
            set_optimizer_state_dict(spread, optimizer, _named(collected, names), options=_WHOLE)


def _names(network: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    """The names of the parameters of every group."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]


def _numbered(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state with numbers for the names of parameters, as its `state_dict` has it."""
    names = [name for group in state["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    groups = [
        {**group, "params": [numbers[name] for name in group["params"]]} for group in state["param_groups"]
    ]
    return {
        "state": {numbers[name]: value for name, value in state["state"].items()},
        "param_groups": groups,
    }


def _named(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Any]:
    """The other way round."""
    state = optimizer.state_dict()
    groups = [
        {**group, "params": [names[number] for number in group["params"]]} for group in state["param_groups"]
    ]
    return {
        "state": {names[number]: value for number, value in state["state"].items()},
        "param_groups": groups,
    }
