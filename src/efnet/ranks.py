"""Which of several processes this one is, as torchrun or SLURM's `srun` say it in the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from efnet.errors import InputError

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
