"""The options that name the user's own pairs, on which an exported file is compared with its network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from efnet.errors import InputError

if TYPE_CHECKING:
    from efnet.prediction.inputs import InputPair

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
    from efnet.prediction.inputs import find_pairs

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
