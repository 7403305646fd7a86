"""Logs of a run: rows in files, TensorBoard, and a progress bar on the terminal."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
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
from efnet.core.safe_parse import parse_json
from efnet.training.run_folder import RunFolder

Row = dict[str, Any]


class RunLog:
    """Rows per epoch, as CSV, JSON lines and in TensorBoard if installed; a resumed run gives its rows."""

    columns = ("epoch", "loss", "lr", "val_miou", "val_macc", "pairs_per_second", "seconds", "skipped")

    def __init__(self, folder: RunFolder, rows: list[Row]) -> None:
        self.folder = folder
        self.rows = rows
        self.board: Any = None  # TensorBoard's writer, if the extra `tensorboard` is installed
        with contextlib.suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder.tensorboard))

    def add(self, row: Row) -> None:
        """Append a row to every log; files are written anew, without remains of an interrupted epoch."""
        self.rows.append(row)
        table = io.StringIO()
        writer = csv.DictWriter(table, self.columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.folder.metrics_csv, table.getvalue())
        write_text(self.folder.metrics_jsonl, "".join(json.dumps(row) + "\n" for row in self.rows))
        if self.board is not None:
            for tag in self.columns[1:]:
                if row.get(tag) is not None:
                    self.board.add_scalar(tag, row[tag], row["epoch"])
            for name, value in (row.get("val_iou") or {}).items():
                if value is not None:
                    self.board.add_scalar(f"val_iou/{name}", value, row["epoch"])

    def picture(self, sheet: Image.Image, epoch: int) -> None:
        """Show a picture sheet in TensorBoard."""
        if self.board is not None:
            self.board.add_image("validation", np.asarray(sheet), epoch, dataformats="HWC")

    def close(self) -> None:
        """Flush the buffers."""
        if self.board is not None:
            self.board.close()


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
    """Progress on stderr: a live bar on a terminal, one line per epoch elsewhere."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, quiet=quiet, width=None if sys.stderr.isatty() else 140)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def steps(self, total: int, done: int) -> Iterator[Steps]:
        """Show the bar of a run of `total` batches, `done` of which are finished."""
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

    def __init__(self, bar: Progress, task: TaskID, done: int) -> None:
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
