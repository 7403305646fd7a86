"""One writer at a time for a journal."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from efnet.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(file: IO[str], path: Path) -> None:
    """Keep a file for this process; a process that ends, however it ends, lets go of it.

    Does nothing where the system or the file system knows no locks.

    Raises:
        InputError: another process has it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise in_use(path) from error
    except OSError:  # some network file systems
        return


def in_use(path: Path) -> InputError:
    """The error for a journal that another process writes."""
    return InputError(
        f"{path}: another efnet writes to this folder at this moment; wait for its end, or let several "
        "share the work: efnet predict --shard 1/2 and --shard 2/2"
    )
