"""Where one RGB-thermal pair lies on disk, and a named split of such pairs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from efnet.core.classes import ClassSet

Condition = Literal["day", "night"]

ThermalScale = str | tuple[float, float]
"""How raw thermal values become [0, 1].

`auto`: by what the file is; (low, high): from a fixed raw range; `palette:NAME`, or `palette:` and colours:
the place of each pixel's colour along a colour map (`efnet.data.false_color`).
"""

FLIP_SUFFIX = "_flip"  # suffix that MFNet's lists append to the name of a mirrored copy


@dataclass(frozen=True)
class Pair:
    """The files of one pair."""

    name: str  # unique within its split; predictions and reports carry it
    rgb: Path  # the colour image, or a four-channel file if `thermal` is None
    thermal: Path | None  # the thermal image; None: it is the fourth channel of `rgb`
    label: Path | None  # the label map; None for unlabelled pairs
    flip: bool = False  # mirror all three left to right after reading (MFNet's `_flip` entries)
    condition: Condition | None = None  # where the data set knows it


@dataclass(frozen=True)
class ItemPair(Pair):
    """A pair that `efnet.data.items` reads from a Python object; its paths only name it in messages."""

    items: Any = field(default=None, compare=False, repr=False)  # the object
    number: int = 0  # of the item there


@dataclass(frozen=True)
class PairSet:
    """One split of one data set, which training and evaluation iterate over."""

    dataset: str  # layout name, such as `mfnet`
    root: Path  # folder the files lie under
    split: str  # `train`, `val`, `test` or another the layout knows
    pairs: tuple[Pair, ...]  # in a fixed order
    classes: ClassSet  # meaning of the label values
    protocol: str  # name of the protocol by which this data set is scored by default
    unscored: tuple[int, ...] = ()  # label values left out of the training loss (FMB's unlabeled)
    thermal_scale: ThermalScale = "auto"  # how the thermal files of this data set are read
    registered: bool = True  # thermal images lie on their colour images; else they may differ in size

    def __len__(self) -> int:
        return len(self.pairs)
