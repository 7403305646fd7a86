"""Every fault of a split found in one pass, before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError, ManyInputsError
from efnet.data.false_color import SOME, Decoded, is_palette
from efnet.data.images import (
    ImageHeader,
    far_values,
    not_of_the_image,
    of_colors,
    open_image,
    read_header,
    read_rgb,
    scale_thermal,
    split_channels,
    telemetry,
    thermal_values,
)
from efnet.data.items import read_item
from efnet.data.labels import read_label
from efnet.data.pairs import ItemPair, Pair, PairSet, ThermalScale
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
    thermal_unit: str | None = None  # that raw thermal values look like; None: none that is known
    label_kind: str | None = None  # how the label is stored; None without one
    label_pixels: NDArray[np.int64] | None = None  # (256,) pixels of each label value; None if not decoded
    notes: tuple[tuple[str, Path], ...] = ()  # what is odd but can be read, and the file


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
    inspect_one = partial(
        inspect_pair,
        classes=pairset.classes,
        headers_only=headers_only,
        registered=pairset.registered,
        scale=pairset.thermal_scale,
    )
    found = threaded(inspect_one, (pairs[index] for index in first.values()))
    for count, (index, inspection) in enumerate(zip(first.values(), found, strict=True), start=1):
        done[index] = inspection
        if progress is not None:
            progress(count, len(first))
    for pair in pairs:
        yield done[first[(pair.rgb, pair.thermal, pair.label)]]


def inspect_pair(
    pair: Pair,
    classes: ClassSet,
    *,
    headers_only: bool = False,
    registered: bool = True,
    scale: ThermalScale = "auto",
) -> Inspection:
    """Inspect the files of one pair; faults are collected, not raised."""
    faults: list[str] = []
    if isinstance(pair, ItemPair):
        if not headers_only:
            _attempt(faults, read_item, pair, classes, scale)
        return Inspection(tuple(faults))
    rgb = _attempt(faults, read_header, pair.rgb)
    thermal = rgb if pair.thermal is None else _attempt(faults, read_header, pair.thermal)
    label = None if pair.label is None else _attempt(faults, read_header, pair.label)
    for what, path, header in (("thermal image", pair.thermal, thermal), ("label", pair.label, label)):
        if what == "thermal image" and not registered:
            continue
        if rgb is not None and header is not None and path is not None:
            sizes = (header.height, header.width), pair.rgb, (rgb.height, rgb.width)
            _attempt(faults, require_same_size, what, path, *sizes)
    notes = _turned(rgb, ((thermal, pair.thermal), (label, pair.label)))
    thermal_range, unit, pixels = None, None, None
    kind = None if thermal is None else _kind_of_thermal(thermal)
    if not headers_only:
        colors = None if rgb is None else _attempt(faults, read_rgb, pair.rgb)
        if colors is not None and rgb is not None and rgb.bits == 16 and 0 < colors.max() < 64:
            text = "16-bit colour stays below a quarter of its range; if it has 14 bits or fewer, scale it"
            notes.append((text, pair.rgb))
        path, heat = pair.thermal or pair.rgb, None
        if thermal is not None and (pair.thermal is not None or colors is not None):
            heat = _attempt(faults, _heat, path, pair.thermal is None, scale)
        if heat is not None:
            raw, missing, decoded = heat
            kind = kind if decoded is None else decoded.described
            thermal_range, unit = (float(raw.min()), float(raw.max())), unit_of(raw)
            notes += [(text, path) for text in _oddities(raw, missing, decoded)]
            if scale != "auto" and not is_palette(scale):
                _attempt(faults, scale_thermal, raw, scale, missing, str(path))
        if pair.label is not None and label is not None:
            index = _attempt(faults, read_label, pair.label, classes)
            pixels = None if index is None else np.bincount(index.ravel(), minlength=256)
    elif pair.thermal is None and rgb is not None and not rgb.four_channels:
        _attempt(faults, split_channels, pair.rgb)
    return Inspection(
        faults=tuple(faults),
        size=None if rgb is None else (rgb.height, rgb.width),
        thermal_kind=kind,
        thermal_range=thermal_range,
        thermal_unit=unit,
        label_kind=None if label is None else _kind_of_label(label),
        label_pixels=pixels,
        notes=tuple(notes),
    )


def _heat(
    path: Path, fourth: bool, scale: ThermalScale
) -> tuple[NDArray[Any], NDArray[np.bool_] | None, Decoded | None]:
    """Raw thermal values, the mask of missing ones, and the colours that they come from.

    A fourth channel that is opacity is refused.
    """
    if not fourth and isinstance(scale, str) and is_palette(scale):
        decoded = of_colors(open_image(path), scale)
        return decoded.values, None, decoded
    if not fourth:
        return *thermal_values(open_image(path)), None
    _, thermal = split_channels(path)
    if thermal.dtype.kind == "u" and (thermal == np.iinfo(thermal.dtype).max).all():
        fault = f"its fourth channel is {thermal.max()} throughout, opacity and not thermal"
        raise InputError(f"{path}: {fault}; use the original file")
    return thermal, None, None


def unit_of(raw: NDArray[Any]) -> str | None:
    """Return the unit that raw thermal values (H, W) look like, by their size; None: no temperature's."""
    if raw.dtype == np.uint8:
        return None
    kept = raw[~not_of_the_image(raw)]
    low, high = (
        float(value) for value in np.percentile((kept if kept.size else raw).astype(np.float64), (1, 99))
    )
    if raw.dtype.kind == "f" and low >= -60 and high <= 180 and not (low >= 0 and high <= 1):
        return "degrees Celsius"
    for unit, scale in (("kelvin", 1), ("centikelvin", 100)):
        if 213 * scale <= low and high <= 453 * scale:
            return unit
    return None


def _oddities(raw: NDArray[Any], missing: NDArray[np.bool_] | None, decoded: Decoded | None) -> list[str]:
    """Describe what the automatic stretch, or a colour map, leaves out of a thermal image."""
    found = []
    if decoded is not None and decoded.far > SOME:
        found.append("has pixels that are not of its colour map (text, a logo), filled from beside them")
    if missing is not None:
        found.append("has missing values (nodata), which are read as the coldest value")
    if raw.dtype == np.uint8:
        return found
    rows = telemetry(raw)
    values = list(dict.fromkeys([*far_values(raw), *far_values(raw[~rows])]))
    found += [
        f"has {value:g} in many pixels, far from all other values (an empty border?); `auto` leaves it out"
        for value in values
    ]
    if (rows & ~np.isin(raw, values)).any():
        found.append("begins or ends with rows that are not of the image (telemetry); crop them")
    return found


def _turned(
    rgb: ImageHeader | None, others: Sequence[tuple[ImageHeader | None, Path | None]]
) -> list[tuple[str, Path]]:
    """Note an image that is stored turned while another of its pair is not."""
    found = []
    for header, other in others:
        if (
            rgb is not None
            and header is not None
            and other is not None
            and header.orientation != rgb.orientation
        ):
            text = (
                f"has orientation {header.orientation} but its colour image {rgb.orientation}; both are "
                "turned upright: look whether they lie on each other"
            )
            found.append((text, other))
    return found


def _kind_of_thermal(header: ImageHeader) -> str:
    return f"{header.bits}-bit, fourth channel" if header.four_channels else str(header)


def _kind_of_label(header: ImageHeader) -> str:
    if header.numbers == "palette":
        return "palette index"
    return "colour" if header.channels >= 3 else f"{header} index"


def _attempt(faults: list[str], function: Callable[..., _Result], *arguments: Any) -> _Result | None:
    """Call `function`; an `InputError` joins `faults`."""
    try:
        return function(*arguments)
    except InputError as error:
        faults.append(str(error))
        return None
