"""A split as a PyTorch data set, its batches and its worker processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from efnet.core.errors import InputError
from efnet.data.augment import AugmentConfig, augment, resize_sample
from efnet.data.pairs import PairSet, ThermalScale
from efnet.data.sample import Sample, read_sample, threaded

Item = dict[str, Any]


class PairDataset(Dataset[Item]):
    """The pairs of a split as tensors, augmented or as they are.

    An item has `rgb` float32 (3, h, w) in [0, 1], `thermal` float32 (1, h, w) in [0, 1], `index` (int) and,
    where the pair is labelled, `label` int64 (h, w), 255 where ignored. With augmentation all are of size
    `size`; without, the images are resized to `size` and the label keeps its own.

    Randomness depends on the seed, the epoch and the index alone, not on the number of workers, so a resumed
    run sees the same items as an uninterrupted one.

    Args:
        pairset: the split.
        size: (H, W) of the images; None: as stored (not with augmentation).
        augment: None for evaluation.
        thermal_scale: None: the pair set's own.
        seed: of the augmentation.
        cache: keep decoded pairs in memory (about 1.5 MB for 480x640 with 8-bit thermal), read on first
            use. Worker processes each keep their own unless `preload` is called before they start.

    `class_odds`, (K,), are those of `augment`; set them before the first item is read.

    Raises:
        InputError: augmentation without a size.
    """

    def __init__(
        self,
        pairset: PairSet,
        size: tuple[int, int] | None = None,
        augment: AugmentConfig | None = None,
        thermal_scale: ThermalScale | None = None,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        if augment is not None and size is None:
            raise InputError("augmentation crops to a size: give `size`, such as 480x640")
        self.pairset = pairset
        self.size = size
        self.augment = augment
        self.thermal_scale = pairset.thermal_scale if thermal_scale is None else thermal_scale
        self.seed = seed
        self.class_odds: NDArray[np.float64] | None = None
        self._cache: dict[int, _Packed] | None = {} if cache else None
        # Shared memory: workers that persist over epochs see the change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random draws the next items use; call before iterating a loader."""
        self._epoch.fill_(epoch)

    def preload(self) -> None:
        """Fill the cache, several files at a time, for workers forked later; an `InputError` as of `read`."""
        if self._cache is not None:
            for _ in threaded(self.read, range(len(self))):
                pass

    def __len__(self) -> int:
        return len(self.pairset)

    def __getitem__(self, index: int) -> Item:
        sample = self.read(index)
        if self.augment is None or self.size is None:
            sample = resize_sample(sample, self.size)
        else:
            rng = np.random.default_rng((self.seed, int(self._epoch), index))
            sample = augment(sample, self.augment, self.size, rng, self.class_odds)
        return to_tensors(sample, index)

    def read(self, index: int) -> Sample:
        """Return a pair as decoded, from the cache if it is there; an `InputError` if it cannot be read."""
        if self._cache is not None and index in self._cache:
            return self._cache[index].unpack()
        pairs = self.pairset
        sample = read_sample(pairs.pairs[index], pairs.classes, self.thermal_scale, pairs.registered)
        if self._cache is not None:
            self._cache[index] = _Packed(sample)
        return sample


class _Packed:
    """A sample with thermal kept in 8 bits where that loses nothing."""

    def __init__(self, sample: Sample) -> None:
        levels = np.rint(sample.thermal * np.float32(255)).astype(np.uint8)
        self.levels = levels if np.array_equal(_from_levels(levels), sample.thermal) else None
        empty = np.empty((0, 0), dtype=np.float32)
        self.sample = sample if self.levels is None else replace(sample, thermal=empty)

    def unpack(self) -> Sample:
        """The sample, bit for bit."""
        return self.sample if self.levels is None else replace(self.sample, thermal=_from_levels(self.levels))


def _from_levels(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return levels.astype(np.float32) / np.float32(255)


def to_tensors(sample: Sample, index: int) -> Item:
    """Turn a sample into an item of `PairDataset`."""
    rgb = torch.from_numpy(np.ascontiguousarray(sample.rgb.transpose(2, 0, 1)))
    thermal = torch.from_numpy(sample.thermal.copy())[None]
    item: Item = {"rgb": rgb.to(torch.float32).div_(255), "thermal": thermal, "index": index}
    if sample.label is not None:
        item["label"] = torch.from_numpy(sample.label.astype(np.int64))
    return item


def collate(items: Sequence[Item]) -> Item:
    """Stack items to a batch; labels of unequal sizes stay a list of B tensors (h_b, w_b).

    Raises:
        InputError: images of unequal sizes.
    """
    sizes = {tuple(item["thermal"].shape[-2:]) for item in items}
    if len(sizes) > 1:
        listed = " and ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise InputError(f"images of {listed} in one batch; give `size`, or take batches of one")
    unlabelled = [{key: value for key, value in item.items() if key != "label"} for item in items]
    batch: Item = default_collate(unlabelled)
    labels: list[Tensor] = [item["label"] for item in items if "label" in item]
    if len(labels) == len(items):
        batch["label"] = torch.stack(labels) if len({label.shape for label in labels}) == 1 else labels
    return batch


def leave_interrupts_to_parent(_: int) -> None:
    """Ignore signals that the whole process group receives; a `worker_init_fn`.

    torchrun and SLURM end a group with SIGTERM while the parent still needs its workers to finish a step.
    So workers end only on a SIGTERM that the parent sent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # the only call that gives the sender; macOS lacks it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        parent = os.getppid()

        def obey() -> None:
            while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
                pass
            os._exit(0)

        threading.Thread(target=obey, daemon=True).start()


class ItemsOrFaults(Dataset[Item | InputError]):
    """Items, or the error that reading one raised.

    A worker process passes an exception to its parent as text with a traceback, but an item unchanged.
    """

    def __init__(self, items: PairDataset) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item | InputError:
        try:
            return self.items[index]
        except InputError as error:
            return error


def collate_or_fault(items: Sequence[Item | InputError]) -> Item | InputError:
    """Collate items of `ItemsOrFaults`; the first fault takes the place of the batch."""
    faults = [item for item in items if isinstance(item, InputError)]
    return faults[0] if faults else collate([item for item in items if not isinstance(item, InputError)])
