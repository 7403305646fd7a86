"""Prediction shared by several processes or machines: which pairs are whose, and how they end together."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Self, TypeVar

import torch
from torch import distributed as torch_distributed

from efnet.core import distributed
from efnet.core.errors import InputError

T = TypeVar("T")

_LONGEST_WAIT = timedelta(days=30)
"""For the slowest process. One that dies does not make the others wait: torchrun ends them all."""


@dataclass(frozen=True)
class Shard:
    """One of several parts of the work, which together hold every pair once.

    Attributes:
        number: which, from 1.
        count: of how many.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the value of `--shard`, such as `2/5`.

        Raises:
            InputError: not of that form, or out of range.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip(), re.ASCII)
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= count:
            raise InputError(f"--shard {text}: give the part and the number of parts, from 1/5 to 5/5")
        return cls(number, count)

    @classmethod
    def choose(cls, text: str | None) -> Self:
        """The part that `--shard` names, or that this process has by its rank under torchrun or srun.

        Raises:
            InputError: both, or a wrong value.
        """
        processes = distributed.world_size()
        if text is None:
            return cls(distributed.rank() + 1, processes)
        if processes > 1:
            raise InputError(
                f"--shard {text}: the {processes} processes of torchrun or srun share the work already; "
                "leave it out"
            )
        return cls.parse(text)

    def pick(self, items: Sequence[T]) -> list[T]:
        """Every `count`-th item: parts differ by one item at most."""
        return list(items[self.number - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.number} of {self.count}"


def device_of_rank(device: str) -> str:
    """Each process of a machine on a GPU of its own, unless one is named (`cuda:1`) or there is none."""
    if distributed.world_size() == 1 or device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    local = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
    place = int(local) if local.isdecimal() else 0
    return f"cuda:{place % torch.cuda.device_count()}"


def wait_for_others(faults: int) -> int:
    """End together with the other processes of torchrun, which would end all if one left with an error.

    Args:
        faults: pairs that this process could not predict.

    Returns:
        those of all processes; alone, or started by anything else, its own.
    """
    if distributed.world_size() == 1 or not torch_distributed.is_torchelastic_launched():
        return faults
    torch_distributed.init_process_group("gloo", timeout=_LONGEST_WAIT)
    total = torch.tensor(faults)
    torch_distributed.all_reduce(total)
    torch_distributed.destroy_process_group()
    return int(total)
