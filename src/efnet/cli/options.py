"""What commands share in reading options: sizes, outputs that can be written, and one shape of errors.

The options that name the user's own pairs, on which an exported file is compared with its network.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from efnet.core.errors import InputError

if TYPE_CHECKING:
    from efnet.inference.inputs import InputPair


def add_model_arguments(parser: ArgumentParser) -> None:
    """Declare which checkpoint runs, and how."""
    parser.add_argument(
        "--checkpoint",
        type=str,
        required=True,
        help="run folder, checkpoint folder, or owner/name on the hub",
    )
    parser.add_argument("--batch-size", type=int, default=1, help="pairs in one pass of the network")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--precision", type=str, default="32", help="32 or bf16 (autocast)")


def parse_size(text: str, minimum: int = 1, option: str = "--size") -> tuple[int, int]:
    """Read the value of `--size`, or of an option like it.

    Args:
        text: height x width, such as 480x640.
        minimum: least height and width.
        option: how messages call it.

    Returns:
        (H, W).

    Raises:
        InputError: not of that form, or a side too small.
    """
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip(), re.ASCII)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < minimum:
        least = f", both at least {minimum}" if minimum > 1 else ""
        raise InputError(f"{option} {text}: give height x width{least}, such as 480x640")
    return size


def check_file_writable(option: str, path: str | os.PathLike[str] | None) -> None:
    """Refuse a file that could not be written at the end of a long run; nothing is created.

    Args:
        option: named in the message.
        path: the file; None: not asked for.

    Raises:
        InputError: it is a folder, or its own folder cannot be made or written.
    """
    if path is None:
        return
    if Path(path).is_dir():
        raise InputError(f"{option} {path}: is a folder; give the name of a file")
    _check_folder(option, path, Path(path).parent)


def check_folder_writable(option: str, path: str | os.PathLike[str] | None) -> None:
    """As `check_file_writable`, for a folder that files are written to."""
    if path is not None:
        _check_folder(option, path, Path(path))


def _check_folder(option: str, path: str | os.PathLike[str], folder: Path) -> None:
    """Look at the nearest folder above that exists: the rest would be made in it."""
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise InputError(f"{option} {path}: {there} is not a folder; choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{option} {path}: {there} cannot be written; choose another place")


def plain_message(message: str) -> str:
    """What the option parser says, in one line and with options as users type them."""
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
    """A type of Python in words."""
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "tuple": "a list"}
    plain = re.fullmatch(r"<class '(\w+)'>", kind)
    if plain:
        return words.get(plain[1], plain[1])
    choice = re.fullmatch(r"typing\.Literal\[(.+)\]", kind)
    return f"one of {choice[1]}" if choice else kind


CHECKS = ("check_rgb", "check_thermal", "check_rgbt")
"""Options that name images."""


def add_check_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--check-rgb",
        type=str | None,
        default=None,
        help="compare on these colour images",
    )
    parser.add_argument("--check-thermal", type=str | None, default=None, help="and these thermal images")
    parser.add_argument(
        "--check-rgbt", type=str | None, default=None, help="or these four-channel images, thermal last"
    )
    parser.add_argument("--check-pairs", type=int, default=20, help="at most so many of them")


def check_number(args: Namespace) -> None:
    """Refuse a number of pairs that is none.

    Raises:
        InputError: it is below 1.
    """
    if args.check_pairs < 1:
        raise InputError(f"--check-pairs {args.check_pairs} is below 1")


def find_check_pairs(args: Namespace) -> tuple[InputPair, ...]:
    """The pairs to compare on, spread over all that are there; none if none are given.

    Raises:
        InputError: nothing found, or images without their partners.
    """
    from efnet.inference.inputs import find_pairs

    if all(args[name] is None for name in CHECKS):
        return ()
    try:
        found = find_pairs(args.check_rgb, args.check_thermal, args.check_rgbt)
    except InputError as error:
        # It knows the options as those of efnet predict.
        raise InputError(re.sub(r"--(rgbt|rgb|thermal)\b", r"--check-\1", str(error))) from error
    step = -(-len(found) // args.check_pairs)
    return found[::step]


def check_words(args: Namespace) -> list[str]:
    """The options as they were given, for another command that has them."""
    words = [[f"--{name.replace('_', '-')}", args[name]] for name in CHECKS if args[name] is not None]
    return [word for option in words for word in option] + ["--check-pairs", str(args.check_pairs)]
