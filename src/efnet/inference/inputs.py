"""Files to predict, matched into pairs.

Image files found by name, folder or glob.

Pairs without labels in tar files: those of `efnet data pack`, or of any program that names them so.

`NAME.rgb.png` and `NAME.thermal.png`, or `NAME.rgbt.png`; other files in the tar are passed over.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from efnet.core.errors import InputError, ManyInputsError
from efnet.data.archive import members_of
from efnet.data.images import IMAGE_SUFFIXES
from efnet.data.layouts.packed import is_packed
from efnet.inference.missing_cameras import Camera

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".seq")


def find_images(option: str, pattern: str, exclude: Path | None = None) -> list[tuple[PurePosixPath, Path]]:
    """List the image files that a file name, folder or glob means.

    Args:
        option: how messages call it.
        pattern: the file, folder or glob.
        exclude: folder whose files are left out.

    Returns:
        (path below the searched folder, path) of each file, sorted.

    Raises:
        InputError: nothing there, no image there, a video, an unknown suffix, or a folder that cannot be
            listed.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        _check_suffix(option, path)
        return [(PurePosixPath(path.name), path)]
    if path.is_dir():
        base, files = path, list(_files_below(path, None if exclude is None else exclude.resolve()))
    elif any(mark in pattern for mark in "*?["):
        base, found = _glob(path)
        files = list(_outside(exclude, found))
    else:
        raise InputError(f"{option} {pattern}: no such file or folder; check the path")
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        for file in files:
            _check_video(option, file)
        raise InputError(f"{option} {pattern}: no image there ({', '.join(IMAGE_SUFFIXES)}); check the path")
    return [(PurePosixPath(file.relative_to(base).as_posix()), file) for file in images]


def _files_below(folder: Path, excluded: Path | None) -> Iterator[Path]:
    """Files that are not hidden, in order; links to folders are not followed, they might go round."""
    if excluded is not None and folder.resolve().is_relative_to(excluded):
        return
    try:
        # One call for all names: to ask for each file apart takes seconds for ten thousand on a server.
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); change its permissions") from error
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(folder / entry.name, excluded)
        elif not entry.name.startswith(".") and _is_file(entry):
            yield folder / entry.name


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def _outside(exclude: Path | None, found: Iterable[Path]) -> Iterator[Path]:
    """Files that are not hidden and do not lie in the folder left out."""
    excluded = None if exclude is None else exclude.resolve()
    for file in found:
        inside = excluded is not None and file.resolve().is_relative_to(excluded)
        if not inside and not file.name.startswith(".") and file.is_file():
            yield file


def _glob(path: Path) -> tuple[Path, list[Path]]:
    """The folder before the first wildcard, and what the pattern finds below it."""
    parts = path.parts
    first = next(place for place, part in enumerate(parts) if any(mark in part for mark in "*?["))
    base = Path(*parts[:first])
    try:
        return base, sorted(set(base.glob(str(Path(*parts[first:])))))
    except ValueError as error:
        raise InputError(f"{path}: not a pattern that can be searched ({error})") from error


def _check_suffix(option: str, file: Path) -> None:
    _check_video(option, file)
    if file.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{option} {file}: not an image file ({', '.join(IMAGE_SUFFIXES)})")


def _check_video(option: str, file: Path) -> None:
    if file.suffix.lower() in VIDEO_SUFFIXES:
        raise InputError(
            f"{option} {file}: a video is no image; efnet predict takes a pair of videos, "
            "--rgb rgb.mp4 --thermal thermal.mp4"
        )


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


_TAGS = "rgb|vis|visible|vi|color|colour|thermal|therm|th|infrared|ir|lwir|tir|t"
_TAGGED = re.compile(rf"^(?:(?:{_TAGS})[_-])?(.+?)(?:[_-](?:{_TAGS}))?$", re.IGNORECASE)
_TAG_FOLDER = re.compile(rf"^(?:{_TAGS})$", re.IGNORECASE)


@dataclass(frozen=True)
class InputPair:
    """The files of one pair without a label.

    Attributes:
        name: relative path without suffix, `/` between folders; outputs carry it.
        rgb: the colour image, or the four-channel image if `thermal` is None and the model wants both;
            None for thermal alone.
        thermal: the thermal image.
        absent: the camera that there is not, for a model of both; None: it has all that it wants.
    """

    name: str
    rgb: Path | None
    thermal: Path | None
    absent: Camera | None = None


def find_pairs(
    rgb: str | None = None,
    thermal: str | None = None,
    rgbt: str | None = None,
    exclude: Path | None = None,
) -> tuple[InputPair, ...]:
    """Find the files that a user means, and match them.

    Each of `rgb`, `thermal` and `rgbt` is a file, a folder (searched with its sub-folders) or a glob
    pattern (`**` for any depth). RGB and thermal files match if their paths below the folder are the
    same but for the suffix; if none are, folders named after a modality (`rgb/`, `thermal/`, `ir/`) and
    modality tags on names (`0001_rgb.png`, `0001_th.png`) are left out of the comparison. Two single
    files match whatever their names.

    Args:
        rgb: colour images. Alone: for an RGB-only model.
        thermal: thermal images. Alone: for a thermal-only model.
        rgbt: four-channel images, thermal last, or tars (`efnet.inference.inputs`); excludes the other two.
        exclude: folder that is not searched (the output folder, if it lies inside an input folder).

    Returns:
        the pairs, sorted by name.

    Raises:
        InputError: nothing given, nothing found, or a video.
        ManyInputsError: every file without its partner and every name that occurs twice, at once.
    """
    if rgbt is not None:
        if rgb is not None or thermal is not None:
            raise InputError("--rgbt already holds both images; leave out --rgb and --thermal")
        if names_tars(rgbt):
            files = pairs_in_tars(rgbt)
            return tuple(InputPair(name, *files[name]) for name in _ordered(files))
        return tuple(InputPair(name, file, None) for name, file in _single("--rgbt", rgbt, exclude).items())
    if rgb is not None and thermal is not None:
        return _match(rgb, thermal, exclude)
    if rgb is not None:
        return tuple(InputPair(name, file, None) for name, file in _single("--rgb", rgb, exclude).items())
    if thermal is not None:
        alone = _single("--thermal", thermal, exclude)
        return tuple(InputPair(name, None, file) for name, file in alone.items())
    raise InputError("nothing to predict: give --rgb and --thermal, or --rgbt")


def _match(rgb: str, thermal: str, exclude: Path | None) -> tuple[InputPair, ...]:
    """Match two lists of files; faults of both are collected before any is reported."""
    rgb_found, thermal_found = find_images("--rgb", rgb, exclude), find_images("--thermal", thermal, exclude)
    if Path(rgb).expanduser().is_file() and Path(thermal).expanduser().is_file():
        (rgb_path, rgb_file), (_, thermal_file) = rgb_found[0], thermal_found[0]
        return (InputPair(rgb_path.stem, rgb_file, thermal_file),)
    faults: list[str] = []
    exact = {plain_name(path) for path, _ in rgb_found} & {plain_name(path) for path, _ in thermal_found}
    # Tags come off only where names do not match as they are: outputs keep the names that users know.
    name_of = plain_name if exact else match_name
    rgb_files = _by_name(rgb_found, name_of, faults)
    thermal_files = _by_name(thermal_found, name_of, faults)
    # A single file beside a folder asks for its own partner only.
    if len(rgb_found) == 1 and Path(rgb).expanduser().is_file():
        thermal_files = {name: file for name, file in thermal_files.items() if name in rgb_files}
    if len(thermal_found) == 1 and Path(thermal).expanduser().is_file():
        rgb_files = {name: file for name, file in rgb_files.items() if name in thermal_files}
    both = rgb_files.keys() & thermal_files.keys()
    faults += [
        f"{rgb_files[name]}: no thermal image of that name" for name in _ordered(rgb_files.keys() - both)
    ]
    faults += [
        f"{thermal_files[name]}: no RGB image of that name" for name in _ordered(thermal_files.keys() - both)
    ]
    if faults:
        raise ManyInputsError(
            f"{rgb} and {thermal} do not match; give both images of a pair the same name, once", faults
        )
    return tuple(InputPair(name, rgb_files[name], thermal_files[name]) for name in _ordered(both))


def plain_name(path: PurePosixPath) -> str:
    """Relative path without suffix: what outputs are named after."""
    return (path.parent / path.stem).as_posix()


def match_name(path: PurePosixPath) -> str:
    """What the two images of a pair have in common: no suffix, no modality folder, no modality tag."""
    folders = [part for part in path.parent.parts if not _TAG_FOLDER.match(part)]
    tagged = _TAGGED.match(path.stem)
    return PurePosixPath(*folders, tagged.group(1) if tagged else path.stem).as_posix()


def _by_name(
    found: Iterable[tuple[PurePosixPath, Path]], name_of: Callable[[PurePosixPath], str], faults: list[str]
) -> dict[str, Path]:
    """Files by name; a name that occurs twice is a fault, since one output would replace the other."""
    files: dict[str, Path] = {}
    for path, file in found:
        name = name_of(path)
        if name in files:
            faults.append(f"{file}: same name as {files[name]}; remove or rename one")
        else:
            files[name] = file
    return files


def _single(option: str, pattern: str, exclude: Path | None) -> dict[str, Path]:
    """The files of an option that stands alone, by name and in order."""
    faults: list[str] = []
    files = _by_name(find_images(option, pattern, exclude), plain_name, faults)
    if faults:
        raise ManyInputsError(f"{option} {pattern}: names that occur twice", faults)
    return {name: files[name] for name in _ordered(files)}


def _ordered(names: Iterable[str]) -> list[str]:
    """By folder, then by name, with numbers in numeric order (`frame9` before `frame10`)."""

    def key(name: str) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", name)
        return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]

    return sorted(names, key=key)
