"""Progress of long work: the function that a caller passes to follow it, a bar on stderr or in a notebook."""

from __future__ import annotations

import importlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

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


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook (Jupyter, Colab)."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)


class NotebookBar(ProgressBar):
    """A bar below the cell of a notebook; also the bar of `rich.progress.Progress` of a single task."""

    _SECONDS = 0.2  # between two drawings: each is a message to the browser

    def __init__(self, description: str, total: int | None = None) -> None:
        self._description = description
        self._total = total
        self._display: Any = importlib.import_module("IPython.display")
        self._handle = self._display.display(self._html(0, total, description), display_id=True)
        self._drawn = 0.0
        self._started = time.perf_counter()

    def __call__(self, done: int, total: int | None) -> None:
        """Draw how much is done."""
        rate = done / max(1e-9, time.perf_counter() - self._started)
        self._draw(done, total, f"{self._description}, {rate:.1f}/s")

    def update(self, task: object, *, completed: int, description: str, rate: str) -> None:
        """Draw how much is done, and words."""
        self._draw(completed, self._total, f"{description}, {rate}")

    def _draw(self, done: int, total: int | None, words: str) -> None:
        now = time.perf_counter()
        if now - self._drawn >= self._SECONDS or done == total:
            self._drawn = now
            self._handle.update(self._html(done, total, words))

    def _html(self, done: int, total: int | None, words: str) -> Any:
        value = "" if total is None else f' value="{done}" max="{total}"'
        text = escape(f"{words}, {done} of {total}" if total else words)
        return self._display.HTML(f"<progress{value}></progress> {text}")

    def print(self, line: str) -> None:
        """Print a line below the cell."""
        print(line)


@contextmanager
def progress_bar(description: str, *, rate: bool = False, disable: bool = False) -> Iterator[ProgressBar]:
    """Show a bar for the duration of a block: on stderr if that is a terminal, or in a notebook.

    Args:
        description: words in front of the bar.
        rate: also show items per second, and leave the final state, which files and pipes get too.
        disable: draw nothing; `ProgressBar.print` still prints.
    """
    if in_notebook() and not disable:
        yield NotebookBar(description)
        return
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
