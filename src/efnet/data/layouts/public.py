"""The public data sets: MFNet, with split lists, and those that come as `train/` and `test/` folders.

MFNet (Ha et al., IROS 2017): 1569 street pairs, 640x480, day and night, nine classes.
MSRS (Tang et al., Information Fusion 2022): MFNet without its misaligned pairs, its thermal enhanced.
PST900 (Shivakumar et al., ICRA 2020): underground scenes, 1280x720, five classes.
FMB (Liu et al., ICCV 2023): streets, 800x600, fourteen classes and `unlabeled`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from efnet.core.classes import ClassSet, Color
from efnet.core.errors import InputError
from efnet.data.layouts import listing
from efnet.data.layouts.listing import TripleFolders, find_file, mfnet_condition, read_list, split_off
from efnet.data.pairs import Condition, PairSet


def _classes(**colors: Color) -> ClassSet:
    """A class set from names and colours, in the order of the label values."""
    return ClassSet(tuple(colors), tuple(colors.values()))


MFNET_CLASSES = MSRS_CLASSES = _classes(
    unlabeled=(0, 0, 0), car=(64, 0, 128), person=(64, 64, 0), bike=(0, 128, 192), curve=(0, 0, 192),
    car_stop=(128, 128, 0), guardrail=(64, 64, 128), color_cone=(192, 128, 128), bump=(192, 64, 0),
)  # fmt: skip

# Several public repositories print these names in another order.
PST900_CLASSES = _classes(
    background=(0, 0, 0), fire_extinguisher=(255, 0, 0), backpack=(0, 255, 0), hand_drill=(0, 0, 255),
    survivor=(255, 255, 255),
)  # fmt: skip

FMB_CLASSES = _classes(
    unlabeled=(0, 0, 0), road=(179, 228, 228), sidewalk=(181, 57, 133), building=(67, 162, 177),
    traffic_lamp=(200, 178, 50), sign=(132, 45, 199), vegetation=(66, 172, 84), sky=(179, 73, 79),
    person=(76, 99, 166), car=(66, 121, 253), truck=(137, 165, 91), bus=(155, 97, 152),
    motorcycle=(105, 153, 140), bicycle=(222, 215, 158), pole=(135, 113, 90),
)  # fmt: skip


@dataclass(frozen=True)
class TrainTestFolders:
    """A layout of the form `<train|test>/<rgb|thermal|labels>/<stem>.png`.

    `val` is the part of `train/` that `held_out` chooses, `train` the rest, `trainval` both. A `val/` folder,
    if there is one, is used as it is.
    """

    name: str  # of the layout
    classes: ClassSet  # of its labels
    protocol: str  # by which it is scored by default
    folders: tuple[str, str, str]  # names of the folders of colour images, thermal images and label maps
    unscored: tuple[int, ...] = ()  # label values without supervision
    condition: Callable[[str], Condition | None] = lambda name: None  # day or night by name

    def class_set(self, root: Path) -> ClassSet:
        """Return the data set's classes, whatever the root."""
        return self.classes

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return the splits present under `root`."""
        train, val, test = (self._has(root, part) for part in ("train", "val", "test"))
        found = ("train", "val", "trainval") if train else ("val",) if val else ()
        return (*found, "test") if test else found

    def open(self, root: Path, split: str) -> PairSet:
        """Return the pairs of `split`, sorted by name; an `InputError` for another layout or split."""
        listing.require_root(root)
        known = self.splits(root)
        if not known:
            raise listing.wrong_folders(
                root, self.name, [f"{part}/{self.folders[0]}/" for part in ("train", "test")]
            )
        if split not in known:
            raise listing.unknown_split(split, known, root)
        given = split == "test" or self._has(root, "val")
        parts = (split,) if given and split != "trainval" else ("train", "val") if given else ("train",)
        triples = [TripleFolders.read(*(root / part / folder for folder in self.folders)) for part in parts]
        stems = ((triple, stem) for triple in triples for stem in triple.stems())
        pairs = tuple(triple.pair(stem, self.condition(stem)) for triple, stem in stems)
        pairs = pairs if given else split_off(pairs, split)
        return PairSet(self.name, root, split, pairs, self.classes, self.protocol, self.unscored)

    def image_folders(self, root: Path) -> tuple[Path, ...]:
        """Return the image folders present under `root`."""
        parts = (root / part / folder for part in ("train", "val", "test") for folder in self.folders)
        return tuple(folder for folder in parts if folder.is_dir())

    def _has(self, root: Path, part: str) -> bool:
        return any((root / part / folder).is_dir() for folder in self.folders[:2])


LISTS = ("train", "val", "test", "test_day", "test_night")
_SPLITS = (*LISTS, "trainval")


@dataclass(frozen=True)
class MFNet:
    """`images/<name>.png` with thermal in the fourth channel, `labels/`, and a list per split.

    Also read: `rgb/ thermal/ labels/` in place of the four-channel files, as `to_folders` writes them.
    `trainval` joins two lists; a missing `test_day` or `test_night` list is derived from `test.txt` by the D
    or N in the names.
    """

    name: str = "mfnet"

    def class_set(self, root: Path) -> ClassSet:
        """Return MFNet's nine classes, whatever the root."""
        return MFNET_CLASSES

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return the splits whose lists are present under `root`."""
        lists = {split for split in LISTS if find_file(root, f"{split}.txt")}
        if {"train", "val"} <= lists:
            lists.add("trainval")
        if "test" in lists:
            lists |= {f"test_{mfnet_condition(name)}" for name in self._names(root, "test")} & set(LISTS)
        return tuple(split for split in _SPLITS if split in lists)

    def open(self, root: Path, split: str) -> PairSet:
        """Return the pairs on the split's list, in its order; an `InputError` if layout or list are wrong."""
        listing.require_root(root)
        if split not in _SPLITS:
            raise listing.unknown_split(split, _SPLITS, root)
        folders = self._folders(root)
        if folders is None:
            raise listing.wrong_folders(root, self.name, ["images/", "rgb/ and thermal/"])
        pairs = tuple(folders.pair(name, mfnet_condition(name)) for name in self._names(root, split))
        return PairSet(self.name, root, split, pairs, MFNET_CLASSES, "mfnet")

    def image_folders(self, root: Path) -> tuple[Path, ...]:
        """Return the image folders present under `root`."""
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


_MSRS_FOLDERS = ("vi", "ir", "Segmentation_labels")

PUBLIC = (
    MFNet(),
    TrainTestFolders("pst900", PST900_CLASSES, "pst900", ("rgb", "thermal", "labels")),
    TrainTestFolders("fmb", FMB_CLASSES, "fmb", ("Visible", "Infrared", "Label"), unscored=(0,)),
    TrainTestFolders("msrs", MSRS_CLASSES, "mfnet", _MSRS_FOLDERS, condition=mfnet_condition),
)
"""The layouts of the public data sets."""
