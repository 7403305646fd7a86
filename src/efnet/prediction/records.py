"""Lines of a prediction journal: what was predicted from which files, as they were then."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

from efnet.data.shards.members import tar_of
from efnet.errors import InputError
from efnet.prediction.inputs import InputPair
from efnet.texts import parse_json

Stamp = list[int]
"""Size and time of a file."""


class Record(NamedTuple):
    """What is kept in memory of a finished image.

    Attributes:
        files: its image files, absolute.
        stamps: of these files when they were read.
    """

    files: list[str]
    stamps: list[Stamp]


def read_journal(path: Path) -> tuple[dict[str, Any] | None, dict[str, Record]]:
    """Read a journal line by line; lines that a killed run left half written are passed over.

    Returns:
        its first line, None if that is none of ours; and records by name, the last of each.

    Raises:
        InputError: it cannot be read.
    """
    head: dict[str, Any] | None = None
    records: dict[str, Record] = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines):
                value = _parsed(line)
                if number == 0:
                    head = value if line.endswith("\n") else None
                elif value is not None and {"name", "files", "stamps"} <= value.keys():
                    records[str(value["name"])] = Record(value["files"], value["stamps"])
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); choose another --out") from error
    return head, records


def files_of(pair: InputPair) -> list[str]:
    """Absolute paths of a pair's files, links followed."""
    return [_resolved(path) for path in _paths(pair)]


def stamps_of(pair: InputPair) -> list[Stamp]:
    """Of a pair's files, to see that they were replaced; [] where they cannot be looked at."""
    try:
        # A tar that was replaced may hold other images under the same names.
        states = [(tar_of(path) or path).stat() for path in _paths(pair)]
    except OSError:
        return []
    return [[state.st_size, state.st_mtime_ns] for state in states]


def _paths(pair: InputPair) -> list[Path]:
    return [path for path in (pair.rgb, pair.thermal) if path is not None]


def _resolved(path: Path) -> str:
    # Ten thousand files lie in a few folders: to resolve these once is all that takes time.
    return str(path.resolve() if path.is_symlink() else _resolved_folder(path.parent) / path.name)


@functools.lru_cache(maxsize=1024)
def _resolved_folder(folder: Path) -> Path:
    return folder.resolve()


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
