"""The state from which a run resumes: weights, optimizer and progress.

There is no random state: every draw of a run depends only on the seed and on the epoch or step. A state file
has a checksum, and the previous one is kept: a file that a failing disk has changed is detected, and the run
can still resume.
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
from efnet.training.optimizer import group_as_saved


@dataclass
class Progress:
    """Progress of a run."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the epoch after them
    loss_sum: float = 0.0  # sum of the losses of these batches
    best_miou: float = -1.0  # best validation mIoU so far; negative before the first
    best_epoch: int = 0  # epoch of it, counted from 1; 0 before the first
    seconds: float = 0.0  # spent training and validating
    skipped: int = 0  # steps skipped because loss or gradient was not finite, over the whole run
    skipped_in_epoch: int = 0  # those in the unfinished epoch
    skipped_in_row: int = 0  # those since the last step that was made
    validated: int = 0  # last epoch that was validated, counted from 1; 0 before the first
    stale: int = 0  # validations since the best one


_MAGIC = b"efnet state 1\n"
"""Begins the file; the SHA-256 of what follows comes next, then what `torch.save` wrote."""

_DAMAGES = (RuntimeError, OSError, LookupError, TypeError, ValueError, AttributeError, AssertionError)


def previous(path: Path) -> Path:
    """Return the file of the state before that of `path`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    average: nn.Module | None = None,
) -> None:
    """Write the state, whole or not at all, and keep the previous one; raises InputError where it cannot."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": asdict(progress)}
    if average is not None:
        state["average"] = average.state_dict()
    content = io.BytesIO()
    torch.save(state, content)
    body = content.getbuffer()
    before = previous(path)
    with contextlib.suppress(
        OSError
    ):  # a second name for the present state, so that a whole one always exists
        before.unlink(missing_ok=True)
        os.link(path, before)
    write_bytes(path, b"".join((_MAGIC, hashlib.sha256(body).digest(), body)))


def load_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> tuple[Progress, str | None]:
    """Restore what `save_state` wrote; if that file is damaged, the previous state.

    Returns the progress of the run, and what was wrong with the newer file, if anything. Raises InputError:
    both files are damaged, or of another network.
    """
    faults: list[str] = []
    for candidate in (path, previous(path)):
        try:
            state = read_state(candidate)
            model.load_state_dict(state["model"])
            group_as_saved(model, optimizer, state["optimizer"])
            optimizer.load_state_dict(state["optimizer"])
            if average is not None:
                average.load_state_dict(state["average"])
            progress = Progress(**state["progress"])
        except InputError as error:  # the file is whole, but of another network
            raise InputError(f"{candidate}: {error}") from error
        except _DAMAGES as error:
            if candidate == path or candidate.is_file():
                faults.append(f"{candidate}: {first_line(error)}")
            continue
        if candidate != path:
            # Otherwise the damaged one would be kept as the previous state.
            with contextlib.suppress(OSError):
                os.replace(candidate, path)
        return progress, faults[0] if faults else None
    raise InputError(f"cannot be resumed ({'; '.join(faults)}); start a new run with another `out`")


def read_state(path: Path) -> dict[str, Any]:
    """Read one file that `save_state` wrote: `model`, `optimizer`, `progress`, perhaps `average`.

    Raises OSError if there is no such file; ValueError if its checksum is wrong, or it is not a state.
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
    except Exception as error:  # unpickling raises many kinds, and a file from elsewhere may cause any
        raise ValueError(first_line(error)) from error
    return state


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
