"""Files written whole or not at all: to a temporary name beside the target, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from efnet.core.errors import InputError

STEM_KEPT = 80  # characters of a stem that its temporary file carries

_TEMPORARY = re.compile(r"\.(.*)-[0-9a-f]{12}(?:\.[^.]*)?", re.DOTALL)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success rename it to `path`, else delete it.

    The temporary name keeps the suffix, because writers choose their format by it.

    Raises:
        InputError: the folder cannot be created or written, or the disk is full.
    """
    path = Path(path)
    # Not `tempfile`: its files are private to the user, whatever the umask says.
    temporary = path.parent / f".{path.stem[:STEM_KEPT]}-{secrets.token_hex(6)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        with open(temporary, "r+b") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        if os.name == "posix":
            with contextlib.suppress(OSError):  # some network file systems refuse
                # The new name has to survive a power cut.
                descriptor = os.open(path.parent, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or choose another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def leftovers(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield temporary files in `folder`, in use or left by a killed process: stem kept, and path."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match:
                yield match[1], folder / entry.name


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_image(path: str | os.PathLike[str], image: Image.Image) -> None:
    """Write `image` to `path` in the format of its suffix, whole or not at all."""
    with replacing(path) as temporary:
        image.save(temporary)
