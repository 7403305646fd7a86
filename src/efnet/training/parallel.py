"""Training in several processes: how a run starts Fabric, and networks sharded over processes (FSDP2)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
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

from efnet.core.fabric import make_fabric
from efnet.models.base import SegmentationModel
from efnet.training.config import TrainConfig
from efnet.training.optimizer import group_as_saved

_WHOLE = StateDictOptions(full_state_dict=True)


def shard(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard a network over the processes of a mesh: its transformer blocks one by one, then the rest."""
    for parameter in network.parameters():  # sharding takes no other order of memory, such as channels last
        parameter.data = parameter.data.contiguous()
    for name, module in network.named_modules():
        # Only blocks: a part must not return a view, and sums with shortcuts are none.
        if name.endswith("blocks") and isinstance(module, nn.ModuleList):
            for block in module:
                fully_shard(block, mesh=mesh["data_parallel"])
    fully_shard(network, mesh=mesh["data_parallel"])
    return network


class Whole:
    """A whole copy, on every process, of a network that will be sharded; every process must call each method.

    Files, validation and averaged weights use it: they are the same whatever the number of processes.
    """

    def __init__(self, network: SegmentationModel) -> None:
        self.network = copy.deepcopy(network)  # the copy, as of the last `collect`

    def collect(self, spread: nn.Module) -> SegmentationModel:
        """Gather the sharded network into the copy, and return it."""
        state: dict[str, Any] = get_model_state_dict(spread, options=_WHOLE)
        for name, _ in spread.named_buffers():  # batch statistics, of each process's own pairs
            if name in state:  # constants are not saved
                torch.distributed.broadcast(state[name], 0)
        self.network.load_state_dict(state)
        return self.network

    def collect_optimizer(self, spread: nn.Module, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Return an optimizer of the copy in the state of the sharded network's."""
        names = {id(parameter): name for name, parameter in spread.named_parameters()}
        own = dict(self.network.named_parameters())
        groups = [
            {**group, "params": [own[names[id(parameter)]] for parameter in group["params"]]}
            for group in optimizer.param_groups
        ]
        collected = torch.optim.AdamW(groups)
        if optimizer.state:  # before the first step PyTorch would invent a state, and count that step
            state: Any = get_optimizer_state_dict(spread, optimizer, options=_WHOLE)
            names_in_order = [name for group in state["param_groups"] for name in group["params"]]
            numbers = {name: number for number, name in enumerate(names_in_order)}
            collected.load_state_dict(_rekeyed(state, numbers))
        return collected

    def spread(
        self, spread: nn.Module, optimizer: torch.optim.Optimizer, collected: torch.optim.Optimizer
    ) -> None:
        """Copy the copy's weights and its optimizer's state to the sharded ones."""
        set_model_state_dict(spread, self.network.state_dict(), options=_WHOLE)
        group_as_saved(spread, optimizer, collected.state_dict())
        if collected.state:
            names = {id(parameter): name for name, parameter in self.network.named_parameters()}
            in_order = [names[id(value)] for group in collected.param_groups for value in group["params"]]
            named = _rekeyed(collected.state_dict(), dict(enumerate(in_order)))
            set_optimizer_state_dict(spread, optimizer, named, options=_WHOLE)


def _rekeyed(state: Mapping[str, Any], keys: Mapping[Any, Any]) -> dict[str, Any]:
    """Replace what an optimizer's state calls the parameters: names by numbers, or numbers by names."""
    return {
        "state": {keys[key]: value for key, value in state["state"].items()},
        "param_groups": [
            {**group, "params": [keys[key] for key in group["params"]]} for group in state["param_groups"]
        ],
    }


def start_fabric(config: TrainConfig) -> Fabric:
    """Start Fabric on the devices of a recipe; raises InputError as `make_fabric` does."""
    parallel = config.parallel
    return make_fabric(
        config.device,
        config.precision,
        parallel.devices,
        parallel.nodes,
        parallel.timeout,
        shard if parallel.strategy == "fsdp" else None,
    )
