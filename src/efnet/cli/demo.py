"""`efnet demo`: shipped weights on pairs, a small network trained on generated scenes, and a page of both."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import add_options

DESCRIPTION = (
    "Segment your own pairs, if given, and generated street scenes with the weights that come with efnet; "
    "then train efnet_tiny on the scenes, evaluate it, predict, and write report.html. "
    "Takes about five minutes on two cores."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        out=("demo", "folder of the demo"),
        rgb="your own colour images: file, folder or glob",
        thermal="their thermal images, likewise",
        quick=(False, "a few seconds: shows the way, not the quality"),
    )


def run(args: Namespace) -> int:
    """Run the demo; return 0."""
    from efnet.cli.main import main
    from efnet.studies.demo import QUICK, STANDARD, run_demo

    def say(line: str) -> None:
        """Announce a command; flushed, so that it precedes what the command writes to stderr."""
        print(f"\n{line}", flush=True)

    report = run_demo(Path(args.out), QUICK if args.quick else STANDARD, main, say, args.rgb, args.thermal)
    print(f"\nwrote {report}: open it in a browser")
    return 0
