"""One pair in memory, and reading several at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.images import read_rgb, read_rgbt, read_thermal
from efnet.data.items import read_item
from efnet.data.labels import read_label
from efnet.data.pairs import ItemPair, Pair, ThermalScale

T = TypeVar("T")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Sample:
    """A registered RGB-thermal pair, with its label where there is one."""

    name: str  # of the pair
    rgb: NDArray[np.uint8]  # (H, W, 3) in 0..255
    thermal: NDArray[np.float32]  # (H, W) in [0, 1]
    label: NDArray[np.uint8] | None  # (H, W) class of each pixel, 255 where ignored; None: unlabelled


def read_sample(
    pair: Pair, classes: ClassSet, scale: ThermalScale = "auto", registered: bool = True
) -> Sample:
    """Read a pair's files, mirrored if the pair is marked so, as arrays of one common size.

    `scale` is that of `images.scale_thermal`. Unless `registered`, the thermal image may have another size.

    Raises:
        InputError: a file cannot be read, or the sizes differ.
    """
    if isinstance(pair, ItemPair):
        return Sample(pair.name, *read_item(pair, classes, scale))
    if pair.thermal is None:
        rgb, thermal = read_rgbt(pair.rgb, scale)
    else:
        rgb, thermal = read_rgb(pair.rgb), read_thermal(pair.thermal, scale)
        if registered:
            require_same_size("thermal image", pair.thermal, thermal.shape, pair.rgb, rgb.shape)
    label = None
    if pair.label is not None:
        label = read_label(pair.label, classes)
        require_same_size("label", pair.label, label.shape, pair.rgb, rgb.shape)
    if pair.flip:
        rgb, thermal = rgb[:, ::-1].copy(), thermal[:, ::-1].copy()
        label = None if label is None else label[:, ::-1].copy()
    return Sample(pair.name, rgb, thermal, label)


def require_same_size(
    what: str, path: object, shape: tuple[int, ...], rgb_path: object, rgb_shape: tuple[int, ...]
) -> None:
    """Raise an `InputError` if a file does not have the size of its colour image."""
    if shape[:2] != rgb_shape[:2]:
        raise InputError(
            f"{path}: the {what} is {shape[1]}x{shape[0]} (width x height), but {rgb_path} is "
            f"{rgb_shape[1]}x{rgb_shape[0]}; register the pair and save both at one size"
        )


def threaded(
    function: Callable[[T], Result], items: Iterable[T], workers: int | None = None
) -> Iterator[Result]:
    """Yield `function(item)` in the order of `items`, several at a time; decoding releases Python's lock."""
    pool = ThreadPoolExecutor(max_workers=workers or min(8, os.cpu_count() or 1))
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest
