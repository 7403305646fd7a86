"""Data sets that come as `train/` and `test/`, each with three folders matched by stem, without `val`.

MFNet (Ha et al., IROS 2017): 1569 street pairs, 640x480, day and night, nine classes.

MSRS (Tang et al., Information Fusion 2022): MFNet cleaned of misaligned pairs, its thermal enhanced.

PST900 (Shivakumar et al., ICRA 2020): underground scenes, 1280x720, five classes.

FMB (Liu et al., ICCV 2023): streets, 800x600, fourteen classes and `unlabeled`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.layouts.listing import (
    TripleFolders,
    find_file,
    mfnet_condition,
    read_list,
    require_root,
    unknown_split,
    wrong_folders,
)
from efnet.data.pairs import Condition, PairSet
from efnet.data.splits import held_out


@dataclass(frozen=True)
class TrainTestFolders:
    """A layout of the form `<train|test>/<rgb|thermal|labels>/<stem>.png`.

    `val` is the part of `train/` that `splits.held_out` chooses, `train` the rest, `trainval` both; a
    `val/` folder, if there is one, is used as it is.

    Attributes:
        name: of the layout.
        classes: of its labels.
        protocol: by which it is scored by default.
        rgb: folder of colour images.
        thermal: folder of thermal images.
        labels: folder of label maps.
        unscored: label values without supervision.
        condition: day or night by name.
    """

    name: str
    classes: ClassSet
    protocol: str
    rgb: str
    thermal: str
    labels: str
    unscored: tuple[int, ...] = ()
    condition: Callable[[str], Condition | None] = lambda name: None

    def class_set(self, root: Path) -> ClassSet:
        """The data set's classes, whatever the root."""
        return self.classes

    def splits(self, root: Path) -> tuple[str, ...]:
        """The splits present under `root`."""
        found = []
        if self._has(root, "train"):
            found += ["train", "val", "trainval"]
        elif self._has(root, "val"):
            found.append("val")
        if self._has(root, "test"):
            found.append("test")
        return tuple(found)

    def open(self, root: Path, split: str) -> PairSet:
        """The pairs of `split`, sorted by name.

        Raises:
            InputError: `root` has not this layout, or no such split.
        """
        require_root(root)
        known = self.splits(root)
        if not known:
            raise wrong_folders(root, self.name, [f"{part}/{self.rgb}/" for part in ("train", "test")])
        if split not in known:
            raise unknown_split(split, known, root)
        if split == "test" or self._has(root, "val"):
            parts = ("train", "val") if split == "trainval" else (split,)
            return self._read(root, parts, split)
        everything = self._read(root, ("train",), split)
        if split == "trainval":
            return everything
        val = held_out([pair.name for pair in everything.pairs])
        return replace(
            everything,
            pairs=tuple(pair for pair in everything.pairs if (pair.name in val) == (split == "val")),
        )

    def image_folders(self, root: Path) -> tuple[Path, ...]:
        """The image folders present under `root`."""
        return tuple(
            folder
            for part in ("train", "val", "test")
            for folder in (root / part / self.rgb, root / part / self.thermal, root / part / self.labels)
            if folder.is_dir()
        )

    def _has(self, root: Path, part: str) -> bool:
        return (root / part / self.rgb).is_dir() or (root / part / self.thermal).is_dir()

    def _read(self, root: Path, parts: tuple[str, ...], split: str) -> PairSet:
        pairs = []
        for part in parts:
            folders = TripleFolders.read(
                root / part / self.rgb, root / part / self.thermal, root / part / self.labels
            )
            pairs += [folders.pair(stem, self.condition(stem)) for stem in folders.stems()]
        return PairSet(self.name, root, split, tuple(pairs), self.classes, self.protocol, self.unscored)


MFNET_CLASSES = ClassSet(
    names=("unlabeled", "car", "person", "bike", "curve", "car_stop", "guardrail", "color_cone", "bump"),
    palette=(
        (0, 0, 0),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
        (0, 0, 192),
        (128, 128, 0),
        (64, 64, 128),
        (192, 128, 128),
        (192, 64, 0),
    ),
)

LISTS = ("train", "val", "test", "test_day", "test_night")
_SPLITS = (*LISTS, "trainval")


@dataclass(frozen=True)
class MFNet:
    """`images/<name>.png` with thermal in the fourth channel, `labels/`, and a list per split.

    Also read: `rgb/ thermal/ labels/` in place of the four-channel files, as `efnet data convert` writes
    them. `trainval` joins two lists; a missing `test_day` or `test_night` list is derived from
    `test.txt` by the D or N in the names.
    """

    name: str = "mfnet"

    def class_set(self, root: Path) -> ClassSet:
        """MFNet's nine classes, whatever the root."""
        return MFNET_CLASSES

    def splits(self, root: Path) -> tuple[str, ...]:
        """The splits whose lists are present under `root`."""
        lists = {split for split in LISTS if find_file(root, f"{split}.txt")}
        if {"train", "val"} <= lists:
            lists.add("trainval")
        if "test" in lists:
            lists |= {f"test_{mfnet_condition(name)}" for name in self._names(root, "test")} & set(LISTS)
        return tuple(split for split in _SPLITS if split in lists)

    def open(self, root: Path, split: str) -> PairSet:
        """The pairs on the split's list, in its order.

        Raises:
            InputError: not this layout, unknown split, or its list is missing.
        """
        require_root(root)
        if split not in _SPLITS:
            raise unknown_split(split, _SPLITS, root)
        folders = self._folders(root)
        if folders is None:
            raise wrong_folders(root, self.name, ["images/", "rgb/ and thermal/"])
        pairs = tuple(folders.pair(name, mfnet_condition(name)) for name in self._names(root, split))
        return PairSet(self.name, root, split, pairs, MFNET_CLASSES, "mfnet")

    def image_folders(self, root: Path) -> tuple[Path, ...]:
        """The image folders present under `root`."""
        folders = self._folders(root)
        return () if folders is None else folders.paths()

    def _folders(self, root: Path) -> TripleFolders | None:
        if (root / "images").is_dir():
            return TripleFolders.read(root / "images", None, root / "labels")
        if (root / "rgb").is_dir() and (root / "thermal").is_dir():
            return TripleFolders.read(root / "rgb", root / "thermal", root / "labels")
        return None

    def _names(self, root: Path, split: str) -> tuple[str, ...]:
        if split == "trainval":
            return self._names(root, "train") + self._names(root, "val")
        path = find_file(root, f"{split}.txt")
        if path is not None:
            return read_list(path)
        if split in ("test_day", "test_night"):
            wanted = split.removeprefix("test_")
            names = tuple(name for name in self._names(root, "test") if mfnet_condition(name) == wanted)
            if names:
                return names
        raise InputError(
            f"{root / split}.txt: the split's list is missing; MFNet's archive has train.txt, val.txt and "
            "test.txt beside images/: copy them here, or write one image name per line"
        )


MFNET = MFNet()


MSRS_CLASSES = MFNET_CLASSES

MSRS = TrainTestFolders(
    "msrs",
    MSRS_CLASSES,
    "mfnet",
    rgb="vi",
    thermal="ir",
    labels="Segmentation_labels",
    condition=mfnet_condition,
)
"""`train/ test/`, each with `vi/ ir/ Segmentation_labels/`; D or N in the name tells day from night."""


PST900_CLASSES = ClassSet(
    names=("background", "fire_extinguisher", "backpack", "hand_drill", "survivor"),
    palette=((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)),
)
"""In the order of the label values; several public repositories print the names in another order."""

PST900 = TrainTestFolders("pst900", PST900_CLASSES, "pst900", rgb="rgb", thermal="thermal", labels="labels")
"""`train/ test/`, each with `rgb/ thermal/ labels/` (and `thermal_raw/ depth/`, not read)."""


FMB_CLASSES = ClassSet(
    names=(
        "unlabeled",
        "road",
        "sidewalk",
        "building",
        "traffic_lamp",
        "sign",
        "vegetation",
        "sky",
        "person",
        "car",
        "truck",
        "bus",
        "motorcycle",
        "bicycle",
        "pole",
    ),
    palette=(
        (0, 0, 0),
        (179, 228, 228),
        (181, 57, 133),
        (67, 162, 177),
        (200, 178, 50),
        (132, 45, 199),
        (66, 172, 84),
        (179, 73, 79),
        (76, 99, 166),
        (66, 121, 253),
        (137, 165, 91),
        (155, 97, 152),
        (105, 153, 140),
        (222, 215, 158),
        (135, 113, 90),
    ),
)

FMB = TrainTestFolders(
    "fmb", FMB_CLASSES, "fmb", rgb="Visible", thermal="Infrared", labels="Label", unscored=(0,)
)
"""`train/ test/`, each with `Visible/ Infrared/ Label/`."""
