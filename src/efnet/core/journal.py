"""Work that resumes after an interruption: journals of finished items, and manifests of folders.

A journal is a file of JSON lines: a header with the settings that decide the results, then one record per
finished item. One process at a time appends to it. A killed process leaves at most half a line, which the
next one removes. A manifest is a JSON file that describes what a folder is for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")
Json = dict[str, Any]


def read_journal(path: Path, keep: Callable[[Json], T | None]) -> tuple[Json | None, dict[str, T]]:
    """Read a journal line by line, passing over damaged lines; return its header and its records by `name`.

    The header is None if the first line is not one. A record is what `keep` returned for it, the last one of
    each name; None from `keep` means that it is damaged or of another kind.

    Raises:
        InputError: it cannot be read.
    """
    head: dict[str, Any] | None = None
    records: dict[str, T] = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines):
                value = _parsed(line)
                if number == 0:
                    head = value if line.endswith("\n") else None
                elif value is not None and "name" in value and (kept := keep(value)) is not None:
                    records[str(value["name"])] = kept
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); choose another place") from error
    return head, records


@dataclass(eq=False)
class JournalWriter:
    """Append to a journal, alone as long as the context lasts; its folder is made if absent.

    Without `resume` the file has to be absent or empty: two processes which saw none must not both begin.

    Raises:
        InputError: another process writes to it, or it cannot be written.
    """

    path: Path
    head: Mapping[str, Any]  # the header, plain values
    _: KW_ONLY
    resume: bool  # whether the file was found to be this journal
    overwrite: bool = False  # begin anew, whatever the file holds
    durable: bool = False  # bring each record to the disk at once: it then also outlives a power cut
    remedy: str = ""  # ends the message where another process writes
    _stream: IO[bytes] = field(init=False, repr=False)

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("a+b")
            try:
                self._lock()
                self._begin()
            except BaseException:
                self._stream.close()
                raise
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._stream.close()
        except OSError as fault:  # a full disk; the next run drops the line that did not fit
            if error is None:
                raise InputError(f"{self.path}: cannot be written ({fault.strerror})") from fault

    def append(self, record: Mapping[str, Any], durable: bool = False) -> None:
        """Append a record, which carries a `name`."""
        self._stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()
        if durable or self.durable:
            os.fsync(self._stream.fileno())

    def _begin(self) -> None:
        """Write the header, or remove what a killed run left half written."""
        content = self.path.stat().st_size
        if self.overwrite or not self.resume:
            if content and not self.overwrite:
                raise self._in_use()  # since the file was looked at
            self._stream.truncate(0)
            self.append(self.head, durable=True)
            return
        self._stream.seek(-1, os.SEEK_END)
        if self._stream.read(1) != b"\n":
            self._stream.truncate(self.path.read_bytes().rfind(b"\n") + 1)

    def _lock(self) -> None:
        """Lock the file, if the system and the file system can, until this process ends, however it ends."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._in_use() from error
        except OSError:  # some network file systems
            return

    def _in_use(self) -> InputError:
        reason = "another efnet writes to this folder at this moment; wait until it ends"
        return InputError(f"{self.path}: {reason}{self.remedy}")


def find_manifest(folder: Path, name: str, overwrite: bool | None = None) -> dict[str, Any] | None:
    """Return the manifest `name` of a folder that is to be written, `{}` if it is damaged, None if absent.

    `overwrite` allows other files in the folder; None: they are not allowed, and messages do not offer it.

    Raises:
        InputError: the folder is a file, or holds other files and no manifest.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`out` {folder}: is a file; choose another folder")
    found = read_manifest(folder / name)
    if found is None and not overwrite and folder.exists() and any(folder.iterdir()):
        remedy = "" if overwrite is None else ", or write among them with `overwrite`"
        raise InputError(f"{folder}: holds other files; choose another folder{remedy}")
    return found


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return what a manifest holds, `{}` if it is damaged; None: there is none."""
    try:
        return _parsed(path.read_text(encoding="utf-8")) or {}
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (OSError, ValueError):
        return {}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return which of the settings `now` were other ones before."""
    return [f"{key} was {before.get(key)}, now {now[key]}" for key in now if before.get(key) != now[key]]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
