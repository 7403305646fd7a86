"""Ctrl-C and SIGTERM, heard between steps: never in the middle of one, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """While entered, the first signal only sets `requested`; a second Ctrl-C interrupts at once.

    Outside the main thread, where Python hands out no signals, it does nothing.

    Args:
        announce: told once that the run will stop.
    """

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.announce = announce
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._hear:  # not where the end of a group has changed it
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt("interrupted at once; the last saved state stays")
        if not self.requested:
            self.requested = True
            self.announce("stopping after this step (once more Ctrl-C: at once, without saving)")

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.requested:
            raise Stopped


class Stopped(Exception):  # noqa: N818  (not an error)
    """The run was asked to stop and stands between two steps."""
