"""In which order an epoch visits the pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


def step_seed(seed: int, step: int) -> int:
    """Seed of the draws within one training step."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


class EpochSampler(Sampler[list[int]]):
    """Batches of shuffled indices that depend on seed and epoch alone, so that a run resumes exactly.

    The last, incomplete batch of an epoch is left out, unless the split is smaller than one batch.

    Args:
        length: number of pairs.
        batch_size: pairs per batch.
        seed: of the order.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        self.length = length
        self.batch_size = min(batch_size, length)
        self.seed = seed
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
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()

    def __len__(self) -> int:
        return max(0, self.batches_per_epoch - self.start)
