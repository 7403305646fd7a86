"""Who started the processes of a run, as Lightning Fabric wants to be told.

A network whose weights are spread over processes (FSDP2), and the same network in one piece.

Files, validation and averaged weights want it whole: they hold the same whatever the number of processes.

Lightning Fabric on the configured device, or on several.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.strategies.strategy import Strategy
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

from efnet.core import distributed
from efnet.core.devices import Precision, pick_device
from efnet.core.errors import InputError
from efnet.models.base import SegmentationModel
from efnet.training.config import ParallelConfig

_PORTS = range(15000, 25000)
"""Below those that systems give to outgoing connections."""


class StepEnvironment(ClusterEnvironment):
    """The tasks of one step of a SLURM job: those that one `srun` started.

    Fabric's own looks at the job instead, which may have other tasks and machines; it refuses `--ntasks`, and
    within `salloc` it overlooks srun.

    Raises:
        InputError: machines have different numbers of tasks.
    """

    def __init__(self) -> None:
        tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1")
        if "," in tasks:
            raise InputError(
                f"srun started {tasks} tasks on the machines of this step; give every machine as many, with "
                "--ntasks-per-node"
            )

    @property
    def creates_processes_externally(self) -> bool:
        """They run already."""
        return True

    @property
    def main_address(self) -> str:
        """The first machine of the step, or MASTER_ADDR."""
        machines = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
        return os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(machines))

    @property
    def main_port(self) -> int:
        """One that follows from job and step, so that steps side by side do not meet, or MASTER_PORT."""
        job, step = (int(os.environ.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        port = _PORTS[(job + 1009 * step) % len(_PORTS)]
        return int(os.environ.setdefault("MASTER_PORT", str(port)))

    @staticmethod
    def detect() -> bool:
        """Whether srun started several."""
        return distributed.by_srun()

    def world_size(self) -> int:
        """Number of tasks."""
        return distributed.world_size()

    def set_world_size(self, size: int) -> None:
        """It stands fixed."""

    def global_rank(self) -> int:
        """Number of this task in the step."""
        return distributed.rank()

    def set_global_rank(self, rank: int) -> None:
        """It stands fixed."""

    def local_rank(self) -> int:
        """Number of this task on its machine."""
        return int(os.environ["SLURM_LOCALID"])

    def node_rank(self) -> int:
        """Number of this machine in the step."""
        return int(os.environ["SLURM_NODEID"])


def pick_environment() -> ClusterEnvironment:
    """Of torchrun or srun if one of them started this process, else that of a command started alone.

    Left to itself, Fabric also believes a batch script of SLURM to be one of several tasks, and leaves
    `--devices` out of account there.

    Raises:
        InputError: srun started different numbers of tasks on its machines.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    return StepEnvironment() if StepEnvironment.detect() else LightningEnvironment()


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


_PRECISIONS: dict[Precision, Any] = {"32": "32-true", "bf16": "bf16-mixed"}


def make_fabric(device: str, precision: Precision, parallel: ParallelConfig | None = None) -> Fabric:
    """Fabric for the processes that torchrun or srun started, else for those of the configuration, launched.

    Launching starts the same command once more for every further process that nobody started yet, and
    returns when all have met.

    Args:
        device: of each process; with several, one without a number.
        precision: of all.
        parallel: how many, if they are not there yet, and how they share the work.

    Raises:
        InputError: the device is unknown or not there, there are fewer devices than processes, or machines
            have different numbers of them.
    """
    parallel = parallel or ParallelConfig()
    chosen = pick_device(device)
    processes, nodes = distributed.world_size(), distributed.nodes()
    if processes == 1:
        processes, nodes = parallel.devices * parallel.nodes, parallel.nodes
    per_node = processes // nodes
    environment = pick_environment()
    devices: Any = per_node if chosen.index is None else [chosen.index]
    if processes > 1:
        _check_devices(chosen, processes, per_node)
    # Of depthwise convolutions, whose gradients come in another order of equal meaning.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # Its notices of every rank; ours say how many there are.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        fabric = Fabric(
            accelerator=chosen.type,
            devices=devices,
            num_nodes=nodes,
            precision=_PRECISIONS[precision],
            strategy=_strategy(parallel, processes) if processes > 1 else "auto",
            plugins=environment,
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{processes} processes cannot be started together ({error}); start them with torchrun or srun, "
            "and leave --devices and --nodes out"
        ) from error
    if processes > 1:
        # For those that Fabric started itself: from here on `efnet.core.distributed` knows of them too.
        os.environ |= {"RANK": str(fabric.global_rank), "WORLD_SIZE": str(processes)}
    return fabric


def _check_devices(chosen: torch.device, processes: int, per_node: int) -> None:
    if chosen.index is not None:
        raise InputError(f"device {chosen} is one, but {processes} processes run; use --device {chosen.type}")
    if chosen.type == "cuda" and per_node > torch.cuda.device_count():
        raise InputError(
            f"{per_node} processes on a machine with {torch.cuda.device_count()} GPUs; start as many "
            "processes as there are GPUs"
        )


def _strategy(parallel: ParallelConfig, processes: int) -> Strategy:
    timeout = timedelta(seconds=parallel.timeout)
    if parallel.strategy == "fsdp":
        # Fabric's older FSDP needs CUDA; this one, FSDP2, also runs on CPUs, where it is tested.
        return ModelParallelStrategy(
            shard, data_parallel_size=processes, tensor_parallel_size=1, timeout=timeout
        )
    return DDPStrategy(timeout=timeout, gradient_as_bucket_view=True)
