"""The command `efnet`: find a subcommand, parse its options, and turn errors into messages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from efnet import __version__
from efnet.cli.options import option_name, take_values
from efnet.core.cpu_tuning import tune_process
from efnet.core.errors import InputError, plain_fault

COMMANDS = {
    "train": ("train", "train a network"),
    "lr-find": ("lr_find", "suggest a learning rate from a short run"),
    "tune": ("tune", "search for better options with Optuna"),
    "evaluate": ("evaluate", "score a checkpoint on a labelled split"),
    "predict": ("predict", "segment images without labels"),
    "pseudo-label": ("pseudo_label", "write a network's sure classes as labels, to train on"),
    "explain": ("explain", "draw what a network does with a pair"),
    "temperature": ("temperature", "fit the temperature of a checkpoint's probabilities"),
    "calibrate": ("calibrate", "find how thermal images map onto colour images"),
    "serve": ("serve", "answer over HTTP, with a page to try a network"),
    "export": ("export", "write a checkpoint as ONNX, OpenVINO or a torch program"),
    "score": ("score", "score label maps that any program wrote"),
    "compare": ("compare", "compare networks on the same images, with intervals and tests"),
    "data check": ("data.Check", "look for faults in a data set and count what it holds"),
    "data view": ("data.View", "write one page of a data set: pictures, classes, light, duplicates"),
    "data info": ("data.Info", "show home page, licence and layout of a public data set"),
    "data convert": ("data.Convert", "bring a data set into another layout"),
    "data issues": ("label_issues", "rank pairs by how much a network doubts their labels"),
    "data pack": ("data.Pack", "pack a data set into tar files"),
    "data synthesize": ("data.Synthesize", "generate RGB-thermal street scenes"),
    "convert-weights": ("convert_weights", "make a checkpoint from a file of a paper's authors"),
    "models": ("models", "list the networks with their sizes"),
    "card": ("card.Card", "write the model card of a run"),
    "push": ("card.Push", "publish a run with its model card on the Hugging Face hub"),
    "experiment run": ("experiment.Run", "train and evaluate the rows of one of the paper's tables"),
    "experiment report": ("experiment.Report", "write a table from runs, beside the paper's figures"),
    "experiment list": ("experiment.List", "list the paper's tables and their configurations"),
    "benchmark": ("benchmark", "measure speed and memory on this machine"),
    "doctor": ("doctor", "show versions, devices and settings, and what to fix"),
    "completion": ("completion", "write the completion script of a shell"),
    "demo": ("demo", "train, evaluate and predict on generated scenes, with a report"),
}
"""Command: its module (and its class, where commands share a module), and a line of help."""


IMPORT = "--import"
"""Option of every command: a module or .py file that registers networks, imported first."""

PALETTE_KEY = "thermal_palette"
"""Key of dataset.yaml that is an option of some commands only."""


class Command(Protocol):
    """The functions of a command, in a module or a class.

    Optional: `DESCRIPTION`, and `parse`, which replaces `ArgumentParser.parse_args`.
    """

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""

    @staticmethod
    def run(args: Namespace) -> int:
        """Run the command; return the exit status."""


def load_command(name: str) -> Command:
    """Import a command."""
    module, _, group = COMMANDS[name][0].partition(".")
    loaded = importlib.import_module(f"efnet.cli.{module}")
    return cast(Command, getattr(loaded, group) if group else loaded)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the words after `efnet`, by default those of this process; return the exit status.

    0: done, 1: a check found problems, 2: wrong input, 130: interrupted.
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
        sources, rest = take_values(rest, IMPORT)
        if sources:
            from efnet.models.custom import import_models

            for source in sources:
                import_models(source)
        return _run(name, rest)
    except InputError as error:
        print(f"efnet: error: {error.spelled(option_name)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"efnet: {interrupt}" if str(interrupt) else "efnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has read enough
        sys.stderr.close()
        return 0
    except (OSError, MemoryError) as error:
        print(f"efnet: error: {_describe(error)}", file=sys.stderr)
        return 2


def _split_command(words: list[str]) -> tuple[str, list[str]]:
    """Return the command that the first one or two words name, and the words after it."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return name, words[count:]
    group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if group:
        raise InputError(f"'{words[0]}' is followed by {', '.join(name.split()[1] for name in group)}")
    raise InputError(f"no command '{words[0]}'; there are {', '.join(COMMANDS)} (efnet --help)")


def _run(name: str, words: list[str]) -> int:
    command, help_text = load_command(name), COMMANDS[name][1]
    parser = ArgumentParser(
        prog=f"efnet {name}",
        usage=f"efnet {name} [OPTIONS]",
        description=getattr(command, "DESCRIPTION", f"{help_text[0].upper()}{help_text[1:]}."),
        exit_on_error=False,
    )
    command.add_arguments(parser)
    note = f"{IMPORT} MODULE, before the others, imports a module or .py file that registers networks."
    parser.epilog = f"{parser.epilog}. {note}" if parser.epilog else note
    parse = getattr(command, "parse", ArgumentParser.parse_args)
    try:
        args = parse(parser, words)
    except ArgumentError as error:
        raise InputError(f"{plain_fault(str(error))} (efnet {name} --help)") from error
    try:
        status = command.run(args)
    except InputError as error:
        if PALETTE_KEY not in args:  # a command without this option takes it from the data set alone
            error.args = (str(error).replace(f"`{PALETTE_KEY}`", f"'{PALETTE_KEY}' (dataset.yaml)"),)
        raise
    if "efnet.core.distributed" in sys.modules:  # only commands that may run in several processes load it
        sys.modules["efnet.core.distributed"].leave(status)
    return status


def _overview() -> str:
    """Return the text of `efnet --help`."""
    width = max(len(name) for name in COMMANDS)
    lines = [
        f"efnet {__version__}: RGB-thermal semantic segmentation (arXiv 2501.10958)",
        "",
        "usage: efnet COMMAND [OPTIONS]     (efnet COMMAND --help for the options)",
        f"       efnet COMMAND {IMPORT} MODULE ...   (with networks that a module or .py file registers)",
        "",
    ]
    return "\n".join([*lines, *(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())])


def _describe(error: OSError | MemoryError) -> str:
    """Describe an unexpected error of files or memory, with a remedy."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for this; give smaller sizes or fewer at once"
    where = f"{error.filename}: " if isinstance(error.filename, str) else ""
    return f"{where}{error.strerror or error}; check the path, its permissions and the space left"
