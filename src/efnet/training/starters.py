"""Who started the processes of a run, as Lightning Fabric wants to be told."""

from __future__ import annotations

import os

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from efnet import ranks
from efnet.errors import InputError

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
        return ranks.by_srun()

    def world_size(self) -> int:
        """Number of tasks."""
        return ranks.world_size()

    def set_world_size(self, size: int) -> None:
        """It stands fixed."""

    def global_rank(self) -> int:
        """Number of this task in the step."""
        return ranks.rank()

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
