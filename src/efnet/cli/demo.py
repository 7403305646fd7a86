"""`efnet demo`: generated scenes, a small network trained on them, and a page that shows the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

DESCRIPTION = (
    "Generate street scenes, train efnet_tiny on them, evaluate it, predict, and write report.html. "
    "Takes about five minutes on two cores."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", type=str, default="demo", help="folder of the demo")
    parser.add_argument("--quick", action="store_true", help="a few seconds: shows the way, not the quality")


def run(args: Namespace) -> int:
    """Run the demo.

    Returns:
        0.

    Raises:
        InputError: the folder holds other files, or a command failed.
    """
    from efnet.studies.demo import QUICK, STANDARD, run_demo

    report = run_demo(Path(args.out), QUICK if args.quick else STANDARD, _command, say)
    print(f"\nwrote {report}: open it in a browser")
    return 0


def _command(words: Sequence[str]) -> int:
    from efnet.cli.main import main

    return main(words)


def say(line: str) -> None:
    """Announce a command; flushed, so that it stands before what the command writes to stderr."""
    print(f"\n{line}", flush=True)
