"""Parts of all layouts: image folders looked up by stem, split lists, pairs made from both, held-out splits.

Neighbouring frames of a drive are nearly the same picture: frames held out one by one would measure memory.
So `held_out` takes whole sequences, or contiguous blocks where names do not show sequences.
"""

from __future__ import annotations

import codecs
import os
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol, Self

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError, ManyInputsError
from efnet.data.images import IMAGE_SUFFIXES
from efnet.data.layouts.patterns import (
    ID,
    NamePattern,
    composed,
    images_below,
    is_pattern,
    is_tagged,
    natural_key,
    nearest,
    suggest,
    untagged,
)
from efnet.data.pairs import FLIP_SUFFIX, Condition, Pair, PairSet
from efnet.data.radiometric import are_pairs

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
    """The images below one folder, existing or not, by name: the path below it without suffix.

    With a pattern (`rgb/original_{id}.jpg`) names are what stands for `{id}`. Hidden files are left out.
    """

    path: Path
    files: dict[str, Path] = field(repr=False)
    pattern: NamePattern | None = None

    @classmethod
    def read(cls, path: Path) -> ImageFolder:
        """List a folder or a pattern's files; an `InputError` if two have one name or it cannot be listed."""
        pattern = NamePattern.read(path) if is_pattern(path.name) or is_pattern(str(path)) else None
        if pattern is None:
            found = iter([(_stem(file, path), file) for file in images_below(path)])
        else:
            path, found = pattern.folder, pattern.find()
        return cls(path, _by_name(found, path if pattern is None else pattern.text), pattern)

    @property
    def exists(self) -> bool:
        """Whether the folder is there; for a pattern, whether it finds a file."""
        return self.path.is_dir() if self.pattern is None else bool(self.files)

    def find(self, stem: str) -> Path:
        """Return the file of that name, of any suffix and case; without one, the path it should have."""
        stem = composed(stem)
        found = self.files.get(stem) or self._by_folded_stem.get(stem.casefold())
        if found is None and self.pattern is not None:
            return self.pattern.path(stem)
        return found or self.path / f"{stem}.png"

    def only(self, kind: str, spare: Collection[str] = ()) -> ImageFolder:
        """Return the files whose names have a tag of `kind`, named without it; an `InputError` as of `read`.

        `spare`: names of files without a tag that are kept.
        """
        found = []
        for name, file in self.files.items():
            path = PurePosixPath(f"{name}.png")
            if is_tagged(path, kind):
                found.append((untagged(path, kind), file))
            elif name in spare:
                found.append((name, file))
        return replace(self, files=_by_name(found, self.path))

    def _named_like(self, names: Collection[str]) -> ImageFolder:
        """These files with the tags left out that keep their names from being any of `names`."""
        if not names or not self.files or self.pattern is not None or _shared(self, names):
            return self
        ways = (self.only(kind, self.files) for kind in ("labels", "rgb", "thermal"))
        return next((way for way in ways if _shared(way, names)), self)

    def __contains__(self, stem: str) -> bool:
        stem = composed(stem)
        return stem in self.files or stem.casefold() in self._by_folded_stem

    @cached_property
    def _by_folded_stem(self) -> dict[str, Path]:
        return {stem.casefold(): file for stem, file in self.files.items()}


def _shared(folder: ImageFolder, names: Iterable[str]) -> bool:
    """Whether any of the names is that of a file in the folder."""
    return any(name in folder for name in names)


def _refuse_cases(one: ImageFolder, other: ImageFolder) -> None:
    """Raise an `InputError` if two files would share a partner that differs from one in case alone."""
    for these, those in ((one, other), (other, one)):
        cases: defaultdict[str, list[str]] = defaultdict(list)
        for name in these.files:
            cases[name.casefold()].append(name)
        for names in cases.values():
            lacking = [name for name in names if name in those and name not in those.files]
            if len(names) > 1 and lacking:
                files = " and ".join(str(these.files[name]) for name in names)
                fault = f"both could belong to {those.find(lacking[0])}, whose name differs in case"
                raise InputError(f"{files}: {fault}; rename one of them")


def _stem(file: Path, folder: Path) -> str:
    """The path below a folder, without suffix."""
    return composed(file.relative_to(folder).with_suffix("").as_posix())


def _by_name(found: Iterable[tuple[str, Path]], where: object) -> dict[str, Path]:
    """Files by name; a `ManyInputsError` with every two that have the same."""
    files: dict[str, Path] = {}
    faults = []
    for name, file in found:
        if name in files:
            other = files[name]
            shown = other.name if other.parent == file.parent else other
            faults.append(f"{file}: has the same stem as {shown} ('{name}'); keep one of them")
        files.setdefault(name, file)
    if faults:
        remedy = f"or give a pattern with {ID} that fits one of them"
        raise ManyInputsError(f"{where}: images with the same stem; keep one of them, {remedy}", faults)
    return files


@dataclass(frozen=True)
class TripleFolders:
    """The folders of one set of pairs; `rgb` holds four-channel files if `thermal` is None."""

    rgb: ImageFolder
    thermal: ImageFolder | None
    labels: ImageFolder

    @classmethod
    def read(cls, rgb: Path, thermal: Path | None, labels: Path) -> TripleFolders:
        """List the folders, or the files of patterns; errors as `ImageFolder.read`.

        Where no names are the same, tags of cameras (`_rgb`, `_T`, `_mask`) are left out of them. One folder
        may be given twice: the tags separate its images.
        """
        colors, masks = ImageFolder.read(rgb), ImageFolder.read(labels)
        if thermal is None:
            masks = masks._named_like(colors.files)
            _refuse_cases(colors, masks)
            return cls(colors, None, masks)
        heat = ImageFolder.read(thermal)
        if rgb == thermal and not (heat.files and are_pairs(heat.files.values())):
            heat = heat.only("thermal")
            colors = colors.only("rgb", spare=heat.files)
        elif not _shared(colors, heat.files):
            named = colors.only("rgb", colors.files), heat.only("thermal", heat.files)
            colors, heat = named if _shared(named[0], named[1].files) else (colors, heat)
        if labels in (rgb, thermal):
            masks = masks.only("labels")
        masks = masks._named_like({**heat.files, **colors.files})
        _refuse_cases(colors, heat)
        _refuse_cases(colors, masks)
        return cls(colors, heat, masks)

    def matched(self) -> Self:
        """Return these folders if any of their names are the same.

        Raises:
            InputError: none are, or a pattern fits no file; with the nearest names and the patterns to write.
        """
        others = [("thermal", self.thermal), ("labels", self.labels)]
        for key, folder in (("rgb", self.rgb), *others):
            if folder is not None and folder.pattern is not None and not folder.files:
                there = [file.relative_to(folder.path).as_posix() for file in images_below(folder.path)]
                if there or key != "labels":
                    near = (
                        f"the nearest name there is {nearest([folder.pattern.tail], there)[1]}"
                        if there
                        else ""
                    )
                    fault = (
                        f"{folder.pattern.text}: fits no file; {near or 'there is no image in its folder'}"
                    )
                    raise InputError(f"{fault}; correct '{key}' in dataset.yaml")
        for key, folder in others:
            if folder is None or not self.rgb.files or not folder.files or _shared(self.rgb, folder.files):
                continue
            if key == "labels" and self.thermal is not None and _shared(folder, self.thermal.files):
                continue
            one, other = nearest(
                [file.name for file in self.rgb.files.values()], [file.name for file in folder.files.values()]
            )
            files = [
                next(file for file in held.files.values() if file.name == name)
                for held, name in ((self.rgb, one), (folder, other))
            ]
            base = Path(os.path.commonpath([file.parent for file in files]))
            patterns = suggest(*(file.relative_to(base).as_posix() for file in files))
            remedy = f"name them by patterns with {ID} in dataset.yaml"
            if patterns is not None:
                remedy += f', such as rgb: "{patterns[0]}" and {key}: "{patterns[1]}"'
            what = {"thermal": "thermal image", "labels": "label"}[key]
            fault = f"no colour image has a {what} of its name; the nearest are {one} and {other}"
            raise InputError(f"{self.rgb.path} and {folder.path}: {fault}; {remedy}")
        return self

    def listed_names(self, root: Path) -> dict[str, str]:
        """Return the name of the pair by each way to write one of its files in a list."""
        found: dict[str, str] = {}
        alone = Counter(
            file.name for folder in (self.rgb, self.thermal) if folder for file in folder.files.values()
        )
        for folder in (self.rgb, self.thermal, self.labels):
            for name, file in (folder.files if folder is not None else {}).items():
                for base in (root, folder.path if folder is not None else root):
                    if file.is_relative_to(base):
                        path = composed(file.relative_to(base).as_posix())
                        found.setdefault(path, name)
                        found.setdefault(path.removesuffix(file.suffix), name)
                if alone[file.name] == 1:  # lists of files in sub-folders may leave these out
                    found.setdefault(composed(file.name), name)
        return found

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
        there = (folder.path for folder in folders if folder is not None and folder.exists)
        return tuple(dict.fromkeys(there))


def _listed(path: Path) -> list[str]:
    """Names in a folder, sorted; none if there is no folder."""
    try:
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    except OSError as error:
        raise InputError(f"{path}: cannot be listed ({error.strerror}); change its permissions") from error


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
    path: Path,
    folders: Collection[str] = ("rgb", "thermal", "labels", "images"),
    known: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Return the names of a split list: one per line, without blanks and image suffixes.

    `known` gives the names of files that are written in it (`TripleFolders.listed_names`).

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
        if any("\0" in line for line in lines):
            raise InputError(f"{path}: is not a text file, or UTF-16 without its mark; save it as UTF-8")
    except OSError as error:
        raise InputError(f"{path}: the split list cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file; a split list has one image name per line") from error
    names = []
    for number, line in enumerate(lines, start=1):
        columns = [column.strip("\"'") for column in re.split(r"[\s,;]+", line.strip())]
        # Names may contain blanks: several columns are files only if each ends as one.
        if len(columns) < 2 or not all(column.lower().endswith(IMAGE_SUFFIXES) for column in columns):
            columns = [whole] if (whole := line.strip().strip("\"'")) else []
        found = list(dict.fromkeys(_name_in_list(path, column, folders, known or {}) for column in columns))
        if len(found) > 1:
            raise InputError(
                f"{path}: line {number} names {' and '.join(found)}; a line holds one name, that of all "
                "images of its pair"
            )
        names += found
    if not names:
        raise InputError(f"{path}: the split list is empty; write one image name per line")
    return tuple(names)


def _name_in_list(path: Path, text: str, folders: Collection[str], known: Mapping[str, str]) -> str:
    """The name of a pair that one column of a list gives."""
    name = PurePosixPath(text.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"{path}: {text[:200]} leads out of the data set; write image names")
    if (written := composed(str(name))) in known:
        return known[written]
    names = {PurePosixPath(folder).name.casefold() for folder in folders}
    inside = next((place for place, part in enumerate(name.parts[:-1]) if part.casefold() in names), None)
    if inside is not None:
        name = PurePosixPath(*name.parts[inside + 1 :])
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
