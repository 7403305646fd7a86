"""The record of a prediction folder, so that an interrupted run goes on without mixing results.

`predictions.jsonl` is a journal: a header on the model and settings, then one line per finished image. Each
of several processes that share the work writes its own (`predictions-2-of-5.jsonl`) and reads all.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import torch
from torch import nn

from efnet.core.errors import InputError, ManyInputsError
from efnet.core.files import STEM_KEPT, leftovers
from efnet.core.journal import JournalWriter, read_journal
from efnet.data.archive import file_of, tar_of
from efnet.inference.inputs import InputPair
from efnet.inference.missing_cameras import Camera, MissingPolicy
from efnet.inference.postprocess import output_paths
from efnet.inference.stream import Shard

if TYPE_CHECKING:
    from efnet.alignment.homography import Homography
    from efnet.inference.tiles import Tiling

FILE_NAME = "predictions.jsonl"

Stamp = list[int]  # size and time of a file


class Record(NamedTuple):
    """A finished image as memory holds it: its absolute files, and their stamps when they were read."""

    files: list[str]
    stamps: list[Stamp]


def kept_record(line: Mapping[str, Any]) -> Record | None:
    """Return what memory holds of a line of a journal; None: it is not one of a finished image."""
    return Record(line["files"], line["stamps"]) if {"files", "stamps"} <= line.keys() else None


class PredictionJournal(JournalWriter):
    """The record of one prediction folder, which is made if absent; a context manager.

    `settings` are all that decides a result beside the images (model fingerprint, opacity, ...), `about`
    further plain values for the header. With `overwrite` the record begins anew, whatever the folder holds.
    Raises InputError: the folder holds predictions made with other settings, or cannot be written.
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
        self.records: dict[str, Record] = {}  # finished images by name, those of other processes among them
        self._settings = json.loads(json.dumps(settings))
        self._fresh = True
        part = "" if self.shard.count == 1 else f"-{self.shard.number}-of-{self.shard.count}"
        name = f"{Path(FILE_NAME).stem}{part}{Path(FILE_NAME).suffix}"
        super().__init__(
            folder / name,
            {"settings": self._settings, **(about or {})},
            resume=False,
            overwrite=overwrite,
            remedy=", or let several processes share the work by `shard` 1/2 and 2/2",
        )
        self._read()

    def unfinished(self, pairs: Sequence[InputPair], outputs: Sequence[str]) -> list[InputPair]:
        """Return own pairs with missing or old outputs; raises InputError for outputs of other origin."""
        own = self.shard.pick(pairs)
        if self.overwrite:
            return own
        # The other processes trust the first one's look at all pairs: outputs that they do not know may be
        # those that a killed run did not record.
        existing = (self._existing(pair, outputs) for pair in pairs if self._fresh)
        faults = [f"{paths[0]}: is there already" for paths in existing if paths]
        if faults:
            self._read()  # another process may have begun since
            faults = faults if self._fresh else []
        left: list[InputPair] = []
        for pair in own:
            record = self.records.get(pair.name)
            if record is not None and record.files != _files_of(pair):
                faults.append(f"{pair.name}: is there already, predicted from {record.files[0]}")
            elif (
                record is None
                or record.stamps != _stamps_of(pair)
                or len(self._existing(pair, outputs)) < len(outputs)
            ):
                left.append(pair)
        if faults:
            raise ManyInputsError(
                f"{self.folder} holds other results of these names; "
                "choose another `out`, or replace them with `overwrite`",
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
            "files": _files_of(pair),
            "stamps": _stamps_of(pair),
        }
        self.append(record | ({"missing": dict(missing)} if missing else {}))

    def __enter__(self) -> Self:
        super().__enter__()
        if self.overwrite:
            # Beginning anew makes other journals void, but not those of the processes that do so beside this.
            beside = f"-of-{self.shard.count}"
            for path in journals_in(self.folder):
                if path != self.path and not (self.shard.count > 1 and path.stem.endswith(beside)):
                    path.unlink(missing_ok=True)
        return self

    def _existing(self, pair: InputPair, outputs: Sequence[str]) -> list[Path]:
        return [path for path in output_paths(self.folder, pair.name, outputs) if path.exists()]

    def _read(self) -> None:
        """Read what all processes have recorded; where several know a name, the latest journal counts."""
        self.records, self.resume, self._fresh = {}, False, True
        if self.overwrite:
            return
        for path in journals_in(self.folder):
            if path.stat().st_size == 0:
                continue  # begun and killed at once
            head, records = read_journal(path, kept_record)
            if head is None or head.get("settings") != self._settings:
                made_by = f" by {head['checkpoint']}" if head and head.get("checkpoint") else ""
                raise InputError(
                    f"{self.folder} holds predictions made{made_by} with another model or other settings; "
                    "choose another `out`, or replace them with `overwrite`"
                )
            self._fresh = False
            self.resume |= path == self.path
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


def _files_of(pair: InputPair) -> list[str]:
    """Absolute paths of a pair's files, links followed."""
    # Ten thousand files lie in a few folders: to resolve these once is all that takes time.
    return [
        str(path.resolve() if path.is_symlink() else _resolved_folder(path.parent) / path.name)
        for path in pair.files
    ]


@functools.lru_cache(maxsize=1024)
def _resolved_folder(folder: Path) -> Path:
    return folder.resolve()


def _stamps_of(pair: InputPair) -> list[Stamp]:
    """Stamps of a pair's files, to notice replaced ones; [] where they cannot be read."""
    try:
        # A tar that was replaced may hold other images under the same names.
        states = [(tar_of(path) or file_of(path)).stat() for path in pair.files]
    except OSError:
        return []
    return [[state.st_size, state.st_mtime_ns] for state in states]


def remove_leftovers(
    folder: Path, own: Sequence[InputPair], pairs: Sequence[InputPair], outputs: Sequence[str]
) -> None:
    """Remove temporary files of a killed run that belong to the pairs `own`, not to the other `pairs`."""
    mine = {pair.name for pair in own}
    stems = _stems(folder, own, outputs)
    others = _stems(folder, [pair for pair in pairs if pair.name not in mine], outputs)
    for place, names in stems.items():
        for stem, path in leftovers(place):
            if stem in names and stem not in others[place]:
                with contextlib.suppress(OSError):
                    path.unlink()


def _stems(folder: Path, pairs: Iterable[InputPair], outputs: Sequence[str]) -> defaultdict[Path, set[str]]:
    """The stems that temporary files of the pairs' outputs carry, by folder."""
    found: defaultdict[Path, set[str]] = defaultdict(set)
    for pair in pairs:
        for path in output_paths(folder, pair.name, outputs):
            found[path.parent].add(path.stem[:STEM_KEPT])
    return found


class _Settings(Protocol):
    """The attributes of `Preparation` that `preparation_settings` looks at."""

    @property
    def tiling(self) -> Tiling | None: ...
    @property
    def homography(self) -> Homography | None: ...
    @property
    def missing(self) -> MissingPolicy: ...


def preparation_settings(preparation: _Settings, default_missing: MissingPolicy) -> dict[str, Any]:
    """Return what affects results and is not at its default, for journals and reports."""
    found: dict[str, Any] = {"missing": preparation.missing} if preparation.missing != default_missing else {}
    if preparation.tiling is not None:
        found["tile"] = [*preparation.tiling.size, preparation.tiling.overlap]
    if preparation.homography is not None:
        found["homography"] = preparation.homography.matrix.tolist()
    return found
