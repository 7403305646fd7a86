"""Headers of tar files (POSIX.1-1988 ustar, pax, GNU long names), read with suspicion.

The standard library's reader is made for tars that one trusts. This one knows regular files alone, and
refuses a tar that holds anything else: links, devices, sparse files, names that lead out of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from efnet.errors import InputError

BLOCK = 512

_LONGEST_HEADER = 1 << 16
"""Bytes of a long name or of pax records; a name has a few hundred."""

_REGULAR, _FOLDER, _PAX, _PAX_GLOBAL, _LONG_NAME = (b"0", b"\0", b"7"), b"5", b"x", b"g", b"L"
_REFUSED = {b"1": "a hard link", b"2": "a symbolic link", b"K": "a link", b"S": "a sparse file"}
_PAX_RECORD = re.compile(rb"(\d{1,9}) ([^=]+)=")


@dataclass(frozen=True)
class Member:
    """Where a file lies in a tar.

    Attributes:
        offset: of its first byte.
        size: in bytes.
        sha256: of its bytes, in hexadecimal; None: not known.
    """

    offset: int
    size: int
    sha256: str | None = None


def scan_tar(path: Path) -> dict[str, Member]:
    """The files in a tar, by name, from its headers alone.

    Raises:
        InputError: it cannot be read, is truncated or damaged, or holds what a tar of images does not.
    """
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            members: dict[str, Member] = {}
            for name, member in _members(file, length, path):
                if name in members:
                    raise _refused(path, f"holds {name!r} twice")
                members[name] = member
            return members
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a tar file") from error


def _members(file: BinaryIO, length: int, path: Path) -> Iterator[tuple[str, Member]]:
    """Regular files one after the other; ends at the end mark."""
    long_name: str | None = None
    size_by_pax: int | None = None
    while True:
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise _refused(path, "ends without an end mark, it was cut off")
        if header == bytes(BLOCK):
            return
        _check_sum(header, path)
        kind = header[156:157]
        size = _number(header[124:136], path) if size_by_pax is None else size_by_pax
        start = file.tell()
        if start + size > length:
            raise _refused(path, "is cut off in the middle of a file")
        if kind in (_PAX, _LONG_NAME):
            if size > _LONGEST_HEADER:
                raise _refused(path, f"has a header of {size} bytes")
            content = file.read(size)
            if kind == _LONG_NAME:
                long_name = _text(content.rstrip(b"\0"), path)
            else:
                name, size_by_pax = _pax(content, path)
                long_name = name or long_name
        elif kind in (*_REGULAR, _FOLDER):
            name = _checked_name(_short_name(header, path) if long_name is None else long_name, path)
            long_name = size_by_pax = None
            if kind != _FOLDER:
                yield name, Member(start, size)
        elif kind != _PAX_GLOBAL:
            what = _REFUSED.get(kind, f"an entry of kind {kind!r}")
            raise _refused(path, f"holds {what}")
        file.seek(start + -(-size // BLOCK) * BLOCK)


def _check_sum(header: bytes, path: Path) -> None:
    """The sum of a header's bytes stands in it, written when its own place held blanks."""
    expected = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    try:
        held = int(header[148:156].strip(b" \0") or b"0", 8)
    except ValueError:
        held = -1
    if held != expected:
        raise _refused(path, "is no tar file, or damaged (a header's checksum is wrong)")


def _number(field: bytes, path: Path) -> int:
    """An octal number, or a binary one where the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        value = int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        value = -1
    if value < 0:
        raise _refused(path, "is damaged (a size is no number)")
    return value


def _short_name(header: bytes, path: Path) -> str:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    posix = header[257:263] == b"ustar\0"  # GNU's own format keeps other things there
    return _text(prefix + b"/" + name if posix and prefix else name, path)


def _pax(content: bytes, path: Path) -> tuple[str | None, int | None]:
    """Name and size from pax records, `length key=value` each."""
    name, size, place = None, None, 0
    while place < len(content):
        match = _PAX_RECORD.match(content, place)
        end = place + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise _refused(path, "is damaged (a pax header is malformed)")
        key, value = match[2], content[match.end() : end - 1]
        if key.startswith(b"GNU.sparse"):
            raise _refused(path, f"holds {_REFUSED[b'S']}")
        if key == b"path":
            name = _text(value, path)
        elif key == b"size":
            if not re.fullmatch(rb"\d{1,18}", value):
                raise _refused(path, "is damaged (a size is no number)")
            size = int(value)
        place = end
    return name, size


def _text(name: bytes, path: Path) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(path, f"holds a name that is not UTF-8 ({name[:40]!r})") from error


def _checked_name(name: str, path: Path) -> str:
    """The name without `./` in front, if it stays inside the tar."""
    plain = PurePosixPath(name)
    bad = not name or "\\" in name or any(ord(letter) < 32 for letter in name)
    if bad or plain.is_absolute() or ".." in plain.parts or ":" in name[:2]:
        raise _refused(path, f"holds a file named {name[:80]!r}, which leads out of it or is no name")
    return plain.as_posix()


def _refused(path: Path, what: str) -> InputError:
    return InputError(f"{path}: {what}; copy it again from its source, or pack the images anew")
