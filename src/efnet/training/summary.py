"""How a run ends: with a summary, or interrupted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunSummary:
    """What a finished run says of itself.

    Attributes:
        out: the run folder.
        epochs: finished.
        best_miou: best validation mIoU, a fraction.
        best_epoch: epoch of it, counted from 1.
        seconds: spent training and validating, over all resumptions.
    """

    out: Path
    epochs: int
    best_miou: float
    best_epoch: int
    seconds: float


class Interrupted(KeyboardInterrupt):
    """Ctrl-C after the state was saved; the message says how to go on."""
