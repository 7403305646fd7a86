"""How much of its score a network keeps when a camera fails: every pair with every fault, counted apart.

V variants: the clean pair first, then each corruption at each severity.

The counts of pairs that are done, kept on disk, so that a long evaluation can be taken up again.

A file of JSON lines: first what decides the counts, then one line per pair.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from efnet.core.devices import Precision
from efnet.core.distributed import Group
from efnet.core.errors import InputError
from efnet.core.files import write_text
from efnet.core.safe_parse import parse_json
from efnet.data.augment import resize_sample
from efnet.data.dataset import Item, PairDataset, to_tensors
from efnet.data.pairs import Pair, PairSet
from efnet.data.sample import Sample
from efnet.evaluation.corruptions.suite import (
    SEVERITIES,
    Corruption,
    check_severities,
    choose,
    corrupt_sample,
)
from efnet.evaluation.evaluate import evaluate
from efnet.evaluation.metrics import Counts, PairCounts, Tally
from efnet.evaluation.protocols import Protocol


class CountsJournal:
    """The record of one evaluation with corruptions.

    Args:
        path: of the file, made if absent.
        settings: plain values: all that decides the counts (weights, data, protocol, seed, ...).
        num_classes: K.

    Raises:
        InputError: the file is of other settings, is not such a file, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any], num_classes: int) -> None:
        self.path = Path(path)
        self.num_classes = num_classes
        self._entries: dict[str, dict[str, Counts]] = {}
        head = {"settings": dict(settings)}
        if self.path.exists():
            self._read(json.loads(json.dumps(head)))
        else:
            write_text(self.path, json.dumps(head, ensure_ascii=False) + "\n")

    @property
    def known(self) -> KeysView[str]:
        """Names of the pairs that are done."""
        return self._entries.keys()

    def restore(self, pair: Pair, keys: Sequence[str]) -> list[PairCounts]:
        """The counts of a pair that is done, one matrix per variant."""
        entry = self._entries[pair.name]
        return [PairCounts(pair, entry[key]) for key in keys]

    def add(self, counted: Sequence[PairCounts], keys: Sequence[str]) -> None:
        """Record pairs, at once on disk.

        Args:
            counted: all variants of one pair, then all of the next.
            keys: names of the variants.

        Raises:
            InputError: the file cannot be written.
        """
        lines = []
        for start in range(0, len(counted), len(keys)):
            part = counted[start : start + len(keys)]
            name = part[0].pair.name
            counts = {key: entry.counts.ravel().tolist() for key, entry in zip(keys, part, strict=True)}
            entry = {"name": name, "check": _check(name, counts), "counts": counts}
            lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("".join(lines))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); what it holds stays good, give it space "
                "and run the same command again"
            ) from error

    def _read(self, head: Mapping[str, Any]) -> None:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be read ({error.strerror}); choose another file"
            ) from error
        lines = content.decode("utf-8", errors="replace").splitlines()
        if not lines or _parsed(lines[0]) != head:
            raise InputError(
                f"{self.path}: is no journal of this evaluation (of other weights, data or options, or "
                "another kind of file); choose another --journal, or remove it"
            )
        good = [line for line in lines[1:] if self._take(line)]
        if len(good) < len(lines) - 1 or not content.endswith(b"\n"):
            write_text(self.path, "".join(f"{line}\n" for line in (lines[0], *good)))

    def _take(self, line: str) -> bool:
        """Keep the counts of a line; not of one that was damaged, or left half written by a killed run."""
        entry = _parsed(line)
        if entry is None or entry.get("check") != _check(entry.get("name"), entry.get("counts")):
            return False
        self._entries[entry["name"]] = {
            key: np.array(values, dtype=np.int64).reshape(self.num_classes, self.num_classes)
            for key, values in entry["counts"].items()
        }
        return True


def _check(name: object, counts: object) -> int:
    """A checksum: a figure must not change because a digit of the file did."""
    return zlib.crc32(json.dumps([name, counts]).encode())


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


PAIRS_AT_ONCE = 4
"""Pairs between two entries of a journal: what an interruption costs at most."""


@dataclass(frozen=True)
class Variant:
    """One state of a pair.

    Attributes:
        corruption: the fault; None: clean.
        severity: 1 to 5; None where the fault has none, or for the clean pair.
    """

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
    """What `evaluate_corrupted` counted.

    Attributes:
        corruptions: in the order of the suite.
        severities: in rising order.
        seed: of the corruptions.
        tallies: by variant, the clean one among them; each over all pairs.
    """

    corruptions: tuple[Corruption, ...]
    severities: tuple[int, ...]
    seed: int
    tallies: dict[Variant, Tally]

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
    """The clean pair, then every fault at every severity; faults without severities once."""
    found = [CLEAN]
    for corruption in corruptions:
        degrees: Sequence[int | None] = severities if corruption.graded else (None,)
        found += [Variant(corruption, severity) for severity in degrees]
    return tuple(found)


class CorruptedPairs(PairDataset):
    """Every pair of a split in all variants, one after the other: item i is variant i % V of pair i // V.

    Faults come before the resizing to `size`: it is cameras that fail. A pair is decoded once for all its
    variants (once in each worker process). The label is the clean pair's.

    Args:
        pairset: the split, each pair once.
        variants: V of them.
        size: (H, W) of the images; None: as stored.
        seed: of the corruptions.
    """

    def __init__(
        self,
        pairset: PairSet,
        variants: Sequence[Variant],
        size: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        repeated = tuple(pair for pair in pairset.pairs for _ in variants)
        super().__init__(replace(pairset, pairs=repeated), size)
        self.variants = tuple(variants)
        self.corruption_seed = seed
        self._held: tuple[int, Sample] | None = None

    def __getitem__(self, index: int) -> Item:
        number, place = divmod(index, len(self.variants))
        if self._held is None or self._held[0] != number:
            self._held = (number, self._read(index))
        sample, variant = self._held[1], self.variants[place]
        if variant.corruption is not None:
            sample = corrupt_sample(sample, variant.corruption, variant.severity or 1, self.corruption_seed)
        return to_tensors(resize_sample(sample, self.size), index)


def evaluate_corrupted(
    model: nn.Module,
    pairs: PairSet,
    protocol: Protocol,
    *,
    corruptions: Sequence[str] = ("all",),
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    device: torch.device | str = "cpu",
    precision: Precision = "32",
    batch_size: int = 1,
    workers: int = 0,
    tta: bool = False,
    input_size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    journal: CountsJournal | None = None,
    group: Group | None = None,
) -> Robustness:
    """Evaluate a split clean and with every corruption at every severity.

    The figures do not depend on batches, workers or the order of the pairs: a pair's faults follow from its
    name, the corruption and the seed.

    Args:
        model: as for `evaluate`; its `modality`, if it has one, decides what concerns it.
        pairs: the split, with labels.
        protocol: as for `evaluate`.
        corruptions: names or groups of `efnet.evaluation.corruptions.suite`, or `all`.
        severities: from 1 to 5.
        seed: of what corruptions draw.
        device: as for `evaluate`, like `precision`, `workers`, `tta` and `input_size`.
        precision: see `device`.
        batch_size: images per pass, of one pair or several.
        workers: see `device`.
        tta: see `device`.
        input_size: see `device`.
        progress: told the number of images done and of all.
        journal: counts of pairs done before, which are not done again; those done now are added.
        group: as for `evaluate`; its main process writes the journal.

    Returns:
        one tally per variant.

    Raises:
        InputError: what `evaluate` refuses; an unknown corruption or severity, or one that does not concern
            the network.
    """
    chosen = choose(corruptions, getattr(model, "modality", "rgbt"))
    degrees = check_severities(severities)
    states = variants(chosen, degrees)
    tallies = {variant: Tally(pairs.classes, protocol) for variant in states}
    total, done = len(pairs) * len(states), 0

    def report(images: int, _: int) -> None:
        if progress:
            progress(done + images, total)

    for part in _parts(pairs, journal):
        if journal is not None and part.pairs[0].name in journal.known:
            counted = journal.restore(part.pairs[0], [variant.key for variant in states])
        else:
            items = CorruptedPairs(part, states, input_size, seed)
            tally = evaluate(
                model,
                items,
                protocol,
                device=device,
                precision=precision,
                batch_size=batch_size,
                workers=min(workers, len(items)),
                tta=tta,
                progress=report,
                group=group,
            )
            counted = tally.pairs
            if journal is not None and (group is None or group.is_main):
                journal.add(counted, [variant.key for variant in states])
        for place, variant in enumerate(states):
            tallies[variant].pairs += counted[place :: len(states)]
        done += len(part) * len(states)
    report(0, 0)
    return Robustness(chosen, degrees, seed, tallies)


def _parts(pairs: PairSet, journal: CountsJournal | None) -> Iterator[PairSet]:
    """What is evaluated in one go: without a journal everything, else a known pair alone, others in fours."""
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
