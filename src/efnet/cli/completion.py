"""`efnet completion`: commands, options and choices for the Tab key of a shell."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

import shtab
from jsonargparse import ArgumentParser, Namespace

DESCRIPTION = (
    "Write the completion script of a shell to standard output. Bash: efnet completion bash > "
    "~/.local/share/bash-completion/completions/efnet. Zsh: efnet completion zsh > FOLDER/_efnet, a folder "
    "of $fpath. Then open a new shell."
)

GROUPS = {
    "data": "look at, convert or generate data sets",
    "experiment": "the paper's tables, row by row",
}
"""First words of two-word commands."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shell", choices=["bash", "zsh"], help="bash or zsh")


def run(args: Namespace) -> int:
    """Print the script.

    Returns:
        0.
    """
    print(shtab.complete(whole_parser(), args.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """One parser with all commands: what each declares, for completion alone."""
    from efnet.cli.main import COMMANDS

    root = argparse.ArgumentParser(prog="efnet")
    root.add_argument("--version", action="store_true", help="print the version")
    commands = root.add_subparsers()
    groups: dict[str, Any] = {}
    for name, (module, help_text) in COMMANDS.items():
        *group, last = name.split()
        parent = commands
        for word in group:
            if word not in groups:
                groups[word] = commands.add_parser(word, help=GROUPS[word]).add_subparsers()
            parent = groups[word]
        _add_options(parent.add_parser(last, help=help_text), module)
    return root


def _add_options(parser: argparse.ArgumentParser, module: str) -> None:
    declared = ArgumentParser(exit_on_error=False)
    importlib.import_module(f"efnet.cli.{module}").add_arguments(declared)
    for action in declared._actions:
        if "--help" in action.option_strings:
            continue
        if not action.option_strings:
            parser.add_argument(action.dest, nargs=action.nargs, choices=action.choices)
            continue
        if action.nargs == 0:
            parser.add_argument(*action.option_strings, action="store_true", help=_help(action))
            continue
        option = parser.add_argument(
            *action.option_strings, nargs=action.nargs, choices=action.choices, help=_help(action)
        )
        if not action.choices:  # most values are files and folders; the others are not known before
            option.complete = shtab.FILE  # type: ignore[attr-defined]


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%", "%%") if isinstance(action.help, str) else ""
