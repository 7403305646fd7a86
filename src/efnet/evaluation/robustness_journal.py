"""The counts of pairs that are done, kept on disk, so that a long evaluation can be taken up again.

A file of JSON lines: first what decides the counts, then one line per pair.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import KeysView, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from efnet.data.pairs import Pair
from efnet.errors import InputError
from efnet.evaluation.confusion import Counts
from efnet.evaluation.tally import PairCounts
from efnet.files import write_text
from efnet.texts import parse_json


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
