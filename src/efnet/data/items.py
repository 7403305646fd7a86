"""Pairs that come from a Python object, such as a `torch.utils.data.Dataset`, instead of files."""

from __future__ import annotations

import threading
from collections.abc import Sized
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.data.images import scale_thermal
from efnet.data.pairs import ItemPair, PairSet, ThermalScale

PREFIX = "python:"
"""Begins the data set name of such pairs; the name of the object's class follows."""

_LOCK = threading.Lock()  # a data set of the user's need not be safe for threads


def item_set(items: Any, classes: ClassSet, split: str) -> PairSet:
    """Return the split of an object with a length whose items are (rgb, thermal, label).

    `rgb` is (H, W, 3) or (3, H, W), uint8 or of floats from 0 to 1; `thermal` (H, W), or with one channel
    first or last, uint8 or of floats from 0 to 1, other types where a thermal range is given; `label` (H, W)
    whole numbers, 255 where ignored. Each is an array, a tensor or a PIL image.

    Raises:
        InputError: it has no length, no items, or `classes` is not a `ClassSet`.
    """
    name = f"{type(items).__module__}.{type(items).__qualname__}"
    if not isinstance(items, Sized) or not hasattr(items, "__getitem__"):
        raise InputError(f"`dataset` {name}: give a torch Dataset with a length and numbered items")
    if not isinstance(classes, ClassSet):
        raise InputError(f"`dataset` {name}: give its `classes` as an efnet.ClassSet")
    if not len(items):
        raise InputError(f"`dataset` {name}: has no items")
    pairs = tuple(
        ItemPair(f"{number:06d}", Path(f"item {number} of {name}"), None, Path(), items=items, number=number)
        for number in range(len(items))
    )
    return PairSet(PREFIX + name, Path(name), split, pairs, classes, "native")


def read_item(
    pair: ItemPair, classes: ClassSet, scale: ThermalScale = "auto"
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Return `Sample`'s colour (H, W, 3), thermal (H, W) and label (H, W) of one item.

    Floats of the colour image are rounded to 8 bits. Raises InputError for an item that is not as `item_set`
    wants it.
    """
    with _LOCK:
        item = pair.items[pair.number]
    if not isinstance(item, tuple | list) or len(item) != 3:
        raise InputError(f"{pair.rgb}: is a {type(item).__name__}; return a tuple (rgb, thermal, label)")
    rgb, thermal, label = (np.asarray(part) for part in item)
    rgb = _colour(pair, rgb)
    thermal = _thermal(pair, thermal, scale)
    label = _label(pair, label, classes)
    for what, part in (("thermal image", thermal), ("label", label)):
        if part.shape != rgb.shape[:2]:
            raise InputError(
                f"{pair.rgb}: its {what} is {part.shape[0]}x{part.shape[1]} (height x width), but its colour "
                f"image {rgb.shape[0]}x{rgb.shape[1]}; return all at one size"
            )
    return rgb, thermal, label


def _colour(pair: ItemPair, image: NDArray[Any]) -> NDArray[np.uint8]:
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"{pair.rgb}: its colour image is {image.shape}; return (H, W, 3) or (3, H, W)")
    if np.issubdtype(image.dtype, np.floating):
        _require_unit(pair, "colour image", image)
        image = np.rint(image * 255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise InputError(f"{pair.rgb}: its colour image is {image.dtype}; return uint8, or floats in 0..1")
    return np.ascontiguousarray(image)


def _thermal(pair: ItemPair, image: NDArray[Any], scale: ThermalScale) -> NDArray[np.float32]:
    if image.ndim == 3 and 1 in (image.shape[0], image.shape[2]):
        image = image[0] if image.shape[0] == 1 else image[:, :, 0]
    if image.ndim != 2:
        raise InputError(f"{pair.rgb}: its thermal image is {image.shape}; return (H, W) or (1, H, W)")
    floats = np.issubdtype(image.dtype, np.floating)
    if scale == "auto" and floats:
        _require_unit(pair, "thermal image", image)
        return np.ascontiguousarray(image, dtype=np.float32)
    if not np.issubdtype(image.dtype, np.number) or (floats and not np.isfinite(image).all()):
        raise InputError(f"{pair.rgb}: its thermal image holds {image.dtype} that are not finite numbers")
    return scale_thermal(image, scale, name=f"{pair.rgb}: its thermal image")


def _label(pair: ItemPair, label: NDArray[Any], classes: ClassSet) -> NDArray[np.uint8]:
    if label.ndim != 2 or not np.issubdtype(label.dtype, np.integer):
        raise InputError(
            f"{pair.rgb}: its label is {label.dtype} {label.shape}; return whole numbers (H, W), the class "
            f"of every pixel, {IGNORE_INDEX} where ignored"
        )
    wrong = label[((label < 0) | (label >= len(classes))) & (label != IGNORE_INDEX)]
    if wrong.size:
        raise InputError(
            f"{pair.rgb}: its label holds {wrong.flat[0]}, but there are classes 0 to {len(classes) - 1} "
            f"and {IGNORE_INDEX} for ignored pixels; correct it or `classes`"
        )
    return label.astype(np.uint8)


def _require_unit(pair: ItemPair, what: str, image: NDArray[Any]) -> None:
    """Raise InputError for floats that are not finite or not from 0 to 1."""
    if not (image.size and image.min() >= 0 and image.max() <= 1):  # False for NaN too
        low, high = (float(image.min()), float(image.max())) if image.size else (0.0, 0.0)
        raise InputError(f"{pair.rgb}: its {what} holds {low:g} to {high:g}; scale floats to 0..1")
