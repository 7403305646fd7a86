"""Packing a split into tar files that WebDataset reads too, with an index for random access.

A pair `00001D` becomes `00001D.rgb.png 00001D.thermal.png 00001D.label.png`, or `00001D.rgbt.png` for a
four-channel file. Files are copied byte for byte: the pixels and the fingerprint stay what they were.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from efnet.core.errors import InputError
from efnet.core.files import replacing, write_text
from efnet.data.archive import Shard, ShardIndex, file_bytes, file_of, scan_tar, split_of_tar, tar_of
from efnet.data.pairs import FLIP_SUFFIX, Pair, PairSet
from efnet.data.verify import Progress, verify

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Packed:
    """Result of `pack`: the index file, the number of tars and of files in them, all tars' size in bytes."""

    index: Path
    tars: int
    files: int
    size: int


@dataclass
class _Tar:
    """A shard that is being filled; `contents` stay in memory until it is written."""

    name: str
    contents: dict[str, bytes] = field(default_factory=dict)


def pack(
    pairset: PairSet,
    out: Path,
    *,
    shard_size: int = 256 * MEGABYTE,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Packed:
    """Pack a split; files that pairs share (`_flip` copies) are packed once.

    Args:
        pairset: the split.
        out: folder to write; it may hold other splits.
        shard_size: bytes after which a new tar begins.
        overwrite: replace shards of this split.
        progress: called with the pairs done and their total.

    Raises:
        InputError: the split is there already, a name cannot be packed, or the folder cannot be written.
        ManyInputsError: files that are missing or do not belong together.
    """
    verify(pairset, require_labels=False, headers_only=True)
    split = pairset.split
    if split_of_tar(f"{split}-000000.tar") is None or split.startswith("."):
        raise InputError(f"split {split!r} cannot be part of a file name; give it another name")
    _make_room(out, split, overwrite)
    places: dict[Path, str] = {}
    shards: dict[str, Shard] = {}
    try:
        for tar in _filled(pairset.pairs, split, shard_size, places, progress):
            shards[tar.name] = _write(out / tar.name, tar)
        at: dict[Path | None, Path] = {path: out / place for path, place in places.items()}
        moved = ((pair, at[pair.rgb], at.get(pair.thermal), at.get(pair.label)) for pair in pairset.pairs)
        pairs = tuple(replace(pair, rgb=rgb, thermal=heat, label=label) for pair, rgb, heat, label in moved)
        index = ShardIndex(replace(pairset, pairs=pairs), shards)
        write_text(out / f"{split}.json", json.dumps(index.to_dict(), ensure_ascii=False) + "\n")
    except BaseException:
        for name in shards:  # tars without an index are of no use
            with contextlib.suppress(OSError):
                (out / name).unlink()
        raise
    files = sum(len(shard.members) for shard in shards.values())
    size = sum(shard.size for shard in shards.values())
    return Packed(out / f"{split}.json", len(shards), files, size)


def _filled(
    pairs: Sequence[Pair], split: str, shard_size: int, places: dict[Path, str], progress: Progress | None
) -> Iterator[_Tar]:
    """Yield full tars; `places` records the tar and name of each file."""
    number = 0
    tar = _Tar(f"{split}-{number:06}.tar")
    for count, pair in enumerate(pairs, 1):
        for member, path in _files(pair).items():
            if path not in places:
                places[path] = f"{tar.name}/{member}"
                tar.contents[member] = file_bytes(path)
        if sum(map(len, tar.contents.values())) >= shard_size:
            yield tar
            number += 1
            tar = _Tar(f"{split}-{number:06}.tar")
        if progress is not None:
            progress(count, len(pairs))
    if tar.contents:
        yield tar


def _files(pair: Pair) -> dict[str, Path]:
    """A pair's files by their names in the tar."""
    name = pair.name.removesuffix(FLIP_SUFFIX) if pair.flip else pair.name
    # WebDataset takes the part before the first dot for the name of the sample.
    key = urllib.parse.quote(name, safe="").replace(".", "%2E")
    part = next(
        (path for path in (pair.rgb, pair.thermal) if path and not tar_of(path) and file_of(path) != path),
        None,
    )
    if part is not None:
        fault = "means a page or channels of a file, and shards hold whole files"
        raise InputError(f"{part}: {fault}; write files of their own with efnet data convert")
    kinds = {"rgbt": pair.rgb} if pair.thermal is None else {"rgb": pair.rgb, "thermal": pair.thermal}
    if pair.label is not None:
        kinds["label"] = pair.label
    return {f"{key}.{kind}{path.suffix.lower()}": path for kind, path in kinds.items()}


def _write(path: Path, content: _Tar) -> Shard:
    """Write a tar; its bytes depend on the files alone, not on user or time."""
    with replacing(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for name, held in content.contents.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(held), 0o644
                tar.addfile(info, io.BytesIO(held))
        places = scan_tar(temporary)
        size = temporary.stat().st_size
    digests = {name: hashlib.sha256(held).hexdigest() for name, held in content.contents.items()}
    return Shard(size, {name: replace(places[name], sha256=digest) for name, digest in digests.items()})


def _make_room(out: Path, split: str, overwrite: bool) -> None:
    """Remove old shards of the split if `overwrite`; the index first, because it names the tars."""
    if not out.is_dir():
        return
    old = [path for path in out.iterdir() if path.name == f"{split}.json" or split_of_tar(path.name) == split]
    if old and not overwrite:
        raise InputError(f"{min(old)}: is there already; choose another `out`, or give `overwrite`")
    for path in sorted(old, key=lambda path: path.suffix != ".json"):
        path.unlink()
