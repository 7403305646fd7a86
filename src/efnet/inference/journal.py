"""One writer at a time for a journal.

Lines of a prediction journal: what was predicted from which files, as they were then.

What a prediction folder holds and from what, so that a run can be taken up again without mixing.

`predictions.jsonl`: a first line on the model and settings, then one line per finished image. Each of
several processes that share the work writes its own (`predictions-2-of-5.jsonl`) and reads all.

Temporary files that a killed run left among its outputs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import torch
from torch import nn

from efnet.core.errors import InputError, ManyInputsError
from efnet.core.files import STEM_KEPT, leftovers
from efnet.core.safe_parse import parse_json
from efnet.data.archive import tar_of
from efnet.inference.inputs import InputPair
from efnet.inference.missing_cameras import Camera
from efnet.inference.postprocess import output_paths
from efnet.inference.sharding import Shard

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(file: IO[str], path: Path) -> None:
    """Keep a file for this process; a process that ends, however it ends, lets go of it.

    Does nothing where the system or the file system knows no locks.

    Raises:
        InputError: another process has it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise in_use(path) from error
    except OSError:  # some network file systems
        return


def in_use(path: Path) -> InputError:
    """The error for a journal that another process writes."""
    return InputError(
        f"{path}: another efnet writes to this folder at this moment; wait for its end, or let several "
        "share the work: efnet predict --shard 1/2 and --shard 2/2"
    )


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


FILE_NAME = "predictions.jsonl"


class Journal:
    """The record of one prediction folder; use it as a context manager.

    Args:
        folder: the output folder, made if absent.
        settings: all that decides a result beside the images (model fingerprint, opacity, ...).
        about: further plain values for the first line.
        overwrite: begin anew, whatever the folder holds.
        shard: the part of the pairs that this process predicts.

    Attributes:
        records: finished images by name, those of other processes among them.

    Raises:
        InputError: the folder holds predictions made with other settings, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        about: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        shard: Shard | None = None,
    ) -> None:
        self.folder = folder
        self.shard = shard or Shard()
        self.path = folder / _file_name(self.shard)
        self.records: dict[str, Record] = {}
        self._overwrite = overwrite
        self._settings = json.loads(json.dumps(settings))
        self._head = json.dumps({"settings": self._settings, **(about or {})}, ensure_ascii=False) + "\n"
        self._own = self._fresh = False
        self._read()

    def unfinished(self, pairs: Sequence[InputPair], outputs: Sequence[str]) -> list[InputPair]:
        """Those of this process's pairs of which an output is missing or older than its images.

        Args:
            pairs: of all processes.
            outputs: kinds that are to be there.

        Raises:
            InputError: outputs are there that this record does not know, or that came from other files.
        """
        own = self.shard.pick(pairs)
        if self._overwrite:
            return own
        # Of all processes' pairs: the others trust the first one's look, since outputs that they do not
        # know may be those that a killed run did not come to record.
        faults = self._foreign(pairs, outputs) if self._fresh else []
        if faults:
            self._read()  # another process may have begun since
            faults = faults if self._fresh else []
        left: list[InputPair] = []
        for pair in own:
            record = self.records.get(pair.name)
            if record is not None and record.files != files_of(pair):
                faults.append(f"{pair.name}: is there already, predicted from {record.files[0]}")
            elif record is None or record.stamps != stamps_of(pair) or self._lacks(pair, outputs):
                left.append(pair)
        if faults:
            raise ManyInputsError(
                f"{self.folder} holds other results of these names; "
                "choose another --out, or replace them with --overwrite",
                faults,
            )
        return left

    def add(
        self,
        pair: InputPair,
        size: tuple[int, int],
        shares: Mapping[str, float],
        missing: Mapping[Camera, str] | None = None,
    ) -> None:
        """Record a finished image, at once on disk."""
        record = {
            "name": pair.name,
            "size": list(size),
            "shares": {name: round(share, 6) for name, share in shares.items()},
            "files": files_of(pair),
            "stamps": stamps_of(pair),
        } | ({"missing": dict(missing)} if missing else {})
        self._stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("a+", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from error
        try:
            lock(self._stream, self.path)
            self._begin()
        except BaseException:
            self._stream.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stream.close()
        except OSError as fault:  # a full disk; the line that did not fit is dropped by the next run
            if error is None:
                raise InputError(f"{self.path}: cannot be written ({fault.strerror})") from fault

    def _begin(self) -> None:
        """Write the first line, or end a line that a killed run left half written."""
        try:
            if self._overwrite:
                for path in self._outdated():
                    path.unlink(missing_ok=True)
            if self._overwrite or not self._own:
                if self.path.stat().st_size and not self._overwrite:
                    raise in_use(self.path)  # since the folder was looked at
                self._stream.truncate(0)
                self._stream.write(self._head)
                self._stream.flush()
                os.fsync(self._stream.fileno())
            elif not _ends_with_newline(self.path):
                self._stream.write("\n")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _outdated(self) -> list[Path]:
        """Journals that beginning anew makes void: not those of the processes that begin anew beside this."""
        beside = f"-of-{self.shard.count}"
        return [
            path
            for path in journals_in(self.folder)
            if path != self.path and not (self.shard.count > 1 and path.stem.endswith(beside))
        ]

    def _lacks(self, pair: InputPair, outputs: Sequence[str]) -> bool:
        return not all(path.exists() for path in output_paths(self.folder, pair.name, outputs))

    def _foreign(self, pairs: Sequence[InputPair], outputs: Sequence[str]) -> list[str]:
        """A fault for each pair of which an output is there."""
        faults = []
        for pair in pairs:
            there = (path for path in output_paths(self.folder, pair.name, outputs) if path.exists())
            first = next(there, None)
            faults += [] if first is None else [f"{first}: is there already"]
        return faults

    def _read(self) -> None:
        """Read what all processes have recorded; where several know a name, the latest journal counts."""
        self.records, self._own, self._fresh = {}, False, True
        if self._overwrite:
            return
        for path in journals_in(self.folder):
            if path.stat().st_size == 0:
                continue  # begun and killed at once
            head, records = read_journal(path)
            if head is None or head.get("settings") != self._settings:
                made_by = f" by {head['checkpoint']}" if head and head.get("checkpoint") else ""
                raise InputError(
                    f"{self.folder} holds predictions made{made_by} with another model or other settings; "
                    "choose another --out, or replace them with --overwrite"
                )
            self._fresh = False
            self._own |= path == self.path
            self.records |= records


def journals_in(folder: Path) -> list[Path]:
    """The journals of a prediction folder, the one written last at the end."""
    stem, suffix = Path(FILE_NAME).stem, Path(FILE_NAME).suffix
    found = [*folder.glob(FILE_NAME), *folder.glob(f"{stem}-*-of-*{suffix}")]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def fingerprint(model: nn.Module) -> str:
    """A short hash of all weights and buffers of a model: two models predict alike if it is equal."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _file_name(shard: Shard) -> str:
    if shard.count == 1:
        return FILE_NAME
    return f"{Path(FILE_NAME).stem}-{shard.number}-of-{shard.count}{Path(FILE_NAME).suffix}"


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def remove_leftovers(
    folder: Path, own: Sequence[InputPair], pairs: Sequence[InputPair], outputs: Sequence[str]
) -> int:
    """Remove temporary files of outputs that this process is about to write.

    Args:
        folder: the output folder.
        own: pairs that this process is about to predict.
        pairs: of all processes: what another one has under way is left alone.
        outputs: kinds that are written.

    Returns:
        how many were there.
    """
    mine = {pair.name for pair in own}
    stems = _stems(folder, own, outputs)
    others = _stems(folder, [pair for pair in pairs if pair.name not in mine], outputs)
    removed = 0
    for place, names in stems.items():
        for stem, path in leftovers(place):
            if stem in names and stem not in others[place]:
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed += 1
    return removed


def _stems(folder: Path, pairs: Iterable[InputPair], outputs: Sequence[str]) -> defaultdict[Path, set[str]]:
    """What temporary files of the pairs' outputs carry as their stem, by folder."""
    found: defaultdict[Path, set[str]] = defaultdict(set)
    for pair in pairs:
        for path in output_paths(folder, pair.name, outputs):
            found[path.parent].add(path.stem[:STEM_KEPT])
    return found
