"""Parts of all layouts: image folders looked up by stem, split lists, pairs made from both, held-out splits.

Neighbouring frames of a drive are nearly the same picture: frames held out one by one would measure memory.
So `held_out` takes whole sequences, or contiguous blocks where names do not show sequences.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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
        """The layout's name, `dataset` elsewhere."""

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
    """The images of one folder, existing or not, by stem; hidden files are left out."""

    path: Path
    files: dict[str, Path] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> ImageFolder:
        """List a folder, absent or not; an `InputError` if two stems are the same or it cannot be listed."""
        files: dict[str, Path] = {}
        faults = []
        for entry in _listed(path):
            if entry.startswith(".") or not entry.lower().endswith(IMAGE_SUFFIXES):
                continue
            stem = composed(Path(entry).stem)
            if stem in files:
                faults.append(f"{path / entry}: has the same stem as {files[stem].name}; keep one of them")
            files.setdefault(stem, path / entry)
        if faults:
            raise ManyInputsError(f"{path}: images with the same stem", faults)
        return cls(path, files)

    @property
    def exists(self) -> bool:
        """Whether the folder is there."""
        return self.path.is_dir()

    def find(self, stem: str) -> Path:
        """Return the file of that stem, of any suffix and case; without one, the path it should have."""
        stem = composed(stem)
        found = self.files.get(stem) or self._by_folded_stem.get(stem.casefold())
        return found or self.path / f"{stem}.png"

    def __contains__(self, stem: str) -> bool:
        stem = composed(stem)
        return stem in self.files or stem.casefold() in self._by_folded_stem

    @cached_property
    def _by_folded_stem(self) -> dict[str, Path]:
        return {stem.casefold(): file for stem, file in self.files.items()}


@dataclass(frozen=True)
class TripleFolders:
    """The folders of one set of pairs; `rgb` holds four-channel files if `thermal` is None."""

    rgb: ImageFolder
    thermal: ImageFolder | None
    labels: ImageFolder

    @classmethod
    def read(cls, rgb: Path, thermal: Path | None, labels: Path) -> TripleFolders:
        """List the folders; errors as `ImageFolder.read`."""
        heat = None if thermal is None else ImageFolder.read(thermal)
        return cls(ImageFolder.read(rgb), heat, ImageFolder.read(labels))

    def stems(self) -> list[str]:
        """Return the stems of all images, colour or thermal, sorted; labels without an image do not count."""
        thermal = self.thermal.files if self.thermal else {}
        only_thermal = (stem for stem in thermal if stem not in self.rgb)
        return sorted([*self.rgb.files, *only_thermal], key=natural_key)

    def pair(self, name: str, condition: Condition | None = None) -> Pair:
        """Return the pair of that name; a `_flip` name without files of its own mirrors the original."""
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
        """Return the folders that exist."""
        folders = (self.rgb, self.thermal, self.labels)
        return tuple(folder.path for folder in folders if folder is not None and folder.exists)


def composed(name: str) -> str:
    """Return a name with accents composed: macOS stores them apart from their letters."""
    return unicodedata.normalize("NFC", name)


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


def read_list(
    path: Path, folders: Collection[str] = ("rgb", "thermal", "labels", "images")
) -> tuple[str, ...]:
    """Return the names of a split list: one per line, without blanks and image suffixes.

    A line may also hold the files of a pair, separated by blanks or commas, if these have one name. Paths
    into one of `folders`, the data set's own, are reduced to the name; backslashes separate as slashes do.

    Raises:
        InputError: unreadable, not text, empty, with files of different names in a line, or with a name that
            leads out of the data set.
    """
    try:
        content = path.read_bytes()
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Windows writes it
        lines = content.decode("utf-16" if utf16 else "utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: the split list cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file; a split list has one image name per line") from error
    names = []
    for number, line in enumerate(lines, start=1):
        columns = re.split(r"[\s,;]+", line.strip())
        # Names may contain blanks: several columns are files only if each ends as one.
        if len(columns) < 2 or not all(column.lower().endswith(IMAGE_SUFFIXES) for column in columns):
            columns = [line.strip()] if line.strip() else []
        found = list(dict.fromkeys(_name_in_list(path, column, folders) for column in columns))
        if len(found) > 1:
            raise InputError(
                f"{path}: line {number} names {' and '.join(found)}; a line holds one name, that of all "
                "images of its pair"
            )
        names += found
    if not names:
        raise InputError(f"{path}: the split list is empty; write one image name per line")
    return tuple(names)


def _name_in_list(path: Path, text: str, folders: Collection[str]) -> str:
    """The name of a pair that one column of a list gives."""
    name = PurePosixPath(text.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"{path}: {text[:200]} leads out of the data set; write image names")
    if name.parent.name.casefold() in {Path(folder).name.casefold() for folder in folders}:
        name = PurePosixPath(name.name)
    return composed(str(name.with_suffix("") if name.suffix.lower() in IMAGE_SUFFIXES else name))


VAL_FRACTION = 0.1  # share of the training pairs held out, at least

_MAX_FRACTION = 0.25  # a sequence that would take more than this stays in training
_BLOCK = 8  # frames per block, where sequences are unknown
_MAX_BLOCKS = 10
_FRAME_NUMBER = re.compile(r"(.*?)[\W_]*\d+[A-Za-z]?")


def sequence_of(name: str) -> str:
    """Return the sequence that a frame belongs to: its name without the last number.

    PST900's `58_bag21_rect_rgb_frame0000000440` gives `58_bag21_rect_rgb_frame`; `00001D` and `17` give "".
    """
    match = _FRAME_NUMBER.fullmatch(name)
    return match[1] if match else name


def held_out(names: Sequence[str], fraction: float = VAL_FRACTION) -> frozenset[str]:
    """Choose the validation part of the training pairs `names`; the same names give the same choice.

    `names` are in the order of recording; `fraction` is the least share to hold out. A mirrored copy
    (`_flip`) goes where its original goes. Of two pairs or more, at least one is chosen and never all.
    """
    originals = list(dict.fromkeys(name.removesuffix(FLIP_SUFFIX) for name in names))
    if len(originals) < 2:
        return frozenset()
    sequences: dict[str, list[str]] = defaultdict(list)
    for name in originals:
        sequences[sequence_of(name)].append(name)
    chosen: frozenset[str] = frozenset()
    # With as many sequences as names, the names do not show which frames are neighbours.
    if 3 <= len(sequences) < len(originals):
        chosen = _whole_sequences(sequences, len(originals), fraction)
    chosen = chosen or _blocks(originals, fraction)
    return frozenset(name for name in names if name.removesuffix(FLIP_SUFFIX) in chosen)


def split_off(pairs: Sequence[Pair], split: str) -> tuple[Pair, ...]:
    """Return the pairs of `train`, `val` or `trainval` from a training set without a validation set."""
    if split == "trainval":
        return tuple(pairs)
    val = held_out([pair.name for pair in pairs])
    return tuple(pair for pair in pairs if (pair.name in val) == (split == "val"))


def _whole_sequences(sequences: dict[str, list[str]], total: int, fraction: float) -> frozenset[str]:
    """Sequences, in an order that no naming scheme favours, until enough is held out."""
    chosen: set[str] = set()
    for key in sorted(sequences, key=lambda key: (zlib.crc32(key.encode()), key)):
        if len(chosen) >= fraction * total:
            break
        if len(chosen) + len(sequences[key]) <= _MAX_FRACTION * total:
            chosen.update(sequences[key])
    return frozenset(chosen)


def _blocks(names: Sequence[str], fraction: float) -> frozenset[str]:
    """Contiguous blocks from the middle of equal stretches of `names`."""
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    blocks = min(max(1, count // _BLOCK), _MAX_BLOCKS)
    chosen: set[str] = set()
    for block in range(blocks):
        start, stop = (len(names) * edge // blocks for edge in (block, block + 1))
        size = count * (block + 1) // blocks - count * block // blocks
        first = start + (stop - start - size) // 2
        chosen.update(names[first : first + size])
    return frozenset(chosen)


def require_root(root: Path) -> None:
    """Raise an `InputError` if the data root does not exist or is a file."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise InputError(f"{root}: {what}; give the data set's folder as `root`")


def unknown_split(split: str, known: Iterable[str], root: Path) -> InputError:
    """The error for a split that the data set does not have."""
    listed = ", ".join(known) or "no split at all"
    return InputError(f"{root}: has no split '{split}'; it has {listed}")


def wrong_folders(root: Path, layout: str, expected: Sequence[str]) -> InputError:
    """The error for a root without the layout's folders."""
    present = [entry for entry in _listed(root) if not entry.startswith(".")][:8]
    found = f"expected {' or '.join(expected)}, found {', '.join(present) or 'nothing'}"
    return InputError(f"{root}: not the {layout} layout: {found}; check `root` and `dataset`")
