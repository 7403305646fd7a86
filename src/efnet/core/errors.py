"""The one exception that means "the input is wrong", as opposed to "the program is wrong"; its words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Self, TypeVar

T = TypeVar("T", bound=str)

_FIELD = re.compile(r"`([a-z_][\w.]*)`")


class InputError(ValueError):
    """Bad input from a user.

    The message names the file and the remedy. Parameters appear in backticks, by their Python names
    ("give a larger `batch_size`"), so the message reads well in a program. The command line turns
    each into its option, prints the message without a traceback and exits with status 2.
    """

    def spelled(self, spell: Callable[[str], str]) -> str:
        """Return the message with every parameter name replaced by `spell(name)`."""
        return _FIELD.sub(lambda match: spell(match[1]), str(self))

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Rename parameters, for a caller whose own parameters have other names."""
        self.args = (self.spelled(lambda name: f"`{names.get(name, name)}`"),)
        return self


class ManyInputsError(InputError):
    """Several faults found in one pass, so that a user can fix them all before the next try.

    `summary` names what was checked; `faults` has one line per fault, with its file and the remedy.
    """

    shown = 20

    def __init__(self, summary: str, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        lines = [f"{summary} ({len(self.faults)} problem{'s' if len(self.faults) != 1 else ''}):"]
        lines += [f"  - {fault}" for fault in self.faults[: self.shown]]
        if len(self.faults) > self.shown:
            lines.append(f"  ... and {len(self.faults) - self.shown} more")
        super().__init__("\n".join(lines))


def one_of(value: str, known: Sequence[T], complaint: str) -> T:
    """Return the value if it is one of `known`, such as the words of a `Literal`.

    If it is not, the message of the `InputError` is the complaint, followed by the known values.
    """
    for word in known:
        if value == word:
            return word
    raise InputError(f"{complaint} {(' or ' if len(known) == 2 else ', ').join(known)}")


def plain_fault(message: str) -> str:
    """Return a message of the option parser in one line: parameters in backticks, types in words."""
    line = re.sub(r"\s+", " ", message).strip()
    line = re.sub(r'^Parser key "([^"]+)": ?', r"`\1`: ", line)
    union = re.search(
        r"Does not validate against any.*? Errors: (.*) Given value type: .*? Given value: ", line
    )
    if union:
        kinds = re.findall(r"Expected an? (.+?)(?:\. Got value: .*?)?(?= - Expected|$)", union[1])
        expected = " or ".join(dict.fromkeys(map(_kind, kinds)))
        line = f"{line[: union.start()]}expected {expected}, got {line[union.end() :]}"
    line = re.sub(
        r"Expected an? (.+?)\. Got value: (.*)$", lambda m: f"expected {_kind(m[1])}, got {m[2]}", line
    )
    required = "the following arguments are required: "
    if line.startswith(required):
        names = (f"`{name}`" for name in line.removeprefix(required).split(", "))
        line = required.replace("arguments", "options") + ", ".join(names)
    return line.replace("unrecognized arguments:", "there is no option")


def _kind(kind: str) -> str:
    """Describe a type of Python in words."""
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "tuple": "a list"}
    words |= {"NoneType": "null", "str": "a text"}
    plain = re.fullmatch(r"<class '(\w+)'>", kind)
    if plain:
        return words.get(plain[1], plain[1])
    choice = re.fullmatch(r"typing\.Literal\[(.+)\]", kind)
    if choice:
        return f"one of {choice[1]}"
    return f"a {kind}" if kind.startswith("tuple with") else kind
