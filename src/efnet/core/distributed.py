"""Which of several processes this one is, as torchrun or SLURM's `srun` say it in the environment.

Several processes at one task: what they tell each other, and who speaks for them.

Every method but `is_main` is to be called by all of them, in the same order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn, Self, TypeVar

import torch
from torch import distributed

from efnet.core.errors import InputError

T = TypeVar("T")

_STARTERS = (
    ("RANK", "WORLD_SIZE", "GROUP_WORLD_SIZE"),  # torchrun
    # Not SLURM_NTASKS: a batch script has it too, though it is one process.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"),
)
"""Variables of each: rank, number of processes, number of machines."""


def rank() -> int:
    """Number of this process, counted from 0.

    Raises:
        InputError: what the environment says of ranks is no number, or no rank among the processes.
    """
    return _place()[0]


def world_size() -> int:
    """Number of processes that do the work together; 1 where nobody started several."""
    return _place()[1]


def nodes() -> int:
    """Number of machines that they run on."""
    place = _starter()
    return 1 if place is None else max(1, _number(place[2], 1))


def by_srun() -> bool:
    """Whether SLURM's `srun` started this process as one of several."""
    return _starter() == _STARTERS[1] and world_size() > 1


def share(items: Sequence[T]) -> list[T]:
    """The items that are this process's part: every `world_size`-th, from number `rank` on.

    Over all processes every item is in exactly one share, and shares differ by one item at most.
    """
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
            f"the environment variable {name} is {text!r}, which is no number; start the processes with "
            "torchrun or srun, or unset it"
        ) from None


class Group:
    """All processes of a run; one where nobody started several.

    Args:
        device: where numbers lie that processes add up: with NCCL the process's own GPU.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        together = distributed.is_available() and distributed.is_initialized()
        self.device = device or torch.device("cpu")
        self.rank = distributed.get_rank() if together else 0
        self.size = distributed.get_world_size() if together else 1

    @classmethod
    def alone(cls) -> Self:
        """This process by itself, whoever else there is."""
        group = cls()
        group.rank, group.size = 0, 1
        return group

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes, in float64."""
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(numbers)
        sums: list[float] = numbers.tolist()
        return sums

    def any(self, flag: bool) -> bool:
        """Whether it is true in one of them."""
        return self.sum([float(flag)])[0] > 0

    def gather(self, value: T) -> list[T]:
        """What each of them has, by rank."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        distributed.all_gather_object(values, value)
        return values

    def once(self, function: Callable[[], T]) -> T:
        """What a function gives that only the main process calls.

        Raises:
            InputError: it raised that; all processes end.
        """
        if self.size == 1:
            return function()
        result: list[tuple[T | None, str | None]] = [(None, None)]
        if self.is_main:
            try:
                result = [(function(), None)]
            except InputError as error:
                result = [(None, str(error))]
        distributed.broadcast_object_list(result, src=0, device=self.device)
        value, fault = result[0]
        if fault is not None:
            self.end(InputError(fault), 2)
        return value  # type: ignore[return-value]  # what the function returned

    def raise_first(self, fault: InputError | None) -> None:
        """End all processes if one of them met a fault.

        Raises:
            InputError: the fault of the lowest rank.
        """
        if self.size == 1:
            if fault is not None:
                raise fault
        elif self.any(fault is not None):
            faults = self.gather(None if fault is None else str(fault))
            self.end(InputError(next(text for text in faults if text is not None)), 2)

    def lost(self, error: RuntimeError) -> bool:
        """Whether an error means that another process died or does not answer."""
        kinds = (distributed.DistBackendError, distributed.DistNetworkError, distributed.DistStoreError)
        # Gloo raises a plain RuntimeError.
        return self.size > 1 and (isinstance(error, kinds) or "gloo" in str(error))

    def end(self, error: BaseException, status: int) -> NoReturn:
        """Raise an error that all of them have: the others leave with its exit status, in silence."""
        if self.size > 1 and threading.current_thread() is threading.main_thread():
            # With it srun and torchrun end the others as soon as one is gone, before they gave their status.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.is_main:
            raise error
        raise SystemExit(status)


def leave(status: int) -> None:
    """Wait for the other processes and end this one, if there are any.

    Not by way of the interpreter's end, nor of the group's: there PyTorch 2.13 now and then destroys a thread
    that still runs (seen with FSDP), which ends the process with SIGABRT after all its work is done.

    Args:
        status: for the system.
    """
    if distributed.is_available() and distributed.is_initialized():
        with contextlib.suppress(RuntimeError):  # one that died since is no loss to what is done
            distributed.barrier()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
