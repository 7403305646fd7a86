"""Run a model over a labelled split and count what it gets right.

Shapes: B batch, K classes, H W size that the network sees, h w size at which maps are compared.

Which batches of a split a process evaluates, and how the matrices of all come together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from efnet.core.classes import ClassSet
from efnet.core.devices import Precision, autocast, check_precision, pick_device
from efnet.core.distributed import Group
from efnet.core.errors import InputError
from efnet.data.dataset import Item, ItemsOrFaults, PairDataset, leave_interrupts_to_parent
from efnet.data.pairs import PairSet
from efnet.evaluation.metrics import Keep, PairCounts, Tally, resize_nearest
from efnet.evaluation.protocols import Protocol
from efnet.models.base import MIN_SIZE


class Work:
    """A process's part of a split: every n-th batch, where n processes share it.

    Args:
        pairs: number of them in the split.
        batch_size: pairs per batch.
        group: the processes.

    Attributes:
        batches: numbers of the pairs of each batch of this process.
        turns: the most batches that a process has.
    """

    def __init__(self, pairs: int, batch_size: int, group: Group) -> None:
        starts = range(0, pairs, batch_size)
        batches = [list(range(start, min(start + batch_size, pairs))) for start in starts]
        self.group = group
        self.batches = batches[group.rank :: group.size]
        self.turns = -(-len(batches) // group.size)

    @property
    def indices(self) -> list[int]:
        """Numbers of this process's pairs."""
        return [index for batch in self.batches for index in batch]

    def collect(self, tally: Tally, pairset: PairSet) -> Tally:
        """What all processes counted, in the order of the split; every process must call this.

        Args:
            tally: what this one counted: all its pairs, in its order.
            pairset: the split.
        """
        if self.group.size == 1:
            return tally
        own = zip(self.indices, (entry.counts for entry in tally.pairs), strict=True)
        counts = dict(entry for part in self.group.gather(list(own)) for entry in part)
        pairs = [PairCounts(pairset.pairs[index], counts[index]) for index in sorted(counts)]
        return Tally(tally.classes, tally.protocol, pairs)


TTA_SCALES = (0.75, 1.0, 1.25)
TTA = f"scales {', '.join(f'{scale:g}' for scale in TTA_SCALES)}, each also mirrored; probabilities averaged"
"""What test-time augmentation does, for reports."""


def evaluate(
    model: nn.Module,
    pairs: PairSet | PairDataset,
    protocol: Protocol,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "32",
    batch_size: int = 1,
    workers: int = 0,
    tta: bool = False,
    input_size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    keep: Keep | None = None,
    group: Group | None = None,
) -> Tally:
    """Predict every pair of a split and count it under a protocol.

    Logits are resized to the scored size (bilinear, `align_corners=False`) and the class is taken
    there; labels are brought to the protocol's size by nearest pixel. The model is left in the mode
    (training or evaluation) in which it came.

    Args:
        model: `model(rgb (B, 3, H, W), thermal (B, 1, H, W)) -> logits (B, K, H, W)`, on `device`.
        pairs: the split, with labels; or a data set of it without augmentation (then `input_size` is its
            own), such as one that keeps decoded images from epoch to epoch.
        protocol: the size at which maps are compared, and the scores.
        device: where the images go.
        precision: `32`, or `bf16` for autocast to bfloat16.
        batch_size: pairs per pass; pairs of different input sizes go apart.
        workers: processes that read images.
        tta: average the probabilities over `TTA_SCALES`, each also mirrored.
        input_size: height and width that the network sees; None: every pair's own.
        progress: told the number of pairs done and of all that this process predicts, after every batch; with
            one input size equally often in every process.
        keep: given every prediction of this process.
        group: processes that share the work, batch by batch: all must call this, and each returns all
            matrices. A pair meets the same others in its batch as with one process, so its bits are the same.

    Returns:
        one matrix per pair, in the order of the split; all figures are sums over these.

    Raises:
        InputError: the split is empty, a label is missing, a file cannot be read, the protocol does
            not fit the classes, the device or precision is unknown, or the model's logits are not finite.
        ValueError: augmented data, a batch of no pairs, or workers below none.
    """
    if batch_size < 1 or workers < 0:
        raise ValueError(f"batch_size {batch_size} must be 1 or more and workers {workers} 0 or more")
    device = pick_device(device) if isinstance(device, str) else device
    check_precision(precision)
    items = pairs if isinstance(pairs, PairDataset) else PairDataset(pairs, size=input_size)
    if items.augment is not None:
        raise ValueError("evaluation takes a data set without augmentation")
    pairset = items.pairset
    _check(pairset)
    group = group or Group.alone()
    work = Work(len(pairset), batch_size, group)
    tally = Tally(pairset.classes, protocol)
    inference = _Inference(model, device, precision, tta)
    was_training = model.training
    model.eval()
    fault: InputError | None = None
    calls = 0
    try:
        with torch.inference_mode():
            for batch in _batches(items, work, workers):
                _count(inference, batch, pairset, tally, keep)
                calls += 1
                if progress:
                    progress(len(tally.pairs), len(work.indices))
    except InputError as error:
        fault = error
    finally:
        model.train(was_training)
    for _ in range(calls, work.turns):
        if progress:
            progress(len(tally.pairs), len(work.indices))
    group.raise_first(fault)
    return work.collect(tally, pairset)


def _check(pairset: PairSet) -> None:
    """Refuse a split without pairs, or with pairs that have no label."""
    if not len(pairset):
        raise InputError(f"{pairset.root}: the {pairset.split} split of {pairset.dataset} has no pairs")
    unlabelled = [pair.name for pair in pairset.pairs if pair.label is None]
    if unlabelled:
        raise InputError(
            f"{pairset.root}: {len(unlabelled)} pairs of {pairset.split} have no label "
            f"(first: {unlabelled[0]}); evaluation needs one for every pair"
        )


def check_classes(model_classes: ClassSet, pairset: PairSet) -> None:
    """Refuse a model whose classes are not the data set's.

    Raises:
        InputError: names or their order differ; the message gives both.
    """
    if model_classes.names != pairset.classes.names:
        raise InputError(
            f"the model's classes are not those of {pairset.dataset}: the model has {len(model_classes)} "
            f"({', '.join(model_classes.names)}), the data {len(pairset.classes)} "
            f"({', '.join(pairset.classes.names)}); evaluate it on the data set that it was trained for"
        )


@dataclass(frozen=True)
class _Inference:
    """A model and how it is run."""

    model: nn.Module
    device: torch.device
    precision: Precision
    tta: bool

    def __call__(self, rgb: Tensor, thermal: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Scores (1, K, h, w) of each pair at its scored size: logits, or with TTA summed probabilities."""
        rgb = rgb.to(self.device, non_blocking=True)
        thermal = thermal.to(self.device, non_blocking=True)
        if not self.tta:
            return self._resized_logits(rgb, thermal, sizes)
        sums: list[Tensor] = []
        for scale in TTA_SCALES:
            height, width = (max(MIN_SIZE, round(side * scale)) for side in rgb.shape[2:])
            views = [_resized(images, (height, width)) for images in (rgb, thermal)]
            for mirrored in (False, True):
                logits = self._resized_logits(views[0], views[1], sizes, mirrored)
                shares = [logit.softmax(dim=1) for logit in logits]
                sums = [sum_ + share for sum_, share in zip(sums, shares, strict=True)] if sums else shares
        return sums

    def _resized_logits(
        self, rgb: Tensor, thermal: Tensor, sizes: Sequence[tuple[int, int]], mirrored: bool = False
    ) -> list[Tensor]:
        if mirrored:
            rgb, thermal = rgb.flip(-1), thermal.flip(-1)
        with autocast(self.device, self.precision):
            logits: Tensor = self.model(rgb, thermal)  # (B, K, H, W)
        if mirrored:
            logits = logits.flip(-1)
        return [_resized(logits[place, None].float(), size) for place, size in enumerate(sizes)]


def _count(
    inference: _Inference, batch: Sequence[Item], pairset: PairSet, tally: Tally, keep: Keep | None
) -> None:
    """Predict and count items whose images have one size."""
    sizes = [tally.scored_size(item["label"].shape) for item in batch]
    rgb, thermal = (torch.stack([item[key] for item in batch]) for key in ("rgb", "thermal"))
    for item, size, scores in zip(batch, sizes, inference(rgb, thermal, sizes), strict=True):
        pair = pairset.pairs[int(item["index"])]
        if not torch.isfinite(scores).all():
            raise InputError(
                f"pair {pair.name}: the model's logits are not finite; the checkpoint is of a run that "
                "diverged, or the precision is too low"
            )
        prediction = scores[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
        truth = resize_nearest(item["label"].numpy().astype(np.uint8), size)
        tally.add(pair, truth, prediction)
        if keep:
            keep(pair, prediction, truth)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def _batches(items: PairDataset, work: Work, workers: int) -> Iterator[list[Item]]:
    """This process's batches in the order of the split, parted where the sizes of the images differ."""
    loader: DataLoader[Item | InputError] = DataLoader(
        ItemsOrFaults(items),
        batch_sampler=work.batches,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=leave_interrupts_to_parent,
    )
    for read in loader:
        batch: list[Item] = []
        for item in read:
            if isinstance(item, InputError):
                raise item
            if batch and item["rgb"].shape != batch[0]["rgb"].shape:
                yield batch
                batch = []
            batch.append(item)
        yield batch
