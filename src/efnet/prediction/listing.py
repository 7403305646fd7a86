"""Image files found by name, folder or glob."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from efnet.data.images import IMAGE_SUFFIXES
from efnet.errors import InputError

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
