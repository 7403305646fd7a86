"""Lightning Fabric on the configured device, or on several."""

from __future__ import annotations

import logging
import os
import warnings
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.strategies.strategy import Strategy

from efnet import ranks
from efnet.devices import Precision, pick_device
from efnet.errors import InputError
from efnet.training.config import ParallelConfig
from efnet.training.sharded import shard
from efnet.training.starters import pick_environment

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
    processes, nodes = ranks.world_size(), ranks.nodes()
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
        # For those that Fabric started itself: from here on `efnet.ranks` knows of them too.
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
