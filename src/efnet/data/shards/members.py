"""Files inside tars, named by paths that lead into them: `shards/train-000000.tar/00001D.rgbt.png`.

Such a path goes where the path of a file goes: into a `Pair`, to every reader of images, into messages.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from efnet.data.shards.index import ShardIndex, split_of_tar
from efnet.data.shards.tar import Member, scan_tar
from efnet.errors import InputError


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
