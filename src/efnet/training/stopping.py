"""The ways in which a run ends before its last epoch: a signal, a callback, no improvement."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

from efnet.evaluation.report import Report
from efnet.training.config import ValidationConfig
from efnet.training.state import Progress

Row = dict[str, Any]
"""Figures of an epoch, as in `metrics.jsonl`."""


@dataclass(frozen=True)
class Validated:
    """A validation, as callbacks see it."""

    epoch: int  # counted from 1
    miou: float | None  # on the validation split; None where no class counts
    report: Report  # as of `efnet evaluate`
    is_best: bool  # whether it is the best so far, and its checkpoint was kept
    checkpoint: Path  # folder of the best checkpoint so far


@dataclass(frozen=True)
class EpochEnd:
    """The end of an epoch, as callbacks see it."""

    epoch: int  # counted from 1
    epochs: int  # of the whole run
    row: Row  # loss, rate and, where the epoch was validated, `val_miou` and others
    out: Path  # the run's folder


@dataclass(frozen=True)
class Callbacks:
    """Functions that a run calls on rank 0; one that returns True ends the run after this epoch.

    An exception ends the run at once, with the state saved.
    """

    on_validation: Callable[[Validated], bool | None] | None = None
    on_epoch_end: Callable[[EpochEnd], bool | None] | None = None


_NO_BETTER = "no better mIoU"


def is_early(reason: str | None) -> bool:
    """Whether the reason why a run ended is that of `early_stop`."""
    return reason is not None and reason.startswith(_NO_BETTER)


def early_stop(config: ValidationConfig, progress: Progress) -> str | None:
    """Return why a run ends early by its own rule; None: it goes on."""
    patience = config.early_stopping
    if patience is None or progress.stale < patience:
        return None
    times = f"{progress.stale} validations" if progress.stale > 1 else "1 validation"
    return f"{_NO_BETTER} in {times} after epoch {progress.best_epoch}"


class StopSignal:
    """While entered, the first Ctrl-C or SIGTERM only sets `requested`; a second Ctrl-C interrupts at once.

    A run checks it between steps, so that what it saves is whole; `announce` gets the message that the run
    will stop. Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.announce = announce
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            stops = (signal.SIGINT, signal.SIGTERM)
            self._before = {number: signal.signal(number, self._receive) for number in stops}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._receive:  # unless the end of a group has changed it
                signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt("interrupted at once; the last saved state stays")
        if not self.requested:
            self.requested = True
            self.announce("stopping after this step (once more Ctrl-C: at once, without saving)")

    def check(self) -> None:
        """Raise Stopped if a signal was received."""
        if self.requested:
            raise Stopped


class Stopped(Exception):  # noqa: N818  (not an error)
    """The run was asked to stop and is between two steps."""
