"""Values of options: sizes, and outputs that can be written."""

from __future__ import annotations

import os
import re
from pathlib import Path

from efnet.core.errors import InputError


def parse_size(text: str, minimum: int = 1, option: str = "--size") -> tuple[int, int]:
    """Return (H, W) from a text such as 480x640; raise `InputError` for another form or a shorter side."""
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip(), re.ASCII)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < minimum:
        least = f", both at least {minimum}" if minimum > 1 else ""
        raise InputError(f"{option} {text}: give height x width{least}, such as 480x640")
    return size


def check_file_writable(option: str, path: str | os.PathLike[str] | None) -> None:
    """Raise an `InputError` for a file that could not be written at the end of a long run; create nothing."""
    if path is None:
        return
    if Path(path).is_dir():
        raise InputError(f"{option} {path}: is a folder; give the name of a file")
    _check_folder(option, path, Path(path).parent)


def check_folder_writable(option: str, path: str | os.PathLike[str] | None) -> None:
    """Raise an `InputError` for a folder that could not be created or written; create nothing."""
    if path is not None:
        _check_folder(option, path, Path(path))


def _check_folder(option: str, path: str | os.PathLike[str], folder: Path) -> None:
    """Check the nearest existing folder, in which the missing ones would be created."""
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise InputError(f"{option} {path}: {there} is not a folder; choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{option} {path}: {there} cannot be written; choose another place")


def take_values(words: list[str], option: str) -> tuple[list[str], list[str]]:
    """Return the values of an option in the order of the words, and the other words."""
    values: list[str] = []
    others: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == option:
            values.append(next(remaining, ""))
        elif word.startswith(f"{option}="):
            values.append(word.partition("=")[2])
        else:
            others.append(word)
    return values, others


def option_name(key: str) -> str:
    """Spell a parameter as its option: `batch_size` as `--batch-size`; dotted keys keep their spelling."""
    return f"--{key}" if "." in key else f"--{key.replace('_', '-')}"
