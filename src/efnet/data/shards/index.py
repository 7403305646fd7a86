"""The index of packed shards: which pairs they hold, where each file lies, and its SHA-256.

`train.json` stands beside `train-000000.tar`, `train-000001.tar` and so on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

from efnet.classes import ClassSet
from efnet.data.pairs import Condition, Pair, PairSet, ThermalScale
from efnet.data.shards.tar import Member
from efnet.errors import InputError
from efnet.texts import parse_json

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
        pairset: the split; its paths lead into the tars (`efnet.data.shards.members`).
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
