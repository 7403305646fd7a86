"""Values of options: sizes, outputs that can be written, and the messages of the option parser."""

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


def plain_message(message: str) -> str:
    """Return a message of the option parser in one line, with options as users type them."""
    line = re.sub(r"\s+", " ", message).strip()
    line = re.sub(r'^Parser key "([^"]+)": ?', lambda match: f"{option_name(match[1])}: ", line)
    line = re.sub(
        r"Expected an? (.+?)\. Got value: (.*)$", lambda m: f"expected {_kind(m[1])}, got {m[2]}", line
    )
    required = "the following arguments are required: "
    if line.startswith(required):
        names = line.removeprefix(required).split(", ")
        line = required.replace("arguments", "options") + ", ".join(option_name(name) for name in names)
    return line.replace("unrecognized arguments:", "there is no option")


def option_name(key: str) -> str:
    """Spell a parameter as its option: `batch_size` as `--batch-size`; dotted keys keep their spelling."""
    return f"--{key}" if "." in key else f"--{key.replace('_', '-')}"


def _kind(kind: str) -> str:
    """Describe a type of Python in words."""
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "tuple": "a list"}
    plain = re.fullmatch(r"<class '(\w+)'>", kind)
    if plain:
        return words.get(plain[1], plain[1])
    choice = re.fullmatch(r"typing\.Literal\[(.+)\]", kind)
    return f"one of {choice[1]}" if choice else kind
