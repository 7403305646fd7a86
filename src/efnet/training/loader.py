"""The loader of a run's batches."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader

from efnet.data.dataset import (
    Item,
    ItemsOrFaults,
    PairDataset,
    collate_or_fault,
    leave_interrupts_to_parent,
)
from efnet.errors import InputError
from efnet.training.order import EpochSampler


def make_loader(
    dataset: PairDataset, order: EpochSampler, workers: int, device: torch.device
) -> DataLoader[Item | InputError]:
    """One for the whole run: its workers live on from epoch to epoch.

    Args:
        dataset: the training split, augmented.
        order: which pairs come together.
        workers: processes that read and augment; 0: this one.
        device: where the batches go.
    """
    return DataLoader(
        ItemsOrFaults(dataset),
        batch_sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=collate_or_fault,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_interrupts_to_parent,
    )
