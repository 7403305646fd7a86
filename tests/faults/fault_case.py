"""One case of bad input: what is arranged, what is typed, and what must be said.

A case runs in a folder of its own that holds small valid inputs (see `fault_world`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Content = bytes | str | Callable[[], bytes]

Arrange = Callable[[Path], object]
"""Spoils the folder that a case runs in."""


@dataclass(frozen=True)
class Case:
    """Bad input of a command.

    Attributes:
        name: what is wrong.
        line: the words after `efnet`, separated by spaces; paths are relative to the folder.
        says: parts of the message: what is wrong and where, and the remedy.
        arrange: spoils the folder first.
        status: exit status; a check that finds problems exits 1.
        extras: further inputs from `fault_world`, such as a run.
        leaves: glob patterns of files that may be there afterwards: whole ones.
        changes: glob patterns of files that the command may write anew.
    """

    name: str
    line: str
    says: tuple[str, ...]
    arrange: Arrange = lambda home: None
    status: int = 2
    extras: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


def holds(path: str, content: Content) -> Arrange:
    """The file has this content; what takes long to make is a function, called by the case alone."""

    def arrange(home: Path) -> None:
        target = home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        made = content() if callable(content) else content
        target.write_bytes(made.encode() if isinstance(made, str) else made)

    return arrange


def cut(path: str, keep: float = 0.6) -> Arrange:
    """The file ends too early."""

    def arrange(home: Path) -> None:
        content = (home / path).read_bytes()
        (home / path).write_bytes(content[: int(len(content) * keep)])

    return arrange


def flipped(path: str, place: float = 0.5) -> Arrange:
    """One byte of the file is another."""

    def arrange(home: Path) -> None:
        content = bytearray((home / path).read_bytes())
        content[int(len(content) * place)] ^= 0xFF
        (home / path).write_bytes(content)

    return arrange


def gone(path: str) -> Arrange:
    """There is no such file or folder."""

    def arrange(home: Path) -> None:
        shutil.rmtree(home / path) if (home / path).is_dir() else (home / path).unlink()

    return arrange


def folder(path: str) -> Arrange:
    """A folder stands where a file should."""

    def arrange(home: Path) -> None:
        (home / path).unlink(missing_ok=True)
        (home / path).mkdir(parents=True)

    return arrange


def loop(path: str) -> Arrange:
    """A link to itself."""

    def arrange(home: Path) -> None:
        (home / path).unlink(missing_ok=True)
        (home / path).symlink_to(Path(path).name)

    return arrange


def dangling(path: str) -> Arrange:
    """A link to nothing."""

    def arrange(home: Path) -> None:
        (home / path).unlink(missing_ok=True)
        (home / path).symlink_to("nowhere")

    return arrange


def both(*steps: Arrange) -> Arrange:
    def arrange(home: Path) -> None:
        for step in steps:
            step(home)

    return arrange


def edited(path: str, change: Callable[[dict], object]) -> Arrange:
    """A JSON file with a change."""

    def arrange(home: Path) -> None:
        values = json.loads((home / path).read_text())
        change(values)
        (home / path).write_text(json.dumps(values))

    return arrange


def put(*keys: str | int, value: object) -> Callable[[dict], None]:
    """Set one place of nested values."""

    def change(values: dict) -> None:
        place = values
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change
