"""How much of its score a network keeps when a camera fails: every pair with every fault, counted apart.

V variants: the clean pair first, then each corruption at each severity. Counts can be kept on disk, so that a
long evaluation goes on after an interruption.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from efnet.core.distributed import Group
from efnet.core.errors import InputError
from efnet.core.journal import JournalWriter, read_journal
from efnet.data.dataset import PairDataset
from efnet.data.pairs import Pair, PairSet
from efnet.data.sample import Sample
from efnet.evaluation.corruptions.suite import (
    SEVERITIES,
    Corruption,
    check_severities,
    choose,
    corrupt_sample,
)
from efnet.evaluation.evaluate import Missing, evaluate
from efnet.evaluation.metrics import Counts, PairCounts, Tally
from efnet.evaluation.protocols import Protocol
from efnet.inference.engine import Engine

PAIRS_AT_ONCE = 4  # pairs between two entries of a journal: what an interruption costs at most


class CountsJournal(JournalWriter):
    """The record of one evaluation with corruptions: a journal of the counts of each pair.

    `evaluate_corrupted` holds it while it runs: one process at a time writes. `settings` are plain values,
    all that decides the counts (weights, data, protocol, seed, ...). Raises InputError: the file is of other
    settings, is not such a file, or cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any], num_classes: int) -> None:
        head = json.loads(json.dumps({"settings": dict(settings)}))
        super().__init__(Path(path), head, resume=Path(path).exists(), durable=True)
        self._classes = num_classes
        self._entries: dict[str, dict[str, Counts]] = {}
        if self.path.exists():
            found, self._entries = read_journal(self.path, self._restored)
            if found != head:
                raise InputError(
                    f"{self.path}: is not a journal of this evaluation (of other weights, data or options, "
                    "or another kind of file); choose another `journal`, or remove it"
                )

    @property
    def known(self) -> KeysView[str]:
        """Names of the pairs that are done."""
        return self._entries.keys()

    def restore(self, pair: Pair, keys: Sequence[str]) -> list[PairCounts]:
        """The counts of a pair that is done, one matrix per variant."""
        entry = self._entries[pair.name]
        return [PairCounts(pair, entry[key]) for key in keys]

    def add(self, counted: Sequence[PairCounts], keys: Sequence[str]) -> None:
        """Record all variants `keys` of each pair in turn, on disk; raises InputError where it cannot."""
        try:
            for start in range(0, len(counted), len(keys)):
                part = counted[start : start + len(keys)]
                name = part[0].pair.name
                counts = {key: entry.counts.ravel().tolist() for key, entry in zip(keys, part, strict=True)}
                self.append({"name": name, "check": _check(name, counts), "counts": counts})
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); what it holds stays good, give it space "
                "and run the same command again"
            ) from error

    def _restored(self, entry: Mapping[str, Any]) -> dict[str, Counts] | None:
        """The matrices of an entry; None if it was damaged: a figure must not change with a digit."""
        if entry.get("check") != _check(entry["name"], entry.get("counts")):
            return None
        shape = (self._classes, self._classes)
        return {key: np.array(values, np.int64).reshape(shape) for key, values in entry["counts"].items()}


def _check(name: object, counts: object) -> int:
    return zlib.crc32(json.dumps([name, counts]).encode())


@dataclass(frozen=True)
class Variant:
    """One state of a pair: a fault, or clean; at a severity of 1 to 5, where the fault has any."""

    corruption: Corruption | None = None
    severity: int | None = None

    @property
    def key(self) -> str:
        """`clean`, `fog 3`, `missing_rgb`."""
        if self.corruption is None:
            return "clean"
        return self.corruption.name + ("" if self.severity is None else f" {self.severity}")


CLEAN = Variant()


@dataclass(frozen=True)
class Robustness:
    """The counts of `evaluate_corrupted`."""

    corruptions: tuple[Corruption, ...]  # in the order of the suite
    severities: tuple[int, ...]  # in rising order
    seed: int  # of the corruptions
    tallies: dict[Variant, Tally]  # by variant, the clean one among them; each over all pairs

    @property
    def clean(self) -> Tally:
        """The pairs as they are: what `evaluate` counts."""
        return self.tallies[CLEAN]

    def of(self, corruption: Corruption) -> dict[int | None, Tally]:
        """One fault's tallies by severity; under None alone where it has none."""
        return {
            variant.severity: tally
            for variant, tally in self.tallies.items()
            if variant.corruption is not None and variant.corruption.name == corruption.name
        }


def variants(corruptions: Sequence[Corruption], severities: Sequence[int]) -> tuple[Variant, ...]:
    """List the clean pair, then every fault at every severity; faults without severities once."""
    found = [CLEAN]
    for corruption in corruptions:
        degrees: Sequence[int | None] = severities if corruption.graded else (None,)
        found += [Variant(corruption, severity) for severity in degrees]
    return tuple(found)


class CorruptedPairs(PairDataset):
    """Every pair of a split in all variants, one after the other: item i is variant i % V of pair i // V.

    Faults come before aligning and resizing: it is cameras that fail. A pair is decoded once for all its
    variants (once in each worker process). The label is the clean pair's.
    """

    def __init__(self, pairset: PairSet, variants: Sequence[Variant], seed: int = 0) -> None:
        repeated = tuple(pair for pair in pairset.pairs for _ in variants)
        super().__init__(replace(pairset, pairs=repeated))
        self.variants = tuple(variants)
        self.corruption_seed = seed
        self._held: tuple[int, Sample] | None = None

    def read(self, index: int) -> Sample:
        """The pair in its variant, before it is brought to a network."""
        number, place = divmod(index, len(self.variants))
        if self._held is None or self._held[0] != number:
            self._held = (number, super().read(index))
        sample, variant = self._held[1], self.variants[place]
        if variant.corruption is None:
            return sample
        return corrupt_sample(sample, variant.corruption, variant.severity or 1, self.corruption_seed)


def evaluate_corrupted(
    model: nn.Module | Engine,
    pairs: PairSet,
    protocol: Protocol,
    *,
    corruptions: Sequence[str] = ("all",),
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    batch_size: int = 1,
    workers: int = 0,
    tta: bool = False,
    progress: Callable[[int, int], None] | None = None,
    missing: Missing | None = None,
    journal: CountsJournal | None = None,
    group: Group | None = None,
) -> Robustness:
    """Evaluate a split clean and with every corruption at every severity.

    The figures do not depend on batches, workers or the order of the pairs: a pair's faults follow from its
    name, the corruption and the seed. `corruptions` are names or groups of
    `efnet.evaluation.corruptions.suite`, or `all`. Pairs in the journal are not done again; those done now
    are added by the main process. Progress counts images. The other parameters are those of `evaluate`.

    Returns:
        one tally per variant.

    Raises:
        InputError: what `evaluate` refuses; an unknown corruption or severity, or one that does not concern
            the network.
    """
    engine = model if isinstance(model, Engine) else Engine(model, pairs.classes)
    group = group or Group.alone()
    chosen = choose(corruptions, engine.modality)
    degrees = check_severities(severities)
    states = variants(chosen, degrees)
    keys = [variant.key for variant in states]
    tallies = {variant: Tally(pairs.classes, protocol) for variant in states}
    total, done = len(pairs) * len(states), 0

    def report(images: int, _: int) -> None:
        if progress:
            progress(done + images, total)

    with contextlib.ExitStack() as stack:

        def open_journal() -> None:
            if journal is not None:
                stack.enter_context(journal)

        group.once(open_journal)
        for part in _parts(pairs, journal):
            if journal is not None and part.pairs[0].name in journal.known:
                counted = journal.restore(part.pairs[0], keys)
            else:
                items = CorruptedPairs(part, states, seed)
                tally = evaluate(
                    engine,
                    items,
                    protocol,
                    batch_size=batch_size,
                    workers=min(workers, len(items)),
                    tta=tta,
                    progress=report,
                    missing=missing,
                    group=group,
                )
                counted = tally.pairs
                if journal is not None and group.is_main:
                    journal.add(counted, keys)
            for place, variant in enumerate(states):
                tallies[variant].pairs += counted[place :: len(states)]
            done += len(part) * len(states)
    report(0, 0)
    return Robustness(chosen, degrees, seed, tallies)


def _parts(pairs: PairSet, journal: CountsJournal | None) -> Iterator[PairSet]:
    """Part a split into runs: without a journal one, else a known pair alone and others in fours."""
    if journal is None:
        yield pairs
        return
    known = frozenset(journal.known)
    part: list[Pair] = []
    for pair in pairs.pairs:
        if part and (pair.name in known or len(part) == PAIRS_AT_ONCE):
            yield replace(pairs, pairs=tuple(part))
            part = []
        if pair.name in known:
            yield replace(pairs, pairs=(pair,))
        else:
            part.append(pair)
    if part:
        yield replace(pairs, pairs=tuple(part))


def spread(pairs: PairSet, limit: int) -> PairSet:
    """At most `limit` pairs at even steps over a split, for first looks."""
    count = min(limit, len(pairs))
    return replace(pairs, pairs=tuple(pairs.pairs[place * len(pairs) // count] for place in range(count)))
