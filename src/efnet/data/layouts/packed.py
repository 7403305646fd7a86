"""Shards that `efnet data pack` wrote, in the place of the data set that they were packed from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.archive import ShardIndex, members_of, split_of_tar
from efnet.data.layouts.folders import Folders
from efnet.data.layouts.listing import Layout, unknown_split
from efnet.data.pairs import PairSet


@dataclass(frozen=True)
class Packed:
    """A folder of shards, or some of its tars, separated by commas (`a-000000.tar,a-000001.tar`).

    Attributes:
        layout: that `--dataset` names; the shards have to be of such a data set.
    """

    layout: Layout

    @property
    def name(self) -> str:
        """The name of the layout that was packed."""
        return self.layout.name

    def class_set(self, root: Path) -> ClassSet:
        """The classes of the labels."""
        return self.open(root, self.splits(root)[0]).classes

    def splits(self, root: Path) -> tuple[str, ...]:
        """The splits that were packed."""
        usual = ("train", "val", "test")
        found = {split_of_tar(tar.name) for tar in _tars(root)}
        splits = sorted(split for split in found if split is not None and _index(root, split).is_file())
        if not splits:
            raise InputError(f"{root}: its tars have no index beside them; write both with efnet data pack")
        return tuple(
            sorted(
                splits, key=lambda split: (split not in usual, usual.index(split) if split in usual else 0)
            )
        )

    def open(self, root: Path, split: str) -> PairSet:
        """The pairs of a split, in the order they had; of some tars alone, those that lie in them.

        Raises:
            InputError: not packed, an index that is damaged, of another data set, or of other tars.
        """
        splits = self.splits(root)
        if split not in splits:
            raise unknown_split(split, splits, root)
        index = ShardIndex.read(_index(root, split))
        pairset = index.pairset
        if pairset.dataset != self.layout.name:
            raise InputError(f"{root}: holds {pairset.dataset}; give --dataset {pairset.dataset}")
        self._check_classes(root, pairset)
        tars = {tar.name: tar for tar in _tars(root)}
        if root.is_dir():
            for name in index.shards:
                if name not in tars:
                    raise InputError(f"{root / name}: is missing; copy it from where the shards were packed")
        else:
            pairs = tuple(
                pair
                for pair in pairset.pairs
                if all(path.parent.name in tars for path in (pair.rgb, pair.thermal, pair.label) if path)
            )
            pairset = replace(pairset, pairs=pairs)
        for name in index.shards.keys() & tars.keys():
            members_of(tars[name])  # refuses one that was cut off
        return replace(pairset, root=root)

    def image_folders(self, root: Path) -> tuple[Path, ...]:
        """None: every file in a shard is on its index."""
        return ()

    def _check_classes(self, root: Path, pairset: PairSet) -> None:
        """A YAML file given as `--dataset` has to name the classes that were packed."""
        if isinstance(self.layout, Folders) and self.layout.path is not None:
            classes = self.layout.class_set(self.layout.path.parent)
            if classes != pairset.classes:
                raise InputError(
                    f"{self.layout.path}: names other classes than {root} was packed with; pack it again"
                )


def is_packed(root: Path) -> bool:
    """Whether a data root is a folder with shards, or names tars."""
    if root.is_dir():
        with os.scandir(root) as entries:
            return any(split_of_tar(entry.name) is not None for entry in entries)
    return root.suffix == ".tar"


def _tars(root: Path) -> Sequence[Path]:
    """The shards that a root means.

    Raises:
        InputError: one is missing, or they lie in several folders.
    """
    if root.is_dir():
        return sorted(path for path in root.iterdir() if split_of_tar(path.name) is not None)
    tars = [Path(part.strip()) for part in str(root).split(",") if part.strip()]
    for tar in tars:
        if not tar.is_file():
            raise InputError(f"{tar}: no such tar; give the folder of the shards with --root, or their names")
    if len({tar.parent for tar in tars}) > 1:
        raise InputError(f"{root}: lie in several folders; give tars of one folder, beside their index")
    return tars


def _index(root: Path, split: str) -> Path:
    folder = root if root.is_dir() else _tars(root)[0].parent
    return folder / f"{split}.json"
