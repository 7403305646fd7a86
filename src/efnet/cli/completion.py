"""`efnet completion`: commands, options and choices for the Tab key of a shell."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import shtab
from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from efnet.cli.main import Command

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
    """Print the script; return 0."""
    print(shtab.complete(whole_parser(), args.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """Return one parser with the options of all commands, for completion alone."""
    from efnet.cli.main import COMMANDS, load_command

    root = argparse.ArgumentParser(prog="efnet")
    root.add_argument("--version", action="store_true", help="print the version")
    commands = root.add_subparsers()
    groups: dict[str, Any] = {}
    for name, (_, help_text) in COMMANDS.items():
        *group, last = name.split()
        parent = commands
        for word in group:
            if word not in groups:
                groups[word] = commands.add_parser(word, help=GROUPS[word]).add_subparsers()
            parent = groups[word]
        _add_options(parent.add_parser(last, help=help_text), load_command(name))
    return root


def _add_options(parser: argparse.ArgumentParser, command: Command) -> None:
    declared = ArgumentParser(exit_on_error=False)
    command.add_arguments(declared)
    for action in declared._actions:
        if "--help" in action.option_strings:
            continue
        if not action.option_strings:
            parser.add_argument(action.dest, nargs=action.nargs, choices=action.choices)
            continue
        text = action.help.replace("%", "%%") if isinstance(action.help, str) else ""
        if action.nargs == 0:
            parser.add_argument(*action.option_strings, action="store_true", help=text)
            continue
        option = parser.add_argument(
            *action.option_strings, nargs=action.nargs, choices=action.choices, help=text
        )
        if not action.choices:  # most values are files or folders, and no others are known
            option.complete = shtab.FILE  # type: ignore[attr-defined]
