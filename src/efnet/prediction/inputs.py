"""Files to predict, matched into pairs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from efnet.errors import InputError, ManyInputsError
from efnet.prediction.listing import find_images
from efnet.prediction.modality import Camera
from efnet.prediction.packed import names_tars, pairs_in_tars

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
        rgbt: four-channel images, thermal last, or tars (`efnet.prediction.packed`); excludes the other two.
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
