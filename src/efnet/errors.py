"""The one exception that means "the input is wrong", as opposed to "the program is wrong"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T", bound=str)


class InputError(ValueError):
    """Bad input from a user.

    The message names the file (or option) and the remedy. The command line prints it without a
    traceback and exits with status 2.
    """


class ManyInputsError(InputError):
    """Several faults found in one pass, so that a user mends them all before the next try.

    Args:
        summary: one line that says what was looked at.
        faults: one line per fault, each naming its file and the remedy.
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
    """The value as one of those known, such as the words of a `Literal`.

    Args:
        value: what the user gave.
        known: what there is.
        complaint: begins the message; what there is follows it.

    Raises:
        InputError: it is none of them.
    """
    for word in known:
        if value == word:
            return word
    raise InputError(f"{complaint} {(' or ' if len(known) == 2 else ', ').join(known)}")
