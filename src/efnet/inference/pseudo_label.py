"""Pseudo-labels: the classes of which a network is sure, where boxes of another source do not object."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.core.files import replacing


@dataclass(frozen=True)
class Box:
    """A box of one class; edges as fractions of width and height."""

    value: int  # class of the network
    left: float
    top: float
    right: float
    bottom: float


def read_thresholds(text: str, classes: ClassSet) -> NDArray[np.float32]:
    """Read `0.9`, or `0.9,car=0.8,person=0.7`, as the least probability of each class (K,).

    Raises InputError for an unknown class or anything but probabilities.
    """
    values = np.full(len(classes), 0.9, dtype=np.float32)
    for word in filter(None, (word.strip() for word in text.split(","))):
        name, equals, number = word.rpartition("=")
        if equals and name not in classes.names:
            raise InputError(f"`threshold` {word}: no class {name!r}; there are {', '.join(classes.names)}")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise InputError(f"`threshold` {word}: give probabilities from 0 to 1, such as 0.9,person=0.7")
        values[classes.names.index(name) if equals else slice(None)] = value
    return values


def read_boxes(path: Path, names: Sequence[str], classes: ClassSet) -> list[Box]:
    """Read lines `class x y width height`, the centre and the size as fractions of the image.

    The number of a class is its place in `names`. No file: no boxes. Raises InputError for a line of another
    form, with its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as text ({error}); give lines 'class x y width height'"
        ) from error
    boxes = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            kind = int(words[0])
            x, y, width, height = map(float, words[1:])
            value = classes.names.index(names[kind]) if kind >= 0 else None
        except (ValueError, IndexError):
            value = None
        if value is None or not all(0 <= part <= 1 for part in (x, y, width, height)):
            raise InputError(
                f"{path}: line {number} is not 'class x y width height' with a class from 0 to "
                f"{len(names) - 1} and fractions from 0 to 1; correct it"
            )
        boxes.append(Box(value, x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return boxes


def pseudo_label(
    probabilities: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    boxes: Sequence[Box] | None = None,
    boxed: Sequence[int] = (),
) -> NDArray[np.uint8]:
    """Return the likeliest class of each pixel, uint8 (H, W), 255 where it is not sure enough.

    Args:
        probabilities: (K, H, W).
        thresholds: (K,) least probability of each class.
        boxes: of the classes `boxed`; None: there are none to ask. A pixel of such a class counts inside a
            box of its class whatever its probability, and never outside of them.
        boxed: classes for which all objects have boxes.
    """
    index = probabilities.argmax(axis=0).astype(np.uint8)
    sure = probabilities.max(axis=0) >= thresholds[index]
    if boxes is not None:
        height, width = index.shape
        for value in boxed:
            inside = np.zeros((height, width), dtype=bool)
            for box in boxes:
                if box.value == value:
                    rows = slice(max(0, round(box.top * height)), max(0, round(box.bottom * height)))
                    inside[rows, max(0, round(box.left * width)) : max(0, round(box.right * width))] = True
            sure = np.where(index == value, inside, sure)
    label: NDArray[np.uint8] = np.where(sure, index, np.uint8(IGNORE_INDEX))
    return label


def copy_images(folder: Path, name: str, files: Mapping[str, Path]) -> None:
    """Copy a pair's images beside its label; `files` maps `rgb` and `thermal` to their files."""
    for camera, source in files.items():
        with replacing(folder / camera / f"{name}{source.suffix}") as temporary:
            shutil.copyfile(source, temporary)
