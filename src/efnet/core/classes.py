"""A class set: the names, colours and ignored value that give a label map its meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]

IGNORE_INDEX = 255  # label value of a pixel without a class: no loss and no score counts it


@dataclass(frozen=True)
class ClassSet:
    """Names and colours of K classes; class k is value k of an index label.

    Raises:
        ValueError: lengths differ, fewer than two classes, more than 255, or a repeated entry.
    """

    names: tuple[str, ...]  # K distinct names
    palette: tuple[Color, ...]  # K distinct RGB colours, 0..255
    invented: bool = field(default=False, compare=False)  # colours for display: labels are not read by them

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise ValueError(f"{len(self.names)} class names but {len(self.palette)} colours")
        if not 2 <= len(self.names) <= IGNORE_INDEX:
            raise ValueError(f"a class set has 2 to {IGNORE_INDEX} classes, not {len(self.names)}")
        for what, values in (("name", self.names), ("colour", self.palette)):
            repeated = sorted({str(value) for value in values if list(values).count(value) > 1})
            if repeated:
                raise ValueError(f"class {what} given twice: {', '.join(repeated)}")
        for color in self.palette:
            if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
                raise ValueError(f"colour {color} is not three numbers from 0 to 255")

    def __len__(self) -> int:
        return len(self.names)

    def colorize(self, index: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Colour an index map (H, W) to RGB (H, W, 3); values outside the set become white-grey."""
        table = np.full((256, 3), 224, dtype=np.uint8)
        table[: len(self)] = np.asarray(self.palette, dtype=np.uint8)
        colored: NDArray[np.uint8] = table[np.clip(index, 0, 255)]
        return colored

    def index_of(self, colors: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the index map (H, W) of an RGB label (H, W, 3), and the mask of colours not in the palette.

        The map is IGNORE_INDEX there.
        """
        codes = colors.astype(np.uint32) @ np.asarray([1 << 16, 1 << 8, 1], dtype=np.uint32)
        index = np.full(codes.shape, IGNORE_INDEX, dtype=np.uint8)
        for value, (red, green, blue) in enumerate(self.palette):
            index[codes == (red << 16 | green << 8 | blue)] = value
        return index, index == IGNORE_INDEX

    def flat_palette(self) -> list[int]:
        """The 768 numbers of a palette PNG; unused entries are light grey, as in `colorize`."""
        flat = [channel for color in self.palette for channel in color]
        return flat + [224] * (768 - len(flat))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or YAML; `from_dict` reads them back, except `invented`."""
        return {"names": list(self.names), "palette": [list(color) for color in self.palette]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClassSet:
        """Read what `to_dict` wrote; a `ValueError` if a key is missing or a value is invalid."""
        try:
            names, palette = values["names"], values["palette"]
        except KeyError as error:
            raise ValueError(f"a class set needs the key {error}") from error
        colors = tuple((int(red), int(green), int(blue)) for red, green, blue in palette)
        return cls(tuple(str(name) for name in names), colors, bool(values.get("invented", False)))

    @classmethod
    def generic(cls, num_classes: int) -> ClassSet:
        """Numbered names and well-separated colours, for models made without a data set."""
        names = tuple(f"class_{index}" for index in range(num_classes))
        return cls(names, tuple(spread_colors(num_classes)), invented=True)


def spread_colors(count: int) -> Sequence[Color]:
    """`count` distinct colours, the first black (PASCAL VOC's bit-reversal scheme)."""
    colors: list[Color] = []
    for index in range(count):
        channels, code = [0, 0, 0], index
        for bit in range(7, -1, -1):
            for channel in range(3):
                channels[channel] |= ((code >> channel) & 1) << bit
            code >>= 3
        colors.append((channels[0], channels[1], channels[2]))
    return colors
