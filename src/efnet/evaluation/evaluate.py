"""Run a model over a labelled split and count what it gets right.

Several processes share a split batch by batch, and their matrices are gathered in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset

from efnet.core.classes import ClassSet
from efnet.core.distributed import Group
from efnet.core.errors import InputError
from efnet.data.augment import mirror
from efnet.data.dataset import PairDataset, leave_interrupts_to_parent
from efnet.data.pairs import Pair, PairSet
from efnet.evaluation.metrics import Keep, LabelMap, PairCounts, Tally, resize_nearest
from efnet.evaluation.protocols import Protocol
from efnet.inference.engine import Engine
from efnet.inference.missing_cameras import Camera
from efnet.inference.preprocess import Preparation, Prepared

Missing = Callable[[Pair, Mapping[Camera, str]], None]
"""Called with a pair whose images show nothing, and why, by camera."""

Probe = Callable[[Pair, NDArray[np.float32], LabelMap], None]
"""Called with a pair, its probabilities (K, h, w) and its truth (h, w), at the scored size."""


class Work:
    """A process's part of a split of `pairs` pairs: every n-th batch, where n processes share it."""

    def __init__(self, pairs: int, batch_size: int, group: Group) -> None:
        starts = range(0, pairs, batch_size)
        batches = [list(range(start, min(start + batch_size, pairs))) for start in starts]
        self.group = group
        self.batches = batches[group.rank :: group.size]  # numbers of the pairs of each batch of this process
        self.turns = -(-len(batches) // group.size)  # the most batches that a process has

    @property
    def indices(self) -> list[int]:
        """Numbers of this process's pairs."""
        return [index for batch in self.batches for index in batch]

    def collect(self, tally: Tally, pairset: PairSet) -> Tally:
        """Gather what all processes counted, in the order of the split; every process must call this."""
        if self.group.size == 1:
            return tally
        own = zip(self.indices, ((entry.counts, entry.boundary) for entry in tally.pairs), strict=True)
        counts = dict(entry for part in self.group.gather(list(own)) for entry in part)
        pairs = [PairCounts(pairset.pairs[index], *counts[index]) for index in sorted(counts)]
        return replace(tally, pairs=pairs)


def evaluate(
    model: nn.Module | Engine,
    pairs: PairSet | PairDataset,
    protocol: Protocol,
    *,
    batch_size: int = 1,
    workers: int = 0,
    tta: bool = False,
    progress: Callable[[int, int], None] | None = None,
    keep: Keep | None = None,
    missing: Missing | None = None,
    probe: Probe | None = None,
    boundaries: bool = False,
    group: Group | None = None,
) -> Tally:
    """Predict every pair of a split and count it under a protocol.

    Logits are resized to the scored size (bilinear, `align_corners=False`) and the class is taken
    there; labels are brought to the protocol's size by nearest pixel. The model is left in the mode
    (training or evaluation) in which it came.

    Args:
        model: an engine or predictor, with its device, precision, size, tiles and alignment; or a network,
            which then sees every pair at its own size, in float32 and where the network is.
        pairs: the split, with labels; or a data set of it without augmentation, such as one that keeps
            decoded images from epoch to epoch.
        protocol: the size at which maps are compared, and the scores.
        batch_size: pairs per pass; pairs of different input sizes go apart.
        workers: processes that read images.
        tta: average the probabilities over several scales, each also mirrored.
        progress: called with the number of pairs done and of all that this process predicts, after every
            batch, equally often in every process.
        keep: called with every prediction of this process.
        missing: called where images show nothing, unless the engine ignores that.
        probe: called with the probabilities of every pair of this process.
        boundaries: also count for boundary IoU.
        group: processes that share the work, batch by batch: all must call this, and each returns all
            matrices. A pair meets the same others in its batch as with one process, so its bits are the same.

    Returns:
        one matrix per pair, in the order of the split; all figures are sums over these.

    Raises:
        InputError: the split is empty, a label is missing, a file cannot be read, the protocol does
            not fit the classes, or the model's logits are not finite.
        ValueError: augmented data or data of another size, a batch of no pairs, or workers below none.
    """
    if batch_size < 1 or workers < 0:
        raise ValueError(f"batch_size {batch_size} must be 1 or more and workers {workers} 0 or more")
    items = pairs if isinstance(pairs, PairDataset) else PairDataset(pairs)
    pairset = items.pairset
    engine = model if isinstance(model, Engine) else Engine(model, pairset.classes, size=items.size)
    if items.augment is not None or items.size not in (None, engine.size):
        raise ValueError("evaluation takes a data set without augmentation, of the size that the engine has")
    if not len(pairset):
        raise InputError(f"{pairset.root}: the {pairset.split} split of {pairset.dataset} has no pairs")
    unlabelled = [pair.name for pair in pairset.pairs if pair.label is None]
    if unlabelled:
        raise InputError(
            f"{pairset.root}: {len(unlabelled)} pairs of {pairset.split} have no label "
            f"(first: {unlabelled[0]}); evaluation needs one for every pair"
        )
    group = group or Group.alone()
    work = Work(len(pairset), batch_size, group)
    tally = Tally(pairset.classes, protocol, boundaries=boundaries)
    was_training = engine.model.training
    engine.model.eval()
    fault: InputError | None = None
    calls = 0
    try:
        for numbers, batch in zip(work.batches, batches(items, engine, work, workers), strict=True):
            sizes = [tally.scored_size(label.shape) for _, label in batch]
            predictions = engine.run(
                [prepared for prepared, _ in batch], probe is not None, sizes=sizes, tta=tta
            )
            for place, (prepared, label) in enumerate(batch):
                pair, prediction = pairset.pairs[numbers[place]], predictions[place].index
                truth = resize_nearest(label, sizes[place])
                tally.add(pair, truth, prediction)
                if keep:
                    keep(pair, prediction, truth)
                shares = predictions[place].probabilities
                if probe and shares is not None:
                    probe(pair, shares, truth)
                if missing and prepared.missing:
                    missing(pair, prepared.missing)
            calls += 1
            if progress:
                progress(len(tally.pairs), len(work.indices))
    except InputError as error:
        fault = error
    finally:
        engine.model.train(was_training)
    for _ in range(calls, work.turns):
        if progress:
            progress(len(tally.pairs), len(work.indices))
    group.raise_first(fault)
    return work.collect(tally, pairset)


def check_classes(model_classes: ClassSet, pairset: PairSet) -> None:
    """Raise InputError if names or order of a model's classes are not those of the data set."""
    if model_classes.names != pairset.classes.names:
        raise InputError(
            f"the model's classes are not those of {pairset.dataset}: the model has {len(model_classes)} "
            f"({', '.join(model_classes.names)}), the data {len(pairset.classes)} "
            f"({', '.join(pairset.classes.names)}); evaluate it on the data set that it was trained for"
        )


Entry = tuple[Prepared, LabelMap]  # a pair as the network takes it, and its label (H, W)


class _Entries(Dataset[Entry | InputError]):
    """Pairs prepared in worker processes; errors too, which would leave a process as a traceback's text."""

    def __init__(self, items: PairDataset, preparation: Preparation) -> None:
        self._items = items
        self._preparation = preparation

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Entry | InputError:
        pair = self._items.pairset.pairs[index]
        try:
            sample = self._items.read(index)
            assert sample.label is not None
            # A homography is that of the cameras, so it needs the images as they were before mirroring.
            turned = pair.flip and self._preparation.homography is not None
            given = mirror(sample) if turned else sample
            prepared = self._preparation.fit(given.rgb, given.thermal, name=pair.name)
        except InputError as error:
            return error
        if turned:
            rgb, thermal = prepared.rgb, prepared.thermal
            prepared = replace(
                prepared,
                rgb=None if rgb is None else np.ascontiguousarray(rgb[:, ::-1]),
                thermal=None if thermal is None else np.ascontiguousarray(thermal[:, ::-1]),
            )
        return prepared, sample.label


def batches(items: PairDataset, engine: Engine, work: Work, workers: int) -> Iterator[list[Entry]]:
    """Yield this process's batches in the order of the split. Raises InputError: a pair cannot be read."""
    loader: DataLoader[Entry | InputError] = DataLoader(
        _Entries(items, engine.preparation),
        batch_sampler=work.batches,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=leave_interrupts_to_parent,
    )
    for read in loader:
        batch: list[Entry] = []
        for entry in read:
            if isinstance(entry, InputError):
                raise entry
            batch.append(entry)
        yield batch
