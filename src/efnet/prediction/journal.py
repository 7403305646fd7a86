"""What a prediction folder holds and from what, so that a run can be taken up again without mixing.

`predictions.jsonl`: a first line on the model and settings, then one line per finished image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from efnet.errors import InputError, ManyInputsError
from efnet.files import write_text
from efnet.prediction.inputs import InputPair
from efnet.prediction.modality import Camera
from efnet.prediction.result import output_paths

FILE_NAME = "predictions.jsonl"


class Journal:
    """The record of one prediction folder; use it as a context manager.

    Args:
        folder: the output folder, made if absent.
        settings: all that decides a result beside the images (model fingerprint, opacity, ...).
        about: further plain values for the first line.
        overwrite: begin anew, whatever the folder holds.

    Raises:
        InputError: the folder holds predictions made with other settings, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        about: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.folder = folder
        self.path = folder / FILE_NAME
        self.records: dict[str, dict[str, Any]] = {}
        self.fresh = overwrite or not self.path.exists()
        self._overwrite = overwrite
        head = {"settings": dict(settings), **(about or {})}
        if self.fresh:
            self._head: str | None = json.dumps(head, ensure_ascii=False) + "\n"
        else:
            self._head = None
            self._read(head["settings"])

    def unfinished(self, pairs: Sequence[InputPair], outputs: Sequence[str]) -> list[InputPair]:
        """The pairs of which an output is missing or older than its images.

        Raises:
            InputError: outputs are there that this record does not know, or that came from other files.
        """
        left: list[InputPair] = []
        faults: list[str] = []
        for pair in pairs:
            paths = output_paths(self.folder, pair.name, outputs)
            record = self.records.get(pair.name)
            if self._overwrite:
                left.append(pair)
            elif record is None:
                if self.fresh and any(path.exists() for path in paths):
                    faults.append(f"{next(path for path in paths if path.exists())}: is there already")
                left.append(pair)
            elif record["files"] != _files(pair):
                faults.append(f"{pair.name}: is there already, predicted from {record['files'][0]}")
            elif record["stamps"] != _stamps(pair) or not all(path.exists() for path in paths):
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
            "files": _files(pair),
            "stamps": _stamps(pair),
        } | ({"missing": dict(missing)} if missing else {})
        self._stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        if self._head is not None:
            write_text(self.path, self._head)
        try:
            self._stream = self.path.open("a+", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from error
        if not self.path.read_bytes().endswith(b"\n"):  # a line that a killed run left half written
            self._stream.write("\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stream.close()
        except OSError as fault:  # a full disk; the line that did not fit is dropped by the next run
            if error is None:
                raise InputError(f"{self.path}: cannot be written ({fault.strerror})") from fault

    def _read(self, settings: Mapping[str, Any]) -> None:
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        head = _parsed(lines[0]) if lines else None
        if head is None or head.get("settings") != json.loads(json.dumps(settings)):
            made_by = f" by {head['checkpoint']}" if head and head.get("checkpoint") else ""
            raise InputError(
                f"{self.folder} holds predictions made{made_by} with another model or other settings; "
                "choose another --out, or replace them with --overwrite"
            )
        for line in lines[1:]:
            record = _parsed(line)
            if record is not None and {"name", "files", "stamps"} <= record.keys():
                self.records[record["name"]] = record


def fingerprint(model: nn.Module) -> str:
    """A short hash of all weights and buffers of a model: two models predict alike if it is equal."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _paths(pair: InputPair) -> list[Path]:
    return [path for path in (pair.rgb, pair.thermal) if path is not None]


def _files(pair: InputPair) -> list[str]:
    return [str(path.resolve()) for path in _paths(pair)]


def _stamps(pair: InputPair) -> list[list[int]]:
    """Size and time of the files, to see that they were replaced; [] where they cannot be looked at."""
    try:
        states = [path.stat() for path in _paths(pair)]
    except OSError:
        return []
    return [[state.st_size, state.st_mtime_ns] for state in states]
