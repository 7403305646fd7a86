"""Data sets that come as `train/` and `test/`, each with three folders matched by stem, without `val`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from efnet.classes import ClassSet
from efnet.data.layouts.listing import TripleFolders, require_root, unknown_split, wrong_folders
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
