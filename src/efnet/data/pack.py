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
from efnet.data.archive import Member, Shard, ShardIndex, file_bytes, scan_tar, split_of_tar
from efnet.data.pairs import FLIP_SUFFIX, Pair, PairSet
from efnet.data.verify import Progress, verify

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        index: the index file.
        tars: how many.
        files: in them.
        size: of all tars, in bytes.
    """

    index: Path
    tars: int
    files: int
    size: int


@dataclass
class _Tar:
    """A shard that is being filled.

    Attributes:
        name: of the file.
        contents: what goes in, by name; kept in memory until the tar is written.
        size: bytes of the files in it.
    """

    name: str
    contents: dict[str, bytes] = field(default_factory=dict)
    size: int = 0

    def add(self, member: str, content: bytes) -> None:
        """Put a file in."""
        self.contents[member] = content
        self.size += len(content)


def pack(
    pairset: PairSet,
    out: Path,
    *,
    shard_size: int = 256 * MEGABYTE,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Packed:
    """Pack a split.

    Args:
        pairset: the split; files that pairs share (`_flip` copies) are packed once.
        out: folder to write; it may hold other splits.
        shard_size: bytes after which a new tar begins.
        overwrite: replace what is there of this split.
        progress: told how many pairs are packed, of how many.

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
    with _removed_on_failure(out, shards):
        for tar in _filled(pairset.pairs, split, shard_size, places, progress):
            shards[tar.name] = _write(out / tar.name, tar)
        pairs = tuple(_moved(pair, places, out) for pair in pairset.pairs)
        index = ShardIndex(replace(pairset, pairs=pairs), shards)
        write_text(out / f"{split}.json", json.dumps(index.to_dict(), ensure_ascii=False) + "\n")
    files = sum(len(shard.members) for shard in shards.values())
    size = sum(shard.size for shard in shards.values())
    return Packed(out / f"{split}.json", len(shards), files, size)


def _filled(
    pairs: Sequence[Pair], split: str, shard_size: int, places: dict[Path, str], progress: Progress | None
) -> Iterator[_Tar]:
    """Tars as they get full; `places` learns where each file went."""
    number = 0
    tar = _Tar(f"{split}-{number:06}.tar")
    for count, pair in enumerate(pairs, 1):
        for member, path in _files(pair).items():
            if path not in places:
                places[path] = f"{tar.name}/{member}"
                tar.add(member, file_bytes(path))
        if tar.size >= shard_size:
            yield tar
            number += 1
            tar = _Tar(f"{split}-{number:06}.tar")
        if progress is not None:
            progress(count, len(pairs))
    if tar.contents:
        yield tar


def _files(pair: Pair) -> dict[str, Path]:
    """A pair's files by the names they get."""
    name = pair.name.removesuffix(FLIP_SUFFIX) if pair.flip else pair.name
    # WebDataset takes what stands before the first dot for the name of the sample.
    key = urllib.parse.quote(name, safe="").replace(".", "%2E")
    kinds = {"rgbt": pair.rgb} if pair.thermal is None else {"rgb": pair.rgb, "thermal": pair.thermal}
    if pair.label is not None:
        kinds["label"] = pair.label
    return {f"{key}.{kind}{path.suffix.lower()}": path for kind, path in kinds.items()}


def _write(path: Path, content: _Tar) -> Shard:
    """Write a tar; its bytes depend on the files alone, not on who packs them or when."""
    with replacing(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for name, held in content.contents.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(held), 0o644
                tar.addfile(info, io.BytesIO(held))
        places = scan_tar(temporary)
        size = temporary.stat().st_size
    return Shard(
        size,
        {
            name: Member(places[name].offset, len(held), hashlib.sha256(held).hexdigest())
            for name, held in content.contents.items()
        },
    )


def _moved(pair: Pair, places: dict[Path, str], out: Path) -> Pair:
    """The pair, its paths leading into the tars."""
    return replace(
        pair,
        rgb=out / places[pair.rgb],
        thermal=None if pair.thermal is None else out / places[pair.thermal],
        label=None if pair.label is None else out / places[pair.label],
    )


def _make_room(out: Path, split: str, overwrite: bool) -> None:
    """See that nothing is replaced unasked; the index goes first, it would name tars that are gone."""
    if not out.is_dir():
        return
    old = [path for path in out.iterdir() if path.name == f"{split}.json" or split_of_tar(path.name) == split]
    if old and not overwrite:
        raise InputError(f"{min(old)}: is there already; choose another --out, or give --overwrite")
    for path in sorted(old, key=lambda path: path.suffix != ".json"):
        path.unlink()


@contextlib.contextmanager
def _removed_on_failure(out: Path, shards: dict[str, Shard]) -> Iterator[None]:
    """Tars without an index are of no use."""
    try:
        yield
    except BaseException:
        for name in shards:
            with contextlib.suppress(OSError):
                (out / name).unlink()
        raise
