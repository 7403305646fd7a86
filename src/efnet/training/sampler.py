"""The order in which an epoch visits the pairs, and the loader of the batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from efnet.core.errors import InputError
from efnet.data.dataset import Item, ItemsOrFaults, PairDataset, collate_or_fault, leave_interrupts_to_parent


def pass_seed(seed: int, step: int, number: int) -> int:
    """Return the seed of one pass of a training step; `number` counts the passes of all processes from 0."""
    return int(np.random.SeedSequence((seed, step, number)).generate_state(1)[0])


class EpochSampler(Sampler[list[int]]):
    """Batches of shuffled indices that depend on seed and epoch alone, so that a run resumes exactly.

    The last, incomplete batch of an epoch is left out, unless the split is smaller than one batch.
    `batch_size` counts the pairs of all processes, which take equal parts of every batch. Raises InputError
    for several processes and fewer pairs than one batch.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        if processes > 1 and length < batch_size:
            raise InputError(
                f"the training split has {length} pairs, but {processes} processes take {batch_size} in a "
                "step; give a smaller `batch_size` or `accumulate`, or start fewer processes"
            )
        self.length = length
        self.batch_size = min(batch_size, length)
        self.seed = seed
        share = self.batch_size // processes
        self.part = slice(rank * share, (rank + 1) * share)
        self.epoch = 0
        self.start = 0

    @property
    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch."""
        return self.length // self.batch_size

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and the batch of it to start from."""
        self.epoch = epoch
        self.start = start

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        for batch in range(self.start, self.batches_per_epoch):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size][self.part].tolist()

    def __len__(self) -> int:
        return max(0, self.batches_per_epoch - self.start)


def make_loader(
    dataset: PairDataset, order: EpochSampler, workers: int, device: torch.device
) -> DataLoader[Item | InputError]:
    """Make the loader of a whole run: its workers (0: this process) stay from epoch to epoch."""
    return DataLoader(
        ItemsOrFaults(dataset),
        batch_sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=collate_or_fault,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_interrupts_to_parent,
    )
