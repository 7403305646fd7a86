"""Where one RGB-thermal pair lies on disk, and a named split of such pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from efnet.core.classes import ClassSet

Condition = Literal["day", "night"]

ThermalScale = Literal["auto"] | tuple[float, float]
"""How raw thermal values become [0, 1]: by what the file is, or from a fixed raw range (low, high)."""

FLIP_SUFFIX = "_flip"
"""What MFNet's lists append to the name of a mirrored copy."""


@dataclass(frozen=True)
class Pair:
    """The files of one pair.

    Attributes:
        name: unique within its split; predictions and reports carry it.
        rgb: the colour image, or a four-channel file if `thermal` is None.
        thermal: the thermal image; None: it is the fourth channel of `rgb`.
        label: the label map; None for unlabelled pairs.
        flip: mirror all three left to right after reading (MFNet's `_flip` entries).
        condition: day or night, where the data set knows it.
    """

    name: str
    rgb: Path
    thermal: Path | None
    label: Path | None
    flip: bool = False
    condition: Condition | None = None


@dataclass(frozen=True)
class PairSet:
    """One split of one data set: what training and evaluation iterate over.

    Attributes:
        dataset: layout name, such as `mfnet`.
        root: folder the files lie under.
        split: `train`, `val`, `test` or another the layout knows.
        pairs: in a fixed order.
        classes: meaning of the label values.
        protocol: name of the protocol by which this data set is scored by default.
        unscored: label values that carry no supervision in this data set (FMB's unlabeled), left out
            of the training loss.
        thermal_scale: how the thermal files of this data set are read.
    """

    dataset: str
    root: Path
    split: str
    pairs: tuple[Pair, ...]
    classes: ClassSet
    protocol: str
    unscored: tuple[int, ...] = ()
    thermal_scale: ThermalScale = "auto"

    def __len__(self) -> int:
        return len(self.pairs)
