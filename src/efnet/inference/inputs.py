"""Files to predict, matched into pairs: images by name, folder or glob, or members of tar files.

In tars, `NAME.rgb.png` and `NAME.thermal.png`, or `NAME.rgbt.png`, make a pair.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from efnet.core.errors import InputError, ManyInputsError
from efnet.data.archive import members_of
from efnet.data.decode import page_at
from efnet.data.images import IMAGE_SUFFIXES
from efnet.data.layouts import is_packed
from efnet.data.layouts.patterns import (
    ID,
    NamePattern,
    composed,
    files_below,
    images_below,
    is_pattern,
    is_tagged,
    nearest,
    suggest,
    untagged,
)
from efnet.data.radiometric import are_pairs
from efnet.inference.missing_cameras import Camera

VIDEO_SUFFIXES = (
    ".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".seq", ".ts", ".mts", ".m2ts",
    ".h264", ".264", ".h265", ".hevc", ".265", ".y4m", ".3gp", ".3g2", ".flv", ".ogv", ".mxf", ".vob",
)  # fmt: skip

_WILDCARDS = "*?["

_MEMBER = re.compile(
    rf"(?P<key>(?:.*/)?[^./]+)\.(?P<kind>rgbt?|thermal)(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})",
    re.IGNORECASE,
)

Found = list[tuple[PurePosixPath, Path]]  # path below the searched folder, and path, of each file


@dataclass(frozen=True)
class InputPair:
    """The files of one pair without a label."""

    name: str  # relative path without suffix, `/` between folders; outputs carry it
    rgb: Path | None  # the colour image (of four channels for a model of both without `thermal`)
    thermal: Path | None  # the thermal image
    absent: Camera | None = None  # the camera that does not exist, for a model of both; None: both do

    @property
    def files(self) -> list[Path]:
        """Its one or two files."""
        return [path for path in (self.rgb, self.thermal) if path is not None]

    def blame(self, error: InputError) -> str:
        """The message of an error, with the files' names in front where it lacks them."""
        text, files = str(error), [str(path) for path in self.files]
        return text if any(file in text for file in files) else f"{' and '.join(files)}: {text}"


def find_pairs(
    rgb: str | None = None,
    thermal: str | None = None,
    rgbt: str | None = None,
    exclude: Path | None = None,
    page: int | None = None,
) -> tuple[InputPair, ...]:
    """Find the files that a user means, and match them; return the pairs sorted by name.

    Each of `rgb`, `thermal` and `rgbt` is a file, a folder (searched with its sub-folders), a glob pattern
    (`**` for any depth), or a pattern of names (`rgb/original_{id}.jpg`; `NamePattern`). RGB and thermal
    files match if their paths below the folder differ only in the suffix. If none do, folders named after a
    modality (`rgb/`, `thermal/`, `ir/`) and modality tags on names (`0001_rgb.png`, `0001_th.png`) are left
    out of the comparison. One folder of both cameras is divided by these tags. Two single files match
    whatever their names.

    `rgb` or `thermal` alone is for a model of that modality. `rgbt` are four-channel images, thermal last, or
    tars of pairs, and excludes the other two. The folder `exclude` (the output folder) is not searched.
    `page`, from 1, is read of TIFFs that have several.

    Raises InputError: nothing given, nothing found, or a video; ManyInputsError: every file without its
    partner and every name that occurs twice, at once.
    """
    if page is not None:
        if page < 1:
            raise InputError(f"`page` {page}: give a number from 1")
        pairs = find_pairs(rgb, thermal, rgbt, exclude)
        return tuple(
            replace(pair, rgb=page_at(pair.rgb, page), thermal=page_at(pair.thermal, page)) for pair in pairs
        )
    if rgbt is not None and (rgb is not None or thermal is not None):
        raise InputError("`rgbt` already holds both images; leave out `rgb` and `thermal`")
    if rgbt is not None and (rgbt.endswith(".tar") or is_packed(Path(rgbt).expanduser())):
        files = _pairs_in_tars(rgbt)
        return tuple(InputPair(name, *files[name]) for name in _ordered(files))
    if rgb is not None and thermal is not None:
        return _match(rgb, thermal, exclude)
    if thermal is not None:
        alone = _single("thermal", thermal, exclude)
        return tuple(InputPair(name, None, file) for name, file in alone.items())
    if rgb is None and rgbt is None:
        raise InputError("nothing to predict: give `rgb` and `thermal`, or `rgbt`")
    what, pattern = ("rgb", rgb) if rgb is not None else ("rgbt", rgbt or "")
    return tuple(InputPair(name, file, None) for name, file in _single(what, pattern, exclude).items())


def _find_images(what: str, pattern: str, exclude: Path | None) -> Found:
    """List the image files, none of them below `exclude`, that a file name, folder or glob means."""
    path = Path(pattern).expanduser()
    if path.is_file():
        _refuse_video(what, path)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(f"`{what}` {path}: not an image file ({', '.join(IMAGE_SUFFIXES)})")
        return [(PurePosixPath(path.name), path)]
    excluded = None if exclude is None else exclude.resolve()
    if path.is_dir():
        base, files = path, list(files_below(path, excluded))
    elif is_pattern(pattern):
        named = NamePattern.read(path)
        found = [
            (PurePosixPath(f"{name}{file.suffix}"), file)
            for name, file in named.find()
            if excluded is None or not file.resolve().is_relative_to(excluded)
        ]
        if not found:
            there = [file.relative_to(named.folder).as_posix() for file in images_below(named.folder)]
            near = (
                f"the nearest name there is {nearest([named.tail], there)[1]}"
                if there
                else "no image is there"
            )
            raise InputError(f"`{what}` {pattern}: fits no file; {near}; correct the pattern")
        return found
    elif any(mark in pattern for mark in _WILDCARDS):
        base, globbed = _glob(path)
        files = [
            file
            for file in globbed
            if not (excluded is not None and file.resolve().is_relative_to(excluded))
            and not file.name.startswith(".")
            and file.is_file()
        ]
    else:
        raise InputError(f"`{what}` {pattern}: no such file or folder; check the path")
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        for file in files:
            _refuse_video(what, file)
        raise InputError(f"`{what}` {pattern}: no image there ({', '.join(IMAGE_SUFFIXES)}); check the path")
    return [(PurePosixPath(file.relative_to(base).as_posix()), file) for file in images]


def _glob(path: Path) -> tuple[Path, list[Path]]:
    """The folder before the first wildcard, and what the pattern finds below it."""
    parts = path.parts
    # Brackets belong to a name where a folder has it.
    wild = (place for place, part in enumerate(parts) if any(mark in part for mark in _WILDCARDS))
    first = next((place for place in wild if not Path(*parts[: place + 1]).is_dir()), len(parts) - 1)
    base = Path(*parts[:first])
    try:
        return base, sorted(set(base.glob(str(Path(*parts[first:])))))
    except ValueError as error:
        raise InputError(f"{path}: not a pattern that can be searched ({error})") from error


def _refuse_video(what: str, file: Path) -> None:
    if file.suffix.lower() in VIDEO_SUFFIXES:
        raise InputError(
            f"`{what}` {file}: a video is not an image; give a pair of videos, `rgb` rgb.mp4 and `thermal` "
            "thermal.mp4"
        )


def _pairs_in_tars(pattern: str) -> dict[str, tuple[Path, Path | None]]:
    """Return the pairs, by name, in a folder of shards or in tars (by name or glob, separated by commas)."""
    found: dict[str, dict[str, Path]] = {}
    faults: list[str] = []
    for tar in _tars(pattern):
        for member in members_of(tar):
            match = _MEMBER.fullmatch(member)
            if match is None:
                continue
            files = found.setdefault(_name_of_key(match["key"]), {})
            kind = "thermal" if match["kind"].lower() == "thermal" else "rgb"
            if kind in files:
                faults.append(f"{tar / member}: same name as {files[kind]}; give one of the two tars")
            files.setdefault(kind, tar / member)
    faults += [
        f"{files['thermal']}: no RGB image of that name" for files in found.values() if "rgb" not in files
    ]
    if faults:
        raise ManyInputsError(f"`rgbt` {pattern}: images that make no pairs", faults)
    if not found:
        raise InputError(
            f"`rgbt` {pattern}: no NAME.rgb.png and NAME.thermal.png there, and no NAME.rgbt.png; pack the "
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
        if any(mark in part for mark in _WILDCARDS) and not path.is_file():
            anchor = Path(path.anchor)
            tars += sorted(anchor.glob(str(path.relative_to(anchor))))
        else:
            tars.append(path)
    if not tars:
        raise InputError(f"`rgbt` {pattern}: no such tar; check the path")
    return list(dict.fromkeys(tars))


def _name_of_key(key: str) -> str:
    """The name that was packed under this key. Outputs carry it, so it has to stay below their folder."""
    name = urllib.parse.unquote(key)
    parts = PurePosixPath(name).parts
    unsafe = "\\" in name or any(ord(letter) < 32 for letter in name) or name.startswith("/") or ".." in parts
    return key if unsafe or PurePosixPath(name).as_posix() != name else name


def _match(rgb: str, thermal: str, exclude: Path | None) -> tuple[InputPair, ...]:
    """Match two lists of files; faults of both are collected before any is reported."""
    rgb_found, thermal_found = _find_images("rgb", rgb, exclude), _find_images("thermal", thermal, exclude)
    rgb_alone, thermal_alone = Path(rgb).expanduser().is_file(), Path(thermal).expanduser().is_file()
    if rgb_alone and thermal_alone:
        return (InputPair(rgb_found[0][0].stem, rgb_found[0][1], thermal_found[0][1]),)
    faults: list[str] = []
    if len(rgb_found) > 1 and {file for _, file in rgb_found} == {file for _, file in thermal_found}:
        # One folder of both cameras: tags of names separate them, or each file holds both images.
        everything = rgb_found
        thermal_found = [(path, file) for path, file in rgb_found if is_tagged(path, "thermal")]
        taken = (*thermal_found, *(entry for entry in rgb_found if is_tagged(entry[0], "labels")))
        rgb_found = [entry for entry in rgb_found if entry not in taken]
        if (not thermal_found or not rgb_found) and are_pairs(file for _, file in everything):
            rgb_found = thermal_found = everything
        if not thermal_found or not rgb_found:
            raise InputError(
                f"{rgb}: given for both cameras, but names do not show which (0001_rgb and 0001_ir would); "
                f'give patterns, `rgb` "{rgb}/original_{ID}.jpg" and `thermal` "{thermal}/heat_{ID}.jpg"'
            )
    exact = {_plain_name(path) for path, _ in rgb_found} & {_plain_name(path) for path, _ in thermal_found}
    # Tags come off only where names do not match as they are: outputs keep the names that users know.
    name_of = _plain_name if exact else untagged
    rgb_files = _by_name(rgb_found, name_of, faults)
    thermal_files = _by_name(thermal_found, name_of, faults)
    # A single file beside a folder asks for its own partner only.
    if rgb_alone:
        thermal_files = {name: file for name, file in thermal_files.items() if name in rgb_files}
    if thermal_alone:
        rgb_files = {name: file for name, file in rgb_files.items() if name in thermal_files}
    for files, others, kind in ((rgb_files, thermal_files, "thermal"), (thermal_files, rgb_files, "RGB")):
        lone = _ordered(files.keys() - others.keys())
        faults += [f"{files[name]}: no {kind} image of that name" for name in lone]
    if faults:
        remedy = "give both images of a pair the same name, once"
        if not rgb_files.keys() & thermal_files.keys() and rgb_files and thermal_files:
            remedy += f"; the nearest are {_nearest(rgb_files, thermal_files)}"
        raise ManyInputsError(f"{rgb} and {thermal} do not match; {remedy}", faults)
    return tuple(InputPair(name, rgb_files[name], thermal_files[name]) for name in _ordered(rgb_files))


def _plain_name(path: PurePosixPath) -> str:
    """Relative path without suffix, its accents composed: macOS stores them apart from their letters."""
    return composed((path.parent / path.stem).as_posix())


def _nearest(files: Mapping[str, Path], others: Mapping[str, Path]) -> str:
    """The names of two files that are most alike, and the patterns that would match them."""
    one, other = nearest(files, others)
    text = f"{files[one].name} and {others[other].name}"
    patterns = suggest(files[one].name, others[other].name)
    if patterns is None:
        return text
    places = (files[one].parent / patterns[0], others[other].parent / patterns[1])
    return f'{text}: give `rgb` "{places[0]}" and `thermal` "{places[1]}"'


def _by_name(found: Found, name_of: Callable[[PurePosixPath], str], faults: list[str]) -> dict[str, Path]:
    """Files by name; a name that occurs twice is a fault, since one output would replace the other."""
    files: dict[str, Path] = {}
    for path, file in found:
        name = name_of(path)
        if name in files:
            faults.append(f"{file}: same name as {files[name]}; remove or rename one")
        else:
            files[name] = file
    return files


def _single(what: str, pattern: str, exclude: Path | None) -> dict[str, Path]:
    """The files of a parameter that stands alone, by name and in order."""
    faults: list[str] = []
    files = _by_name(_find_images(what, pattern, exclude), _plain_name, faults)
    if faults:
        raise ManyInputsError(f"`{what}` {pattern}: names that occur twice", faults)
    return {name: files[name] for name in _ordered(files)}


def _ordered(names: Iterable[str]) -> list[str]:
    """By folder, then by name, with numbers in numeric order (`frame9` before `frame10`)."""

    def key(name: str) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", name)
        return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]

    return sorted(names, key=key)
