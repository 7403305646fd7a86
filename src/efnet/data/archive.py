"""Tar files of images: their headers, the index of packed shards beside them, and the files inside.

A path that leads into a tar, `shards/train-000000.tar/00001D.rgbt.png`, stands wherever the path of a file
does: in a `Pair`, in every reader of images, in messages. Nothing is ever extracted.

The index `train.json` beside `train-000000.tar` and so on lists pairs, and each file's offset and SHA-256.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self, get_args

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_json
from efnet.data.pairs import Condition, Pair, PairSet, ThermalScale

_LONGEST_HEADER = 1 << 16  # most bytes that the headers of one file may have; a name has a few hundred

_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_RECORD = re.compile(rb"\d+ (size=\d+|(?!size=)[^=\n\0]+=.*)\n", re.DOTALL)
"""A record of a pax header. `tarfile` would take a size that is not a number for 0."""


@dataclass(frozen=True)
class Member:
    """Where a file lies in a tar."""

    offset: int  # of its first byte
    size: int  # in bytes
    sha256: str | None = None  # of its bytes, in hexadecimal; None: not known


def scan_tar(path: Path) -> dict[str, Member]:
    """List the files in a tar by name, from its headers alone; nothing is extracted.

    Raises:
        InputError: it cannot be read, is cut off or damaged, or holds anything but regular files and folders
            with names that stay inside it.
    """
    members: dict[str, Member] = {}
    try:
        with _Headers(path.open("rb", buffering=0)) as file:
            length = os.fstat(file.fileno()).st_size
            if length < tarfile.BLOCKSIZE:
                raise _refused(path, "ends without an end mark, it was cut off")
            with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
                end = 0  # of the file before
                while (info := tar.next()) is not None:
                    file.left = _LONGEST_HEADER
                    file.seek(end)
                    _check_extended(file.read(info.offset_data - end), path)
                    end = tar.offset
                    name = _checked_name(info.name, path)
                    kinds = {tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link"}
                    if info.issparse() or any(key.startswith("GNU.sparse") for key in info.pax_headers):
                        raise _refused(path, "holds a sparse file")
                    if not (info.isreg() or info.isdir()):
                        kind = kinds.get(info.type, f"an entry of kind {info.type!r}")
                        raise _refused(path, f"holds {kind}")
                    if info.size < 0:
                        raise _refused(path, "is damaged (a size is not a number)")
                    if info.offset_data + info.size > length:
                        raise _refused(path, "is cut off in the middle of a file")
                    if name in members:
                        raise _refused(path, f"holds {name!r} twice")
                    if not info.isdir():
                        members[name] = Member(info.offset_data, info.size)
                    file.left = _LONGEST_HEADER
                # `tarfile` takes a damaged header for the end of the archive.
                file.seek(tar.offset)
                mark = file.read(tarfile.BLOCKSIZE)
    except _HeaderSizeError:
        raise _refused(path, f"has a header of more than {_LONGEST_HEADER} bytes") from None
    except InputError:
        raise
    # `tarfile` raises these on headers that make no sense; a chain of long names is a RecursionError.
    except (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError) as error:
        raise _refused(path, f"is not a tar file, or is damaged ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a tar file") from error
    if len(mark) < tarfile.BLOCKSIZE:
        raise _refused(path, "ends without an end mark, it was cut off")
    if any(mark):
        raise _refused(path, "is damaged (a header or its checksum is wrong)")
    return members


class _HeaderSizeError(Exception):
    """`tarfile` asks for more than the headers of one file can have."""


class _Headers(io.BufferedReader):
    """A file read by `tarfile`, which would load headers of any size into memory."""

    left = _LONGEST_HEADER

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= self.left:
            raise _HeaderSizeError
        self.left -= size
        return super().read(size)


def _check_extended(headers: bytes, path: Path) -> None:
    """Refuse the headers of one file if a pax header or GNU long name among them is damaged.

    `tarfile` skips the rest of a pax header after a record that makes no sense, and reads a long name up to
    the first zero byte. The file would get the short name of the next header, or a part of its name.
    """
    names, place, block = 0, 0, tarfile.BLOCKSIZE
    while True:
        header = tarfile.TarInfo.frombuf(headers[place : place + block], "utf-8", "surrogateescape")
        if header.type not in _PAX + _LONG:
            return
        start, place = place + block, place + block + -(-header.size // block) * block
        content, padding = headers[start : start + header.size], headers[start + header.size : place]
        is_long = header.type in _LONG
        is_valid = content.find(b"\0") == header.size - 1 > 0 if is_long else _is_pax(content)
        if not is_valid or any(padding):
            kind = "GNU long name" if is_long else "pax header"
            raise _refused(path, f"is damaged (a {kind} makes no sense)")
        names += header.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK)
        if names > 1:
            raise _refused(path, "is damaged (two headers name the same file)")


def _is_pax(content: bytes) -> bool:
    """Whether a pax header consists of whole lines `LENGTH KEY=VALUE`, each of its length in bytes."""
    while content:
        length = int((re.match(rb"\d{1,9}", content) or [b"0"])[0])
        record, content = content[:length], content[length:]
        if len(record) != length or _RECORD.fullmatch(record) is None:
            return False
    return True


def _checked_name(name: str, path: Path) -> str:
    """Return the name without `./` in front, if it stays inside the tar."""
    plain = PurePosixPath(name)
    bad = not name or "\\" in name or any(ord(letter) < 32 for letter in name)
    if bad or plain.is_absolute() or ".." in plain.parts or ":" in name[:2]:
        raise _refused(path, f"holds a file named {name[:80]!r}, which leads out of it or is not a name")
    if not name.isascii():
        name.encode("utf-8")  # a name in another encoding is a UnicodeEncodeError
    return plain.as_posix()


def _refused(path: Path, what: str) -> InputError:
    return InputError(f"{path}: {what}; copy it again from its source, or pack the images anew")


FORMAT = "efnet-shards-1"

_TAR_NAME = re.compile(r"([^/\\]+)-(\d{6})\.tar")


@dataclass(frozen=True)
class Shard:
    """One tar file: its size in bytes and its files by name."""

    size: int
    members: Mapping[str, Member]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        members = {name: [held.offset, held.size, held.sha256] for name, held in self.members.items()}
        return {"size": self.size, "members": members}


@dataclass(frozen=True)
class ShardIndex:
    """The content of an index file: a split whose paths lead into tars, and the tars by name."""

    pairset: PairSet
    shards: Mapping[str, Shard]

    @classmethod
    def read(cls, path: Path) -> ShardIndex:
        """Read an index; an `InputError` if it is missing, not an index, or has invalid entries."""
        try:
            state = path.stat()
        except OSError as error:
            reason = f"no index of packed shards ({error.strerror})"
            raise InputError(f"{path}: {reason}; write both with efnet data pack") from error
        return _read(path, state.st_mtime_ns, state.st_size)

    @classmethod
    def from_dict(cls, values: Any, folder: Path) -> Self:
        """Read the values of `to_dict` for tars in `folder`; invalid ones are a Value-, Key- or TypeError."""
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r} is not {FORMAT}")
        shards = {name: _shard(name, held) for name, held in values["tars"].items()}
        scale: ThermalScale = values["thermal_scale"]
        if not isinstance(scale, str):
            low, high = scale
            scale = (float(low), float(high))
        dataset, split, protocol = (str(values[key]) for key in ("dataset", "split", "protocol"))
        pairs = tuple(_pair(held, shards, folder) for held in values["pairs"])
        classes, unscored = ClassSet.from_dict(values["classes"]), tuple(map(int, values["unscored"]))
        return cls(PairSet(dataset, folder, split, pairs, classes, protocol, unscored, scale), shards)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        pairset, scale = self.pairset, self.pairset.thermal_scale
        return {
            "format": FORMAT,
            "dataset": pairset.dataset,
            "split": pairset.split,
            "classes": pairset.classes.to_dict() | ({"invented": True} if pairset.classes.invented else {}),
            "protocol": pairset.protocol,
            "unscored": list(pairset.unscored),
            "thermal_scale": scale if isinstance(scale, str) else list(scale),
            "tars": {name: shard.to_dict() for name, shard in self.shards.items()},
            "pairs": [_pair_to_dict(pair) for pair in pairset.pairs],
        }


def _pair_to_dict(pair: Pair) -> dict[str, Any]:
    paths = (pair.rgb, pair.thermal, pair.label)
    files = [path and f"{path.parent.name}/{path.name}" for path in paths]
    return {"name": pair.name, "files": files, "flip": pair.flip, "condition": pair.condition}


def split_of_tar(name: str) -> str | None:
    """Return the split in the name of a shard; None: not the name of one."""
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
        fault = f"is not an index of packed shards ({reason})"
        raise InputError(f"{path}: {fault}; write it again with efnet data pack") from error


def _shard(tar: str, held: Any) -> Shard:
    if split_of_tar(tar) is None:
        raise ValueError(f"{tar!r} is not the name of a shard")
    length, members = _whole(held["size"]), {}
    for name, (offset, size, digest) in held["members"].items():
        if not isinstance(digest, str) or re.fullmatch("[0-9a-f]{64}", digest) is None:
            raise ValueError(f"{name!r} has no SHA-256")
        if _whole(offset) + _whole(size) > length:
            raise ValueError(f"{name!r} lies beyond the end of its tar")
        members[name] = Member(offset, size, digest)
    return Shard(length, members)


def _pair(held: Any, shards: Mapping[str, Shard], folder: Path) -> Pair:
    paths: list[Path | None] = []
    for place in held["files"]:
        tar, _, member = str(place).partition("/")
        if place is not None and (tar not in shards or member not in shards[tar].members):
            raise ValueError(f"{place!r} is in none of its tars")
        paths.append(None if place is None else folder / tar / member)
    rgb, thermal, label = paths
    condition, flip = held["condition"], held["flip"]
    if rgb is None or not isinstance(flip, bool) or condition not in (None, *get_args(Condition)):
        raise ValueError(f"pair {held['name']!r} makes no sense")
    return Pair(str(held["name"]), rgb, thermal, label, flip, condition)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a size or place in a file")
    return value


def tar_of(path: Path) -> Path | None:
    """Return the tar that a path leads into; None for an ordinary path."""
    # A folder may be named like a tar.
    return next((part for part in path.parents if part.suffix == ".tar" and part.is_file()), None)


def file_of(path: Path) -> Path:
    """Return the file of which a path means a page or channels (`stack.tif/2`); else the path itself."""
    # Not pathlib's `is_file`: it raises for a name that is too long.
    return next((part for part in (path, *path.parents[:2]) if os.path.isfile(part)), path)  # noqa: PTH113


def file_bytes(path: Path) -> bytes:
    """Return the bytes of a file, which may lie in a tar; all of it, where a part is meant.

    Raises:
        InputError: the tar lacks it, or its bytes are not those that were packed.
        OSError: it is an ordinary file that cannot be read.
    """
    tar = tar_of(path)
    if tar is None:
        return file_of(path).read_bytes()
    member = members_of(tar).get(path.relative_to(tar).as_posix())
    if member is None:
        raise InputError(f"{path}: there is no such file in the tar; pack the data set again")
    try:
        # Opened for each file: threads and workers share no descriptor.
        with tar.open("rb") as file:
            # The tar may have been replaced since: do not ask for more than it has.
            size = min(member.size, os.fstat(file.fileno()).st_size)
            file.seek(member.offset)
            content = file.read(size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    digest = member.sha256
    if len(content) != member.size or (digest and hashlib.sha256(content).hexdigest() != digest):
        raise InputError(f"{path}: is not what was packed (its SHA-256 differs); copy {tar.name} again")
    return content


def members_of(tar: Path) -> Mapping[str, Member]:
    """Return a tar's files by name, from its index or its headers; an `InputError` if these are damaged."""
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
        sizes = f"has {state.st_size} bytes, but {shard.size} were packed"
        raise InputError(f"{tar}: {sizes}; copy it again from its source")
    return shard.members


@functools.lru_cache(maxsize=64)
def _scanned(tar: Path, _time: int, _size: int) -> Mapping[str, Member]:
    return scan_tar(tar)
