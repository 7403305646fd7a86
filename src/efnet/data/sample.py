"""One pair in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.images import read_label, read_rgb, read_rgbt, read_thermal
from efnet.data.pairs import Pair, ThermalScale


@dataclass(frozen=True)
class Sample:
    """A registered RGB-thermal pair, with its label where there is one.

    Attributes:
        name: of the pair.
        rgb: (H, W, 3) in 0..255.
        thermal: (H, W) in [0, 1].
        label: (H, W) class of each pixel, 255 where ignored; None for an unlabelled pair.
    """

    name: str
    rgb: NDArray[np.uint8]
    thermal: NDArray[np.float32]
    label: NDArray[np.uint8] | None


def read_sample(pair: Pair, classes: ClassSet, scale: ThermalScale = "auto") -> Sample:
    """Read a pair's files, mirrored if the pair says so.

    Args:
        pair: which files.
        classes: meaning of the label.
        scale: how raw thermal values become [0, 1], see `images.scale_thermal`.

    Returns:
        arrays of one common size.

    Raises:
        InputError: a file cannot be read, or the sizes differ.
    """
    if pair.thermal is None:
        rgb, thermal = read_rgbt(pair.rgb, scale)
    else:
        rgb, thermal = read_rgb(pair.rgb), read_thermal(pair.thermal, scale)
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
    """Refuse a file whose size is not its colour image's.

    Raises:
        InputError: heights or widths differ.
    """
    if shape[:2] != rgb_shape[:2]:
        raise InputError(
            f"{path}: the {what} is {shape[1]}x{shape[0]} (width x height), but {rgb_path} is "
            f"{rgb_shape[1]}x{rgb_shape[0]}; register the pair and save both at one size"
        )
