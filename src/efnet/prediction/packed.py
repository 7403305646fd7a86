"""Pairs without labels in tar files: those of `efnet data pack`, or of any program that names them so.

`NAME.rgb.png` and `NAME.thermal.png`, or `NAME.rgbt.png`; other files in the tar are passed over.
"""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path, PurePosixPath

from efnet.data.images import IMAGE_SUFFIXES
from efnet.data.layouts.packed import is_packed
from efnet.data.shards.members import members_of
from efnet.errors import InputError, ManyInputsError

_MEMBER = re.compile(
    rf"(?P<key>(?:.*/)?[^./]+)\.(?P<kind>rgbt?|thermal)(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})",
    re.IGNORECASE,
)


def names_tars(pattern: str) -> bool:
    """Whether a user means tars: a folder of shards, or names or a glob that end in `.tar`."""
    return pattern.endswith(".tar") or is_packed(Path(pattern).expanduser())


def pairs_in_tars(pattern: str) -> dict[str, tuple[Path, Path | None]]:
    """The pairs in the tars that a user means.

    Args:
        pattern: a folder of shards; or tars by name or glob, several separated by commas.

    Returns:
        colour (or four-channel) and thermal image by name; None: it has none of its own.

    Raises:
        InputError: no tar there, no pair in it, or a tar that is damaged or holds links.
        ManyInputsError: names that occur twice, and thermal images without a colour image.
    """
    found: dict[str, dict[str, Path]] = {}
    faults: list[str] = []
    for tar in _tars(pattern):
        for member in members_of(tar):
            match = _MEMBER.fullmatch(member)
            if match is None:
                continue
            files = found.setdefault(_name(match["key"]), {})
            kind = "thermal" if match["kind"].lower() == "thermal" else "rgb"
            if kind in files:
                faults.append(f"{tar / member}: same name as {files[kind]}; give one of the two tars")
            files.setdefault(kind, tar / member)
    faults += [
        f"{files['thermal']}: no RGB image of that name" for files in found.values() if "rgb" not in files
    ]
    if faults:
        raise ManyInputsError(f"--rgbt {pattern}: images that make no pairs", faults)
    if not found:
        raise InputError(
            f"--rgbt {pattern}: no NAME.rgb.png and NAME.thermal.png there, and no NAME.rgbt.png; pack the "
            "images with efnet data pack"
        )
    return {name: (files["rgb"], files.get("thermal")) for name, files in found.items()}


def _tars(pattern: str) -> list[Path]:
    folder = Path(pattern).expanduser()
    if folder.is_dir():
        return sorted(folder.glob("*.tar"))
    tars: list[Path] = []
    for part in pattern.split(","):
        path = Path(part.strip()).expanduser()
        if any(mark in part for mark in "*?[") and not path.is_file():
            anchor = Path(path.anchor)
            tars += sorted(anchor.glob(str(path.relative_to(anchor))))
        else:
            tars.append(path)
    tars = list(dict.fromkeys(tars))
    if not tars:
        raise InputError(f"--rgbt {pattern}: no such tar; check the path")
    return tars


def _name(key: str) -> str:
    """What was packed under this key: outputs carry it, so it has to stay below their folder."""
    name = urllib.parse.unquote(key)
    parts = PurePosixPath(name).parts
    unsafe = "\\" in name or any(ord(letter) < 32 for letter in name) or name.startswith("/") or ".." in parts
    return key if unsafe or PurePosixPath(name).as_posix() != name else name
