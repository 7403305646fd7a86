"""What a run goes on from: weights, optimizer, and how far it came.

No random state: every draw of a run depends on the seed and on the epoch or step alone.
"""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from efnet.errors import InputError
from efnet.files import replacing


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
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    best_miou: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    average: nn.Module | None = None,
) -> None:
    """Write the state, whole or not at all; `average` is the network of averaged weights, if there is one."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }
    if average is not None:
        state["average"] = average.state_dict()
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> Progress:
    """Restore what `save_state` wrote.

    Raises:
        InputError: the file is damaged or of another network.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        progress = Progress(**state["progress"])
    except (
        RuntimeError,
        OSError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        detail = str(error).splitlines()[0]
        raise InputError(
            f"{path}: cannot be resumed ({detail}); start a new run with another --out"
        ) from error
    return progress
