"""Headers of tar files (POSIX.1-1988 ustar, pax, GNU long names), read with suspicion.

The standard library's reader is made for tars that one trusts. This one knows regular files alone, and
refuses a tar that holds anything else: links, devices, sparse files, names that lead out of it.

The index of packed shards: which pairs they hold, where each file lies, and its SHA-256.

`train.json` stands beside `train-000000.tar`, `train-000001.tar` and so on.

Files inside tars, named by paths that lead into them: `shards/train-000000.tar/00001D.rgbt.png`.

Such a path goes where the path of a file goes: into a `Pair`, to every reader of images, into messages.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self, get_args

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_json
from efnet.data.pairs import Condition, Pair, PairSet, ThermalScale

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


FORMAT = "efnet-shards-1"

_TAR_NAME = re.compile(r"([^/\\]+)-(\d{6})\.tar")


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Attributes:
        size: in bytes.
        members: its files by name.
    """

    size: int
    members: Mapping[str, Member]


@dataclass(frozen=True)
class ShardIndex:
    """What an index file holds.

    Attributes:
        pairset: the split; its paths lead into the tars (`efnet.data.archive`).
        shards: tar files by name.
    """

    pairset: PairSet
    shards: Mapping[str, Shard]

    @classmethod
    def read(cls, path: Path) -> ShardIndex:
        """Read an index, as it was when the file was last written.

        Raises:
            InputError: missing, not one of ours, or with entries that make no sense.
        """
        try:
            state = path.stat()
        except OSError as error:
            raise InputError(
                f"{path}: no index of packed shards ({error.strerror}); write both with efnet data pack"
            ) from error
        return _read(path, state.st_mtime_ns, state.st_size)

    @classmethod
    def from_dict(cls, values: Any, folder: Path) -> Self:
        """Read what `to_dict` gave, for tars in `folder`.

        Raises:
            ValueError: values that make no sense (KeyError and TypeError likewise).
        """
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r} is not {FORMAT}")
        shards = {name: _shard(name, held) for name, held in values["tars"].items()}
        scale = values["thermal_scale"]
        pairset = PairSet(
            dataset=str(values["dataset"]),
            root=folder,
            split=str(values["split"]),
            pairs=tuple(_pair(held, shards, folder) for held in values["pairs"]),
            classes=ClassSet.from_dict(values["classes"]),
            protocol=str(values["protocol"]),
            unscored=tuple(int(value) for value in values["unscored"]),
            thermal_scale="auto" if scale == "auto" else _range(scale),
        )
        return cls(pairset, shards)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        pairset, scale = self.pairset, self.pairset.thermal_scale
        return {
            "format": FORMAT,
            "dataset": pairset.dataset,
            "split": pairset.split,
            "classes": pairset.classes.to_dict(),
            "protocol": pairset.protocol,
            "unscored": list(pairset.unscored),
            "thermal_scale": scale if isinstance(scale, str) else list(scale),
            "tars": {
                name: {
                    "size": shard.size,
                    "members": {
                        held: [member.offset, member.size, member.sha256]
                        for held, member in shard.members.items()
                    },
                }
                for name, shard in self.shards.items()
            },
            "pairs": [
                {
                    "name": pair.name,
                    "files": [_place(path) for path in (pair.rgb, pair.thermal, pair.label)],
                    "flip": pair.flip,
                    "condition": pair.condition,
                }
                for pair in pairset.pairs
            ],
        }


def split_of_tar(name: str) -> str | None:
    """What stands before the number in the name of a shard; None: not named like one."""
    match = _TAR_NAME.fullmatch(name)
    return match[1] if match else None


@functools.lru_cache(maxsize=16)
def _read(path: Path, _time: int, _size: int) -> ShardIndex:
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        return ShardIndex.from_dict(values, path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{path}: is not an index of packed shards ({reason}); write it again with efnet data pack"
        ) from error


def _shard(name: str, held: Any) -> Shard:
    if split_of_tar(name) is None:
        raise ValueError(f"{name!r} is not the name of a shard")
    size = _whole(held["size"])
    return Shard(size, {member: _member(member, place, size) for member, place in held["members"].items()})


def _member(name: str, place: Any, length: int) -> Member:
    offset, size, digest = place
    if not isinstance(digest, str) or re.fullmatch("[0-9a-f]{64}", digest) is None:
        raise ValueError(f"{name!r} has no SHA-256")
    if _whole(offset) + _whole(size) > length:
        raise ValueError(f"{name!r} lies beyond the end of its tar")
    return Member(offset, size, digest)


def _pair(held: Any, shards: Mapping[str, Shard], folder: Path) -> Pair:
    rgb, thermal, label = (None if place is None else _path(place, shards, folder) for place in held["files"])
    condition, flip = held["condition"], held["flip"]
    if rgb is None or not isinstance(flip, bool) or condition not in (None, *get_args(Condition)):
        raise ValueError(f"pair {held['name']!r} makes no sense")
    return Pair(str(held["name"]), rgb, thermal, label, flip, condition)


def _path(place: Any, shards: Mapping[str, Shard], folder: Path) -> Path:
    """The path of a member, which has to be one that the index lists."""
    tar, _, member = str(place).partition("/")
    if tar not in shards or member not in shards[tar].members:
        raise ValueError(f"{place!r} is in none of its tars")
    return folder / tar / member


def _place(path: Path | None) -> str | None:
    return None if path is None else f"{path.parent.name}/{path.name}"


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no size or place in a file")
    return value


def _range(scale: Any) -> ThermalScale:
    low, high = (float(value) for value in scale)
    return (low, high)


def tar_of(path: Path) -> Path | None:
    """The tar that a path leads into; None for a path of the ordinary kind."""
    # A file in a tar, or a folder, may have such a name too.
    return next((part for part in path.parents if part.suffix == ".tar" and part.is_file()), None)


def file_bytes(path: Path) -> bytes:
    """The bytes of a file, which may lie in a tar.

    Raises:
        InputError: it lies in a tar and is missing there, cut off, or not what was packed.
        OSError: it does not, and cannot be read.
    """
    tar = tar_of(path)
    return path.read_bytes() if tar is None else _member_bytes(path, tar)


def members_of(tar: Path) -> Mapping[str, Member]:
    """The files in a tar by name: as its index lists them, or without one as its headers do.

    Raises:
        InputError: index or tar is damaged, or they do not belong together.
    """
    try:
        state = tar.stat()
    except OSError as error:
        raise InputError(f"{tar}: cannot be read ({error.strerror}); give a tar file") from error
    split = split_of_tar(tar.name)
    index_file = None if split is None else tar.parent / f"{split}.json"
    if index_file is None or not index_file.is_file():
        return _scanned(tar, state.st_mtime_ns, state.st_size)
    shard = ShardIndex.read(index_file).shards.get(tar.name)
    if shard is None:
        raise InputError(f"{tar}: {index_file.name} beside it does not list it; pack the data set again")
    if shard.size != state.st_size:
        raise InputError(
            f"{tar}: has {state.st_size} bytes, but {shard.size} were packed; copy it again from its source"
        )
    return shard.members


@functools.lru_cache(maxsize=64)
def _scanned(tar: Path, _time: int, _size: int) -> Mapping[str, Member]:
    return scan_tar(tar)


def _member_bytes(path: Path, tar: Path) -> bytes:
    member = members_of(tar).get(path.relative_to(tar).as_posix())
    if member is None:
        raise InputError(f"{path}: there is no such file in the tar; pack the data set again")
    try:
        # Opened for each file: no descriptor to share between threads or to inherit by workers.
        with tar.open("rb") as file:
            # The tar may have been replaced since: its size bounds what is asked for.
            size = min(member.size, os.fstat(file.fileno()).st_size)
            file.seek(member.offset)
            content = file.read(size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    digest = member.sha256
    if len(content) != member.size or (digest and hashlib.sha256(content).hexdigest() != digest):
        raise InputError(f"{path}: is not what was packed (its SHA-256 differs); copy {tar.name} again")
    return content
