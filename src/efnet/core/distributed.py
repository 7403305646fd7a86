"""Several processes of one task: the rank of each, from the environment of torchrun or srun, and their group.

`efnet.core.fabric` starts them. PyTorch is imported where it is needed: commands read their rank before.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from efnet.core.errors import InputError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_STARTERS = (
    ("RANK", "WORLD_SIZE", "GROUP_WORLD_SIZE"),  # torchrun
    # Not SLURM_NTASKS: a batch script has it too, though it is one process.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"),
)
"""Variables of each: rank, number of processes, number of machines."""


def rank() -> int:
    """Return the number of this process, counted from 0; an `InputError` if a variable is not a valid one."""
    return _place()[0]


def world_size() -> int:
    """Return the number of processes; 1 where nobody started several."""
    return _place()[1]


def nodes() -> int:
    """Return the number of machines that they run on."""
    place = _starter()
    return 1 if place is None else max(1, _number(place[2], 1))


def by_srun() -> bool:
    """Whether SLURM's `srun` started this process as one of several."""
    return _starter() == _STARTERS[1] and world_size() > 1


def share(items: Sequence[T]) -> list[T]:
    """Return this process's share of the items: every `world_size`-th, from number `rank` on."""
    own, processes = _place()
    return list(items[own::processes])


def _starter() -> tuple[str, str, str] | None:
    return next((names for names in _STARTERS if all(name in os.environ for name in names[:2])), None)


def _place() -> tuple[int, int]:
    """Rank and number of processes."""
    names = _starter()
    if names is None:
        return 0, 1
    own, processes = _number(names[0]), _number(names[1])
    if not 0 <= own < processes:
        raise InputError(
            f"{names[0]} is {own} and {names[1]} is {processes}; ranks are numbered from 0. Start the "
            "processes with torchrun or srun, or unset both variables"
        )
    return own, processes


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError:
        raise InputError(
            f"the environment variable {name} is {text!r}, which is not a number; start the processes with "
            "torchrun or srun, or unset it"
        ) from None


def _link() -> Any:
    """`torch.distributed` if it connects processes, else None."""
    from torch import distributed

    return distributed if distributed.is_available() and distributed.is_initialized() else None


class Group:
    """All processes of a run; one where nobody started several.

    All of them must call every method but `is_main`, in the same order. `rank` is that of this process, from
    0, `size` the number of processes, `device` that of the tensors that processes add up: with NCCL the
    process's own GPU.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        import torch

        self.device = device or torch.device("cpu")
        link = _link()
        self.rank = link.get_rank() if link else 0
        self.size = link.get_world_size() if link else 1

    @classmethod
    def alone(cls) -> Self:
        """Return the group of this process alone."""
        group = cls()
        group.rank, group.size = 0, 1
        return group

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and logs."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes, in float64."""
        if self.size == 1:
            return list(values)
        import torch

        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(numbers)
        sums: list[float] = numbers.tolist()
        return sums

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in one of them."""
        return self.sum([float(flag)])[0] > 0

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        _link().all_gather_object(values, value)
        return values

    def once(self, function: Callable[[], T]) -> T:
        """Call a function on rank 0 alone; return its result in all processes, or end all by its error."""
        if self.size == 1:
            return function()
        result: list[tuple[T | None, str | None]] = [(None, None)]
        if self.is_main:
            try:
                result = [(function(), None)]
            except InputError as error:
                result = [(None, str(error))]
        _link().broadcast_object_list(result, src=0, device=self.device)
        value, fault = result[0]
        if fault is not None:
            self.end(InputError(fault), 2)
        return value  # type: ignore[return-value]  # what the function returned

    def raise_first(self, fault: InputError | None) -> None:
        """End all processes if one of them met a fault, with the InputError of the lowest rank."""
        if self.size == 1:
            if fault is not None:
                raise fault
        elif self.any(fault is not None):
            faults = self.gather(None if fault is None else str(fault))
            self.end(InputError(next(text for text in faults if text is not None)), 2)

    def lost(self, error: RuntimeError) -> bool:
        """Whether an error means that another process died or does not respond."""
        if self.size == 1:
            return False
        from torch.distributed import DistBackendError, DistNetworkError, DistStoreError

        # Gloo raises a plain RuntimeError.
        return isinstance(error, DistBackendError | DistNetworkError | DistStoreError) or "gloo" in str(error)

    def end(self, error: BaseException, status: int) -> NoReturn:
        """Raise an error that all processes have: rank 0 raises it, the others exit with its status."""
        if self.size > 1 and threading.current_thread() is threading.main_thread():
            # srun and torchrun send it to the others once one has ended, before they have exited.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.is_main:
            raise error
        raise SystemExit(status)


def leave(status: int) -> None:
    """Wait for the other processes, if there are any, and exit this one with a status.

    This bypasses the shutdown of the interpreter and of the group, in which PyTorch 2.13 sometimes destroys a
    thread that still runs (seen with FSDP): the process would end with SIGABRT after all its work is done.
    """
    link = _link() if "torch" in sys.modules else None
    if link:
        with contextlib.suppress(RuntimeError):  # one of them may have died since; all work is done
            link.barrier()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
