"""What the layouts share: image folders looked up by stem, split lists, and pairs made from both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError, ManyInputsError
from efnet.data.images import IMAGE_SUFFIXES
from efnet.data.pairs import FLIP_SUFFIX, Condition, Pair, PairSet

_MFNET_NAME = re.compile(rf"\d+([DN])(?:{FLIP_SUFFIX})?", re.IGNORECASE)


class Layout(Protocol):
    """How one data set lies on disk."""

    @property
    def name(self) -> str:
        """The name that `--dataset` takes."""

    def class_set(self, root: Path) -> ClassSet:
        """The classes of the labels."""

    def splits(self, root: Path) -> tuple[str, ...]:
        """The splits that `open` knows under `root`."""

    def open(self, root: Path, split: str) -> PairSet:
        """The pairs of a split, in a fixed order; files may be missing, `verify` names them."""

    def image_folders(self, root: Path) -> tuple[Path, ...]:
        """The folders whose images belong to pairs, for finding files on no list."""


@dataclass(frozen=True)
class ImageFolder:
    """The images of one folder by stem (hidden files left out).

    Attributes:
        path: the folder, existing or not.
        files: stem to file.
    """

    path: Path
    files: dict[str, Path] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> ImageFolder:
        """List the folder; one that does not exist has no files.

        Raises:
            InputError: two images of one stem, or the folder cannot be listed.
        """
        files: dict[str, Path] = {}
        faults = []
        for entry in _listed(path):
            if entry.startswith(".") or not entry.lower().endswith(IMAGE_SUFFIXES):
                continue
            stem = Path(entry).stem
            if stem in files:
                faults.append(f"{path / entry}: has the same stem as {files[stem].name}; keep one of them")
            files.setdefault(stem, path / entry)
        if faults:
            raise ManyInputsError(f"{path}: images that cannot be told apart", faults)
        return cls(path, files)

    @property
    def exists(self) -> bool:
        """Whether the folder is there."""
        return self.path.is_dir()

    def find(self, stem: str) -> Path:
        """The file of that stem, whatever its suffix and case; if there is none, where it should be."""
        found = self.files.get(stem) or self._by_folded_stem.get(stem.casefold())
        return found or self.path / f"{stem}.png"

    def __contains__(self, stem: str) -> bool:
        return stem in self.files or stem.casefold() in self._by_folded_stem

    @property
    def _by_folded_stem(self) -> dict[str, Path]:
        folded: dict[str, Path] | None = self.__dict__.get("_folded")
        if folded is None:
            folded = {stem.casefold(): file for stem, file in self.files.items()}
            self.__dict__["_folded"] = folded
        return folded


@dataclass(frozen=True)
class TripleFolders:
    """The folders of one set of pairs.

    Attributes:
        rgb: colour images, or four-channel files if `thermal` is None.
        thermal: thermal images.
        labels: label maps.
    """

    rgb: ImageFolder
    thermal: ImageFolder | None
    labels: ImageFolder

    @classmethod
    def read(cls, rgb: Path, thermal: Path | None, labels: Path) -> TripleFolders:
        """List the folders.

        Raises:
            InputError: see `ImageFolder.read`.
        """
        return cls(
            ImageFolder.read(rgb),
            None if thermal is None else ImageFolder.read(thermal),
            ImageFolder.read(labels),
        )

    def stems(self) -> list[str]:
        """Stems of all images, colour or thermal, sorted; labels without an image do not count."""
        thermal = self.thermal.files if self.thermal else {}
        only_thermal = (stem for stem in thermal if stem not in self.rgb)
        return sorted([*self.rgb.files, *only_thermal], key=natural_key)

    def pair(self, name: str, condition: Condition | None = None) -> Pair:
        """The pair of that name; `_flip` names without files of their own mirror the file without it."""
        stem, flip = name, False
        if name.endswith(FLIP_SUFFIX) and name not in self.rgb:
            stem, flip = name.removesuffix(FLIP_SUFFIX), True
        return Pair(
            name=name,
            rgb=self.rgb.find(stem),
            thermal=None if self.thermal is None else self.thermal.find(stem),
            label=self.labels.find(stem) if self.labels.exists else None,
            flip=flip,
            condition=condition,
        )

    def paths(self) -> tuple[Path, ...]:
        """The folders that exist."""
        folders = (self.rgb, self.thermal, self.labels)
        return tuple(folder.path for folder in folders if folder is not None and folder.exists)


def _listed(path: Path) -> list[str]:
    """Names in a folder, sorted; none if there is no folder."""
    try:
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    except OSError as error:
        raise InputError(f"{path}: cannot be listed ({error.strerror}); change its permissions") from error


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which `frame9` comes before `frame10`."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def mfnet_condition(name: str) -> Condition | None:
    """Day or night from a name of MFNet's kind: digits, then D or N."""
    match = _MFNET_NAME.fullmatch(name)
    if match is None:
        return None
    return "day" if match[1].upper() == "D" else "night"


def find_file(folder: Path, name: str) -> Path | None:
    """The file of that name, in any case, or None."""
    exact = folder / name
    if exact.is_file():
        return exact
    return next((folder / entry for entry in _listed(folder) if entry.casefold() == name.casefold()), None)


def read_list(path: Path) -> tuple[str, ...]:
    """Names of a split list: one per line; blank lines, carriage returns and image suffixes are ignored.

    Raises:
        InputError: unreadable, not text, empty, or with a name that leads out of the data set.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: the split list cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file; a split list has one image name per line") from error
    names = []
    for line in lines:
        name = line.strip()
        if name:
            if PurePosixPath(name).is_absolute() or ".." in re.split(r"[/\\]", name):
                raise InputError(f"{path}: {name[:200]} leads out of the data set; write image names")
            stem, dot, suffix = name.rpartition(".")
            names.append(stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name)
    if not names:
        raise InputError(f"{path}: the split list is empty; write one image name per line")
    return tuple(names)


def require_root(root: Path) -> None:
    """Refuse a data root that is no folder.

    Raises:
        InputError: it does not exist, or is a file.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}; give the data set's folder with --root")


def unknown_split(split: str, known: Iterable[str], root: Path) -> InputError:
    """The error for a split that the data set does not have."""
    listed = ", ".join(known)
    return InputError(
        f"{root}: has no split '{split}'; " + (f"it has {listed}" if listed else "it has no split at all")
    )


def wrong_folders(root: Path, layout: str, expected: Sequence[str]) -> InputError:
    """The error for a root without the layout's folders."""
    present = [entry for entry in _listed(root) if not entry.startswith(".")][:8]
    found = ", ".join(present) if present else "nothing"
    return InputError(
        f"{root}: not the {layout} layout: expected {' or '.join(expected)}, found {found}; "
        "check --root and --dataset"
    )
