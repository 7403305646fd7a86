"""What a run says of itself, and how it ends: with a summary, or interrupted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efnet.training.config import TrainConfig


@dataclass(frozen=True)
class RunSummary:
    """What a finished run says of itself.

    Attributes:
        out: the run folder.
        epochs: finished.
        best_miou: best validation mIoU, a fraction.
        best_epoch: epoch of it, counted from 1.
        seconds: spent training and validating, over all resumptions.
        skipped: steps that changed nothing, because loss or gradient was not finite.
    """

    out: Path
    epochs: int
    best_miou: float
    best_epoch: int
    seconds: float
    skipped: int = 0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C after the state was saved; the message says how to go on."""


def describe_training(config: TrainConfig, pairs: int, epoch: int, report: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its training.

    Args:
        config: the recipe.
        pairs: number of them in the training split.
        epoch: the one that ended, counted from 1.
        report: of the validation.
    """
    data = config.data
    facts = {
        "recipe": config.recipe,
        "dataset": data.dataset,
        "train_split": data.train_split,
        "train_pairs": pairs,
        "selected_on": data.val_split,
        "selection_protocol": report["protocol"]["name"],
        "selection_miou": report["miou"],
        "epoch": epoch,
        "epochs": config.schedule.epochs,
        "seed": config.seed,
    }
    dropped = [camera for camera in ("rgb", "thermal") if getattr(config.augment, f"drop_{camera}")]
    if dropped:
        facts["dropped"] = dropped
    if config.ema.decay is not None:
        facts["ema"] = config.ema.decay
    return facts


def describe_stop(config: TrainConfig, epoch: int, out: Path) -> str:
    """Where a run stands that was asked to stop, and how it goes on."""
    return (
        f"stopped in epoch {epoch} of {config.schedule.epochs}; everything is saved. Go on with: "
        f"efnet train --out {out} --resume"
    )


def describe_processes(config: TrainConfig, processes: int) -> str:
    """How several processes share a batch, for the opening line; nothing for one."""
    if processes == 1:
        return ""
    size, passes = config.data.batch_size, config.data.accumulate
    return (
        f", {processes} processes ({config.parallel.strategy}); a step has {processes * passes * size} "
        f"pairs: {processes} processes x {passes} passes x {size}"
    )
