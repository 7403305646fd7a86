"""Logs of a run: rows in files, and progress on a terminal or in a notebook."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from efnet.core.errors import InputError
from efnet.core.files import write_text
from efnet.core.progress import NotebookBar, in_notebook
from efnet.core.safe_parse import parse_json
from efnet.training.run_folder import RunFolder
from efnet.training.stopping import Row
from efnet.training.tracking import Trackers


class RunLog:
    """Rows per epoch, as CSV and JSON lines and in the trackers; a resumed run gives its rows."""

    columns = ("epoch", "loss", "lr", "val_miou", "val_macc", "pairs_per_second", "seconds", "skipped")

    def __init__(self, folder: RunFolder, rows: list[Row], trackers: Trackers) -> None:
        self.folder = folder
        self.rows = rows
        self.trackers = trackers
        for row in rows:  # files of the tracker `csv` begin anew
            trackers.log(_figures(row), row["epoch"], only="csv")

    def add(self, row: Row) -> None:
        """Append a row to every log; files are written anew, without remains of an interrupted epoch."""
        self.rows.append(row)
        table = io.StringIO()
        writer = csv.DictWriter(table, self.columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.folder.metrics_csv, table.getvalue())
        write_text(self.folder.metrics_jsonl, "".join(json.dumps(row) + "\n" for row in self.rows))
        self.trackers.log(_figures(row), row["epoch"])


def _figures(row: Row) -> dict[str, float]:
    """The figures of an epoch by name, those of the classes as `val_iou/CLASS`."""
    figures = {name: row[name] for name in RunLog.columns[1:] if row.get(name) is not None}
    classes = (row.get("val_iou") or {}).items()
    return figures | {f"val_iou/{name}": value for name, value in classes if value is not None}


def read_rows(folder: RunFolder, epochs: int) -> list[Row]:
    """Read the rows of the first `epochs` epochs of a run that is resumed."""
    if not folder.metrics_jsonl.is_file():
        return []
    try:
        rows = [parse_json(line) for line in folder.metrics_jsonl.read_text(encoding="utf-8").splitlines()]
        return [row for row in rows if row["epoch"] <= epochs]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder.metrics_jsonl}: damaged ({error}); delete it to go on without the epochs in it"
        ) from error


class Reporter:
    """Progress on stderr: a live bar on a terminal and in a notebook, one line per epoch elsewhere."""

    def __init__(self, quiet: bool = False) -> None:
        self.in_notebook = in_notebook() and not quiet
        # Notebooks colour stderr as an error.
        stream = sys.stdout if self.in_notebook else sys.stderr
        width = None if sys.stderr.isatty() else 140
        self.console = Console(file=stream, quiet=quiet, width=width, force_jupyter=False)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def steps(self, total: int, done: int) -> Iterator[Steps]:
        """Show the bar of a run of `total` batches, `done` of which are finished."""
        if self.in_notebook:
            yield Steps(NotebookBar("training", total), TaskID(0), done)
            return
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        with bar:
            task = bar.add_task("training", total=total, completed=done, rate="")
            yield Steps(bar, task, done)


class Steps:
    """The live bar of a run."""

    def __init__(self, bar: Progress | NotebookBar, task: TaskID, done: int) -> None:
        self.bar = bar
        self.task = task
        self.done = done
        self._first = done
        self._started = time.monotonic()

    def advance(self, epoch: int, epochs: int, loss: float, batch_size: int) -> None:
        """Count a batch."""
        self.done += 1
        rate = (self.done - self._first) * batch_size / max(1e-9, time.monotonic() - self._started)
        self.bar.update(
            self.task,
            completed=self.done,
            description=f"epoch {epoch}/{epochs} loss {loss:.3f}",
            rate=f"{rate:.1f} pairs/s",
        )
