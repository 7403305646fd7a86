"""Names of image files as cameras write them: patterns with `{id}`, tags of cameras, files below a folder.

A pattern such as `heat/heat_{id}.jpg` is a path with `{id}` for what both images of a pair share. All other
letters stand for themselves, brackets and asterisks too; `{any}` is text that may differ within a pair.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from efnet.core.errors import InputError
from efnet.data.images import IMAGE_SUFFIXES

ID, ANY = "{id}", "{any}"

# DJI's names end in _V or _W and _T, FLIR's in _RGB and _PreviewData.
_TAGS = {
    "rgb": "rgb|eo|vis|visible|vi|v|w|color|colour",
    "thermal": "thermal|therm|th|infrared|ir|lwir|tir|t|previewdata",
    "labels": "labels|label|masks|mask|gt|seg",
}
"""Words that name a camera at the beginning or end of a file's name, or of a folder."""

_CAMERAS = f"{_TAGS['rgb']}|{_TAGS['thermal']}"
_TAGGED = {
    key: re.compile(rf"(?:(?P<first>{words})[_-])?(?P<name>.+?)(?:[_-](?P<last>{words}))?", re.IGNORECASE)
    for key, words in {**_TAGS, "camera": _CAMERAS}.items()
}
_TAG_FOLDER = re.compile(_CAMERAS, re.IGNORECASE)


def composed(name: str) -> str:
    """Return a name with accents composed: macOS stores them apart from their letters."""
    return unicodedata.normalize("NFC", name)


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which `frame9` comes before `frame10`."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def files_below(folder: Path, excluded: Path | None = None, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield files that are not hidden, in order, links followed; `above` are the folders on the way here.

    A link to a folder that it lies in is not followed, nor is anything below `excluded`.

    Raises:
        InputError: a folder cannot be listed.
    """
    place = folder.resolve()
    if place in above or (excluded is not None and place.is_relative_to(excluded)):
        return
    try:
        # One call for all names: asking for each file takes seconds for ten thousand on a server.
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); change its permissions") from error
    for entry in listed:
        with contextlib.suppress(OSError):  # a link that leads to itself
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from files_below(folder / entry.name, excluded, (*above, place))
            elif entry.is_file():
                yield folder / entry.name


def images_below(folder: Path, excluded: Path | None = None) -> list[Path]:
    """Return the image files below a folder, with its sub-folders; none if there is no folder."""
    if not folder.is_dir():
        return []
    return [file for file in files_below(folder, excluded) if file.suffix.lower() in IMAGE_SUFFIXES]


def is_pattern(text: str) -> bool:
    """Return whether a path has a place for the name of a pair."""
    return ID in text


@dataclass(frozen=True)
class NamePattern:
    """A pattern of file names: a folder, and the path below it in which `{id}` occurs.

    A pattern whose `{id}` is in the file's name also finds files in sub-folders, which become part of the
    name: `rgb/original_{id}.jpg` finds `rgb/day/original_1.jpg`, named `day/1`. Letters match in either case;
    without a suffix of images, any of these matches.
    """

    folder: Path
    tail: str  # from the first part that has a placeholder on

    @classmethod
    def read(cls, path: Path) -> NamePattern:
        """Split a path; an `InputError` without `{id}`, or where it is open what `{id}` is."""
        parts = path.parts
        # Braces belong to a name where a folder has it.
        wild = (place for place, part in enumerate(parts) if ID in part or ANY in part)
        first = next((place for place in wild if not Path(*parts[: place + 1]).is_dir()), len(parts))
        tail = "/".join(parts[first:])
        if ID not in tail:
            raise InputError(f"{path}: has no {ID}; write it for the part that both images of a pair share")
        if re.search(r"\{any\}\{(id|any)\}|\{id\}\{(any|id)\}", tail):
            raise InputError(f"{path}: it is open where {ID} ends; write a letter between {ID} and {ANY}")
        if "/" in tail and ID not in parts[first]:
            raise InputError(f"{path}: has {ANY} before {ID}; write folders by their names")
        return cls(Path(*parts[:first]), composed(tail))

    @property
    def text(self) -> str:
        """The whole pattern."""
        return str(self.folder / self.tail)

    def name_of(self, path: PurePosixPath) -> str | None:
        """Return the name of the pair of a file, given by its path below the folder; None if it differs."""
        match = self._expression.fullmatch(composed(path.as_posix()))
        return None if match is None else f"{match.groupdict().get('folders') or ''}{match['id']}"

    def find(self) -> Iterator[tuple[str, Path]]:
        """Yield the name and path of each file."""
        for file in images_below(self.folder):
            name = self.name_of(PurePosixPath(file.relative_to(self.folder).as_posix()))
            if name is not None:
                yield name, file

    def path(self, name: str) -> Path:
        """Return the path that the file of a pair has, its suffix as the pattern gives it."""
        above, _, last = ("", "", name) if "/" in self.tail else name.rpartition("/")
        return self.folder / above / self.tail.replace(ID, last).replace(ANY, "*")

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        nested = "/" in self.tail
        written = {ID: "(?P<id>.+)" if nested else "(?P<id>[^/]+)", ANY: "[^/]*"}
        text, seen = "" if nested else r"(?P<folders>(?:[^/]+/)*)", False
        for part in re.split(r"(\{id\}|\{any\})", self.tail):
            text += "(?P=id)" if part == ID and seen else written.get(part, re.escape(part))
            seen = seen or part == ID
        if not self.tail.lower().endswith(IMAGE_SUFFIXES):
            text += rf"(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})"
        return re.compile(text, re.IGNORECASE)


def untagged(path: PurePosixPath, kind: str = "camera") -> str:
    """Return a file's path without suffix, modality folders and tags: the same for both images of a pair."""
    folders = [part for part in path.parent.parts if not _TAG_FOLDER.fullmatch(part)]
    tagged = _TAGGED[kind].fullmatch(path.stem)
    return composed(PurePosixPath(*folders, tagged["name"] if tagged else path.stem).as_posix())


def is_tagged(path: PurePosixPath, kind: str) -> bool:
    """Return whether a file's name begins or ends with a word for `kind`: rgb, thermal or labels."""
    tagged = _TAGGED[kind].fullmatch(path.stem)
    return tagged is not None and (tagged["first"] or tagged["last"]) is not None


def nearest(names: Iterable[str], others: Iterable[str]) -> tuple[str, str]:
    """Return the two names that are most alike, among the first of each."""
    pairs = [
        (one, other)
        for one in sorted(names, key=natural_key)[:20]
        for other in sorted(others, key=natural_key)[:200]
    ]
    return max(pairs, key=lambda pair: difflib.SequenceMatcher(None, *pair).ratio())


def suggest(one: str, other: str) -> tuple[str, str] | None:
    """Return patterns for two file names, with `{id}` for the longest part with digits that they share.

    None without such a part. Paths may lead to the names; only the last part gets the place.
    """
    names = [PurePosixPath(name) for name in (one, other)]
    stems = [name.stem for name in names]
    blocks = difflib.SequenceMatcher(None, stems[0], stems[1], autojunk=False).get_matching_blocks()
    shared = [stems[0][block.a : block.a + block.size].strip("_-. ()[]") for block in blocks]
    shared = [text for text in shared if re.search(r"\d", text)]
    if not shared:
        return None
    best = max(shared, key=len)
    found = [str(name.with_name(name.stem.replace(best, ID, 1) + name.suffix)) for name in names]
    return found[0], found[1]
