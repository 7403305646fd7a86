"""Progress of long work: the function that a caller passes to follow it, and a bar on stderr."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

Progress = Callable[[int, int], None]
"""Called with the number of items done and the number of all."""


def no_progress(done: int, total: int) -> None:
    """Do nothing: nobody follows the work."""


def count_steps(progress: Progress, total: int) -> Callable[[], None]:
    """Return a function that reports one more of `total` steps at each call."""
    done = itertools.count(1)
    return lambda: progress(next(done), total)


class ProgressBar:
    """A bar on the terminal, called as `Progress` is; the total may be None where it is not known."""

    def __init__(self, bars: RichProgress, description: str) -> None:
        self._bars = bars
        self._task = bars.add_task(description, total=None, rate="")
        self._started = time.perf_counter()

    def __call__(self, done: int, total: int | None) -> None:
        """Draw how much is done."""
        rate = f"{done / max(1e-9, time.perf_counter() - self._started):.1f}/s"
        total = None if total is None else max(total, done)
        self._bars.update(self._task, completed=done, total=total, rate=rate)

    def print(self, line: str) -> None:
        """Print a line above the bar."""
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(description: str, *, rate: bool = False, disable: bool = False) -> Iterator[ProgressBar]:
    """Show a bar with the time left on stderr for the duration of a block, if stderr is a terminal.

    Args:
        description: words in front of the bar.
        rate: also show items per second, and leave the final state, which files and pipes get too.
        disable: draw nothing; `ProgressBar.print` still prints.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    with RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *([TextColumn("{task.fields[rate]}")] if rate else []),
        TimeRemainingColumn(),
        console=console,
        transient=not rate,
        disable=disable or not (rate or console.is_terminal),
    ) as bars:
        yield ProgressBar(bars, description)
