"""Lightning Fabric on one device, or on those of several processes, whoever starts them."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
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
from torch.distributed.device_mesh import DeviceMesh

from efnet.core import distributed
from efnet.core.devices import Precision, pick_device
from efnet.core.errors import InputError

Shard = Callable[[nn.Module, DeviceMesh], nn.Module]  # spreads a network over the processes of a mesh

_PORTS = range(15000, 25000)  # below the ports that systems give to outgoing connections


class StepEnvironment(TorchElasticEnvironment):
    """The tasks of one step of a SLURM job, which one `srun` started as torchrun starts its processes.

    Fabric's own environment reads the job instead, which may have other tasks and machines; it refuses
    srun's ntasks, and within salloc it does not notice srun.

    Raises:
        InputError: machines have different numbers of tasks.
    """

    def __init__(self) -> None:
        tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1")
        if "," in tasks:
            started = f"srun started {tasks} tasks on the machines of this step"
            raise InputError(f"{started}; give every machine as many (--ntasks-per-node of srun)")

    @property
    def main_address(self) -> str:
        """MASTER_ADDR, else the first machine of the step."""
        machines = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
        return os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(machines))

    @property
    def main_port(self) -> int:
        """MASTER_PORT, else one that follows from job and step, so that concurrent steps do not meet."""
        job, step = (int(os.environ.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        port = _PORTS[(job + 1009 * step) % len(_PORTS)]
        return int(os.environ.setdefault("MASTER_PORT", str(port)))

    @staticmethod
    def detect() -> bool:
        """Whether srun started several processes."""
        return distributed.by_srun()

    def world_size(self) -> int:
        """Number of tasks in the step."""
        return distributed.world_size()

    def global_rank(self) -> int:
        """Number of this task in the step."""
        return distributed.rank()

    def local_rank(self) -> int:
        """Number of this task on its machine."""
        return int(os.environ["SLURM_LOCALID"])

    def node_rank(self) -> int:
        """Number of this machine in the step."""
        return int(os.environ["SLURM_NODEID"])


def pick_environment() -> ClusterEnvironment:
    """Return torchrun's or srun's environment if one of them started this process, else Fabric's own.

    By itself Fabric takes a SLURM batch script for one of several tasks, and ignores `devices` there. Errors
    as of `StepEnvironment`.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    return StepEnvironment() if StepEnvironment.detect() else LightningEnvironment()


_PRECISIONS: dict[Precision, Any] = {"32": "32-true", "bf16": "bf16-mixed"}


def make_fabric(
    device: str,
    precision: Precision,
    devices: int = 1,
    nodes: int = 1,
    timeout: int = 1800,
    shard: Shard | None = None,
) -> Fabric:
    """Make and launch Fabric for the processes that torchrun or srun started, else for `devices` x `nodes`.

    Launching starts the same command once more for every further process that nobody started yet, and
    returns when all have met.

    Args:
        device: of each process; with several, one without a number.
        precision: of all.
        devices: processes per machine, if they are not running yet.
        nodes: machines, likewise.
        timeout: seconds that a process waits for the others.
        shard: shards the network over the processes (FSDP2); None: each has all of it (DDP).

    Raises:
        InputError: the device is unknown or not there, there are fewer devices than processes, or machines
            have different numbers of them.
    """
    chosen = pick_device(device)
    processes = distributed.world_size()
    if processes > 1:
        nodes = distributed.nodes()
    else:
        processes = devices * nodes
    per_node = processes // nodes
    environment = pick_environment()
    gpus = torch.cuda.device_count()
    if processes > 1 and chosen.index is not None:
        raise InputError(f"device {chosen} is one, but {processes} processes run; use `device` {chosen.type}")
    if processes > 1 and chosen.type == "cuda" and per_node > gpus:
        raise InputError(
            f"{per_node} processes on a machine with {gpus} GPUs; start as many processes as there are GPUs"
        )
    # Depthwise convolutions cause it: their gradients have another memory layout of equal meaning.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # Fabric's notices for every rank; ours give the number of processes.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    chosen_devices: Any = per_node if chosen.index is None else [chosen.index]
    try:
        fabric = Fabric(
            accelerator=chosen.type,
            devices=chosen_devices,
            num_nodes=nodes,
            precision=_PRECISIONS[precision],
            strategy=_strategy(processes, timedelta(seconds=timeout), shard) if processes > 1 else "auto",
            plugins=environment,
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{processes} processes cannot be started together ({error}); start them with torchrun or srun, "
            "and leave `devices` and `nodes` out"
        ) from error
    if processes > 1:
        # For processes that Fabric started itself: `efnet.core.distributed` reads these variables.
        os.environ |= {"RANK": str(fabric.global_rank), "WORLD_SIZE": str(processes)}
    return fabric


def _strategy(processes: int, timeout: timedelta, shard: Shard | None) -> Strategy:
    if shard is None:
        return DDPStrategy(timeout=timeout, gradient_as_bucket_view=True)
    # Fabric's older FSDP needs CUDA; this one, FSDP2, also runs on CPUs, where it is tested.
    return ModelParallelStrategy(shard, data_parallel_size=processes, tensor_parallel_size=1, timeout=timeout)
