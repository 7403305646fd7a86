"""Label maps of files: index images of any depth, palettes and colours, to classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import IGNORE_INDEX, ClassSet, spread_colors
from efnet.core.errors import InputError
from efnet.data.decode import PathLike, open_image
from efnet.data.raster import Raster

IGNORE_COLOR = (224, 224, 224)
"""The colour that `ClassSet.colorize` gives to ignored pixels; in a colour label it means ignored."""

_VOC = np.asarray(spread_colors(256), dtype=np.uint8)
"""The palette of PASCAL VOC, in the order of its indices."""
_MANY = 16
"""Entries of a palette in that order from which a program made it, whatever colours are used."""


def read_label(path: PathLike, classes: ClassSet) -> NDArray[np.uint8]:
    """Read a label map (H, W), 255 where ignored: an index image of any depth, a palette or a colour image.

    Colours, also those of a palette, are mapped through `classes.palette`, unless it is `invented`;
    `IGNORE_COLOR` means ignored. Equal channels that hold indices are read as indices, a palette in PASCAL
    VOC's order by index, and greys above the indices by colour where all of `classes.palette` is grey.

    Raises:
        InputError: unreadable, lossy, with white as zero, or with values or colours outside the class set.
    """
    image = open_image(path)
    samples = image.samples
    if image.lossy:
        raise InputError(f"{path}: its lossy compression changes classes at edges; use the original PNG")
    if image.white_is_zero:
        fault = "declares small numbers to be bright (photometric 0, PBM), which leaves open what they mean"
        raise InputError(f"{path}: {fault}; save it as PNG")
    if image.palette is not None:
        return _index_of_palette(image, classes)
    if samples.dtype.kind == "f":
        raise InputError(f"{path}: a label map has whole numbers, not {image.header}; save it as PNG")
    if samples.ndim == 3 and samples.shape[2] == 2 and image.opacity:
        samples = samples[..., 0]
    if samples.ndim == 3:
        if samples.shape[2] not in (3, 4):
            fault = f"has {samples.shape[2]} channels"
            raise InputError(f"{path}: {fault}; a label map has one, or three of colours: save it as PNG")
        if samples.dtype == np.uint8 and image.white == 255:
            return _index_of_colors(samples[..., :3], classes, path)
        if (samples[..., :3] != samples[..., :1]).any():
            high = (samples[..., :3] * (255 / image.white)).round().astype(np.uint8)
            return _index_of_colors(high, classes, path)
        samples = samples[..., 0]
    return _of_numbers(samples, classes, path)


def _of_numbers(values: NDArray[Any], classes: ClassSet, path: PathLike) -> NDArray[np.uint8]:
    """Map greys that are the classes' colours, or else indices, to an index map (H, W)."""
    palette = np.asarray(classes.palette)
    greys = palette[:, 0] if (palette == palette[:, :1]).all() and not classes.invented else palette[:0, 0]
    if values.max(initial=0) >= len(classes) and np.isin(values, greys).all():  # black-and-white masks
        return classes.index_of(np.stack([values.astype(np.uint8)] * 3, axis=-1))[0]
    return _within(values, classes, path)


def _within(values: NDArray[Any], classes: ClassSet, path: PathLike) -> NDArray[np.uint8]:
    """Return values (H, W) that are classes or the ignored value; else an `InputError`."""
    values = values if values.dtype == np.uint8 else values.astype(np.int64)
    wrong = ((values < 0) | (values >= len(classes))) & (values != IGNORE_INDEX)
    if wrong.any():
        raise InputError(
            f"{path}: label values outside the {len(classes)} classes: {_most_frequent(values[wrong])}; "
            f"use 0..{len(classes) - 1}, and {IGNORE_INDEX} for pixels to ignore"
        )
    return values.astype(np.uint8)


def _index_of_palette(image: Raster, classes: ClassSet) -> NDArray[np.uint8]:
    """Map a palette image to an index map (H, W) by colour: programs that save space sort palettes anew."""
    used, place = np.unique(image.samples, return_inverse=True)
    index = used.astype(np.int64)
    colors = replace(image, samples=used).of_palette()
    by_color, unknown = (entries[0] for entries in classes.index_of(colors[None]))
    unknown |= classes.invented
    # A palette that was sorted anew has no 255 entries: there 255 is the ignored value.
    lacking = unknown & ~(colors == IGNORE_COLOR).all(axis=1) & (index != IGNORE_INDEX)
    grey = colors[:, 0].astype(np.int64)
    is_grey = bool((colors == colors[:, :1]).all())
    assert image.palette is not None
    whole = len(image.palette) >= _MANY and (image.palette == _VOC[: len(image.palette)]).all()
    standard = lacking.any() and bool((colors == _VOC[index % 256])[index != IGNORE_INDEX].all())
    if is_grey and index[-1] > 0 and (grey == index).all():
        return _of_numbers(image.samples, classes, image.name)
    if whole or standard:
        by = index
    elif not lacking.any():
        by = by_color.astype(np.int64)
    elif is_grey and ((grey < len(classes)) | (grey == IGNORE_INDEX)).all():
        by = grey
    else:
        listed = ", ".join(f"{value}: {colors[index == value][0].tolist()}" for value in index[lacking][:4])
        raise InputError(
            f"{image.name}: colours of its palette are not those of the {len(classes)} classes ({listed}); "
            "give the classes' colours as 'palette' in dataset.yaml, or save the label in grey"
        )
    return _within(by[place].reshape(image.samples.shape), classes, image.name)


def _index_of_colors(colors: NDArray[np.uint8], classes: ClassSet, path: PathLike) -> NDArray[np.uint8]:
    """Map colours (H, W, 3) to an index map (H, W)."""
    index, unknown = classes.index_of(colors)
    unknown |= classes.invented
    unknown &= ~(colors == IGNORE_COLOR).all(axis=2)
    if not unknown.any():
        return index
    first = colors[..., 0]
    known = (first < len(classes)) | (first == IGNORE_INDEX)
    if known.all() and (colors == first[..., None]).all():
        return np.ascontiguousarray(first)  # indices, saved by a program that writes RGB only
    found = _most_frequent(colors[unknown])
    if classes.invented:
        fault = f"is a colour image ({found}), and it is not known which class a colour means"
        raise InputError(f"{path}: {fault}; give the classes' colours as 'palette' in dataset.yaml")
    raise InputError(
        f"{path}: colours outside the palette of {len(classes)} classes: {found}; "
        "correct the palette, or save the label without smoothing"
    )


def _most_frequent(wrong: NDArray[Any]) -> str:
    """List the most frequent values (N,) or colours (N, 3) with their pixel counts."""
    found, counts = np.unique(wrong, axis=0, return_counts=True)
    entries = sorted(zip(found.tolist(), counts.tolist(), strict=True), key=lambda entry: -entry[1])
    shown = [(tuple(value) if isinstance(value, list) else value, count) for value, count in entries[:5]]
    text = ", ".join(f"{value} ({count} pixel{'s' if count != 1 else ''})" for value, count in shown)
    return text + (f" and {len(entries) - 5} more" if len(entries) > 5 else "")
