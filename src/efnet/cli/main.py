"""The command `efnet`: finds a subcommand, parses its options, and turns faults into messages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from efnet import __version__
from efnet.cli.options import option_name, plain_message
from efnet.core.cpu_tuning import tune_process
from efnet.core.errors import InputError

COMMANDS = {
    "train": ("train", "train a network"),
    "evaluate": ("evaluate", "score a checkpoint on a labelled split"),
    "predict": ("predict", "segment images without labels"),
    "explain": ("explain", "draw what a network does with a pair"),
    "calibrate": ("calibrate", "find how thermal images map onto colour images"),
    "serve": ("serve", "answer over HTTP, with a page to try a network"),
    "export": ("export", "write a checkpoint as ONNX, OpenVINO or a torch program"),
    "score": ("score", "score label maps that any program wrote"),
    "data check": ("data_check", "look for faults in a data set and count what it holds"),
    "data convert": ("data_convert", "bring a data set into another layout"),
    "data pack": ("data_pack", "pack a data set into tar files"),
    "data synthesize": ("data_synthesize", "generate RGB-thermal street scenes"),
    "models": ("models", "list the networks with their sizes"),
    "experiment run": ("experiment_run", "train and evaluate the rows of one of the paper's tables"),
    "experiment report": ("experiment_report", "write a table from runs, beside the paper's figures"),
    "experiment list": ("experiment_list", "list the paper's tables and their configurations"),
    "benchmark": ("benchmark", "measure speed and memory on this machine"),
    "doctor": ("doctor", "show versions, devices and settings, and what to mend"),
    "completion": ("completion", "write the completion script of a shell"),
    "demo": ("demo", "train, evaluate and predict on generated scenes, with a report"),
}
"""Command: module in this folder, and one line of help."""


class Command(Protocol):
    """What the module of a command provides."""

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""

    @staticmethod
    def run(args: Namespace) -> int:
        """Do it; returns the exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: words after `efnet`; None: those of this process.

    Returns:
        the exit status: 0 done, 1 a check that found problems, 2 wrong input, 130 interrupted.
    """
    tune_process()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        print(f"efnet {__version__}")
        return 0
    try:
        name, rest = _split_command(words)
        return _run(name, rest)
    except InputError as error:
        print(f"efnet: error: {error.spelled(option_name)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"efnet: {interrupt}" if str(interrupt) else "efnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return _closed_pipe()
    except (OSError, MemoryError) as error:
        print(f"efnet: error: {_of_the_machine(error)}", file=sys.stderr)
        return 2


def _split_command(words: list[str]) -> tuple[str, list[str]]:
    """The command that the first one or two words name, and the words after it."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return name, words[count:]
    group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if group:
        raise InputError(f"'{words[0]}' is followed by {', '.join(name.split()[1] for name in group)}")
    raise InputError(f"no command '{words[0]}'; there are {', '.join(COMMANDS)} (efnet --help)")


def _run(name: str, words: list[str]) -> int:
    module, help_text = COMMANDS[name]
    command = cast(Command, importlib.import_module(f"efnet.cli.{module}"))
    description = getattr(command, "DESCRIPTION", f"{help_text[0].upper()}{help_text[1:]}.")
    parser = ArgumentParser(
        prog=f"efnet {name}",
        usage=f"efnet {name} [OPTIONS]",
        description=description,
        exit_on_error=False,
    )
    command.add_arguments(parser)
    prepare = getattr(command, "prepare", None)
    if prepare is not None:
        words = prepare(words)
    try:
        args = parser.parse_args(words)
    except ArgumentError as error:
        raise InputError(f"{plain_message(str(error))} (efnet {name} --help)") from error
    status = command.run(args)
    if "efnet.core.distributed" in sys.modules:  # only commands that may run in several processes load it
        sys.modules["efnet.core.distributed"].leave(status)
    return status


def _overview() -> str:
    """The text of `efnet --help`."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {help_text}" for name, (_, help_text) in COMMANDS.items()]
    return "\n".join(
        [
            f"efnet {__version__}: RGB-thermal semantic segmentation (arXiv 2501.10958)",
            "",
            "usage: efnet COMMAND [OPTIONS]     (efnet COMMAND --help for the options)",
            "",
            *lines,
        ]
    )


def _of_the_machine(error: OSError | MemoryError) -> str:
    """A fault of files or memory that no reader or writer saw coming."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for this; give smaller sizes or fewer at once"
    where = f"{error.filename}: " if isinstance(error.filename, str) else ""
    return f"{where}{error.strerror or error}; check the path, its permissions and the space left"


def _closed_pipe() -> int:
    """Somebody like `head` has read enough."""
    sys.stderr.close()
    return 0
