"""MFNet (Ha et al., IROS 2017): 1569 street pairs, 640x480, day and night, nine classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from efnet.classes import ClassSet
from efnet.data.layouts.listing import (
    TripleFolders,
    find_file,
    mfnet_condition,
    read_list,
    require_root,
    unknown_split,
    wrong_folders,
)
from efnet.data.pairs import PairSet
from efnet.errors import InputError

CLASSES = ClassSet(
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
        return CLASSES

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
        return PairSet(self.name, root, split, pairs, CLASSES, "mfnet")

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


LAYOUT = MFNet()
