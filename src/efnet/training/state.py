"""What a run goes on from: weights, optimizer, and how far it came.

No random state: every draw of a run depends on the seed and on the epoch or step alone. A state carries its
checksum, and the one before is kept: a file that a failing disk has changed is noticed and ends no run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from efnet.core.errors import InputError
from efnet.core.files import write_bytes


@dataclass
class Progress:
    """How far a run came.

    Attributes:
        epoch: finished epochs.
        batch: finished batches of the epoch after them.
        loss_sum: sum of the losses of these batches.
        best_miou: best validation mIoU so far; negative before the first.
        best_epoch: epoch of it, counted from 1; 0 before the first.
        seconds: spent training and validating.
        skipped: steps that changed nothing, because loss or gradient was not finite, over the whole run.
        skipped_in_epoch: of these, in the epoch that is not finished.
        skipped_in_row: of these, the last ones without a step that was made.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    best_miou: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_epoch: int = 0
    skipped_in_row: int = 0


_MAGIC = b"efnet state 1\n"
"""Begins the file; the SHA-256 of what follows comes next, then what `torch.save` wrote."""

_DAMAGES = (RuntimeError, OSError, LookupError, TypeError, ValueError, AttributeError, AssertionError)


def previous(path: Path) -> Path:
    """Where the state before that of `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    average: nn.Module | None = None,
) -> None:
    """Write the state, whole or not at all, and keep the one before.

    Args:
        path: of the state.
        model: the network.
        optimizer: its optimizer.
        progress: how far the run came.
        average: the network of averaged weights, if there is one.

    Raises:
        InputError: the file cannot be written; the state before is still there.
    """
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }
    if average is not None:
        state["average"] = average.state_dict()
    content = io.BytesIO()
    torch.save(state, content)
    body = content.getbuffer()
    _keep(path)
    write_bytes(path, b"".join((_MAGIC, hashlib.sha256(body).digest(), body)))


def _keep(path: Path) -> None:
    """Give the present state a second name, so that at every moment there is a whole one."""
    before = previous(path)
    with contextlib.suppress(OSError):
        before.unlink(missing_ok=True)
        os.link(path, before)


def load_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> tuple[Progress, str | None]:
    """Restore what `save_state` wrote; if that file is damaged, what it wrote before.

    Returns:
        how far the run came, and what was wrong with the newer file, if anything was.

    Raises:
        InputError: both files are damaged, or of another network.
    """
    faults: list[str] = []
    for candidate in (path, previous(path)):
        try:
            state = read_state(candidate)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            if average is not None:
                average.load_state_dict(state["average"])
            progress = Progress(**state["progress"])
        except _DAMAGES as error:
            if candidate == path or candidate.is_file():
                faults.append(f"{candidate}: {_first_line(error)}")
            continue
        if candidate != path:
            # Else the next state to be kept as the one before would be the damaged one.
            with contextlib.suppress(OSError):
                os.replace(candidate, path)
        return progress, faults[0] if faults else None
    raise InputError(f"cannot be resumed ({'; '.join(faults)}); start a new run with another --out")


def read_progress(path: Path) -> Progress | None:
    """How far the run of a state came; None if neither the file nor the one before can be read."""
    for candidate in (path, previous(path)):
        with contextlib.suppress(*_DAMAGES):
            return Progress(**read_state(candidate)["progress"])
    return None


def read_state(path: Path) -> dict[str, Any]:
    """What `save_state` put into one file: `model`, `optimizer`, `progress`, perhaps `average`.

    Raises:
        OSError: there is no such file.
        ValueError: its checksum is wrong, or it is something else.
    """
    content = path.read_bytes()
    start = len(_MAGIC) + hashlib.sha256().digest_size
    if not content.startswith(_MAGIC):
        raise ValueError("not a state of this version, or its beginning is damaged")
    if hashlib.sha256(memoryview(content)[start:]).digest() != content[len(_MAGIC) : start]:
        raise ValueError("its checksum is wrong: the file is damaged or cut off")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content[start:]), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # the unpickler's have many names, and a stranger's file may cause any
        raise ValueError(_first_line(error)) from error
    return state


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
