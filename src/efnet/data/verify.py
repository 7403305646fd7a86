"""Every fault of a split found in one pass, before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError, ManyInputsError
from efnet.data.images import ImageHeader, read_header, read_label, read_raw_thermal, read_rgb, split_channels
from efnet.data.pairs import Pair, PairSet
from efnet.data.sample import require_same_size, threaded

_Result = TypeVar("_Result")

Progress = Callable[[int, int], None]  # called with the number of pairs done and their total


@dataclass(frozen=True)
class Inspection:
    """Contents and faults of the files of one pair."""

    faults: tuple[str, ...]  # one line each, naming the file and the remedy
    size: tuple[int, int] | None = None  # (H, W) of the colour image, if it could be read
    thermal_kind: str | None = None  # how thermal is stored, such as `16-bit`
    thermal_range: tuple[float, float] | None = None  # of raw thermal values; None if not decoded
    label_kind: str | None = None  # how the label is stored; None without one
    label_pixels: NDArray[np.int64] | None = None  # (256,) pixels of each label value; None if not decoded


def verify(
    pairset: PairSet,
    require_labels: bool = True,
    *,
    headers_only: bool = False,
    progress: Progress | None = None,
) -> None:
    """Check that every pair of a split can be read and is sound.

    Faults are: an empty split, names listed twice, missing partners, unreadable files, sizes that differ
    within a pair, thermal files that are not thermal images, and labels with values outside the class set.

    Args:
        pairset: the split.
        require_labels: an unlabelled pair is a fault.
        headers_only: read sizes only: fast, but damage and label values go unnoticed.
        progress: called with the pairs done and their total.

    Raises:
        ManyInputsError: naming every fault at once.
    """
    faults = split_faults(pairset, require_labels)
    for inspection in inspect(pairset, headers_only=headers_only, progress=progress):
        faults += inspection.faults
    faults = list(dict.fromkeys(faults))  # files shared by a pair and its mirrored copy
    if faults:
        summary = f"{pairset.root}: {pairset.dataset} split '{pairset.split}', {len(pairset)} pairs"
        raise ManyInputsError(summary, faults)


def split_faults(pairset: PairSet, require_labels: bool) -> list[str]:
    """List the faults visible in the names alone: no pairs, a name listed twice, no labels."""
    split = f"split '{pairset.split}'"
    if not pairset.pairs:
        return [f"{pairset.root}: {split} has no pairs; add images, or choose another split"]
    seen: set[str] = set()
    faults = []
    for pair in pairset.pairs:
        if pair.name in seen:
            faults.append(f"{pair.name}: listed twice in {split}; remove one of the two lines")
        seen.add(pair.name)
    unlabelled = [pair for pair in pairset.pairs if pair.label is None]
    if require_labels and len(unlabelled) == len(pairset.pairs):
        faults.append(f"{pairset.root}: {split} has no folder of labels; add it beside the images")
    elif require_labels:
        remedy = "add one, or take the pair out of the split"
        faults += [f"{pair.rgb}: has no label; {remedy}" for pair in unlabelled]
    return faults


def inspect(
    pairset: PairSet, *, headers_only: bool = False, progress: Progress | None = None
) -> Iterator[Inspection]:
    """Inspect the pairs in their order, several at a time; files that pairs share are read once."""
    pairs = pairset.pairs
    first: dict[tuple[Path, Path | None, Path | None], int] = {}
    for index, pair in enumerate(pairs):
        first.setdefault((pair.rgb, pair.thermal, pair.label), index)
    done: dict[int, Inspection] = {}
    classes, registered = pairset.classes, pairset.registered
    inspect_one = partial(inspect_pair, classes=classes, headers_only=headers_only, registered=registered)
    found = threaded(inspect_one, (pairs[index] for index in first.values()))
    for count, (index, inspection) in enumerate(zip(first.values(), found, strict=True), start=1):
        done[index] = inspection
        if progress is not None:
            progress(count, len(first))
    for pair in pairs:
        yield done[first[(pair.rgb, pair.thermal, pair.label)]]


def inspect_pair(
    pair: Pair, classes: ClassSet, *, headers_only: bool = False, registered: bool = True
) -> Inspection:
    """Inspect the files of one pair; faults are collected, not raised."""
    faults: list[str] = []
    rgb = _attempt(faults, read_header, pair.rgb)
    thermal = rgb if pair.thermal is None else _attempt(faults, read_header, pair.thermal)
    label = None if pair.label is None else _attempt(faults, read_header, pair.label)
    for what, path, header in (("thermal image", pair.thermal, thermal), ("label", pair.label, label)):
        if what == "thermal image" and not registered:
            continue
        if rgb is not None and header is not None and path is not None:
            sizes = (header.height, header.width), pair.rgb, (rgb.height, rgb.width)
            _attempt(faults, require_same_size, what, path, *sizes)
    thermal_range, pixels = None, None
    if not headers_only:
        raw: NDArray[Any] | None = None
        if pair.thermal is not None:
            if rgb is not None:
                _attempt(faults, read_rgb, pair.rgb)
            raw = None if thermal is None else _attempt(faults, read_raw_thermal, pair.thermal)
        elif rgb is not None:
            raw = _attempt(faults, _fourth_channel, pair.rgb)
        thermal_range = None if raw is None else (float(raw.min()), float(raw.max()))
        if pair.label is not None and label is not None:
            index = _attempt(faults, read_label, pair.label, classes)
            pixels = None if index is None else np.bincount(index.ravel(), minlength=256)
    elif pair.thermal is None and rgb is not None and not rgb.four_channels:
        _attempt(faults, split_channels, pair.rgb)
    return Inspection(
        faults=tuple(faults),
        size=None if rgb is None else (rgb.height, rgb.width),
        thermal_kind=None if thermal is None else _kind_of_thermal(thermal),
        thermal_range=thermal_range,
        label_kind=None if label is None else _kind_of_label(label),
        label_pixels=pixels,
    )


def _fourth_channel(path: Path) -> NDArray[np.uint8]:
    """The raw thermal channel of a four-channel file; a fourth channel that is opacity is refused."""
    _, thermal = split_channels(path)
    if (thermal == 255).all():
        fault = "its fourth channel is 255 throughout, opacity and not thermal"
        raise InputError(f"{path}: {fault}; use the original file")
    return thermal


def _kind_of_thermal(header: ImageHeader) -> str:
    if header.four_channels:
        return "8-bit, fourth channel"
    kinds = {"L": "8-bit", "RGB": "8-bit, three channels", "I": "32-bit integer", "F": "32-bit float"}
    return "16-bit" if header.mode.startswith("I;16") else kinds.get(header.mode, f"8-bit ({header.mode})")


def _kind_of_label(header: ImageHeader) -> str:
    kinds = {"L": "8-bit index", "P": "palette index", "RGB": "colour", "RGBA": "colour"}
    return "16-bit index" if header.mode.startswith("I") else kinds.get(header.mode, header.mode)


def _attempt(faults: list[str], function: Callable[..., _Result], *arguments: Any) -> _Result | None:
    """Call `function`; an `InputError` joins `faults`."""
    try:
        return function(*arguments)
    except InputError as error:
        faults.append(str(error))
        return None
