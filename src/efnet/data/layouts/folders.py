"""Your own pairs: `rgb/ thermal/ labels/` matched by stem, and a `dataset.yaml` that names the classes.

Splits are those that `dataset.yaml` gives (see `description`). Without `splits` there, these are tried in
turn: folders `train/ val/ test/` that hold the three folders, lists `train.txt val.txt test.txt` beside
them, and else all pairs are `trainval`. Where no validation split is found, `splits.held_out` takes one
out of train.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from efnet.classes import ClassSet
from efnet.data.layouts.description import FILE_NAME, Description
from efnet.data.layouts.listing import (
    TripleFolders,
    find_file,
    read_list,
    require_root,
    unknown_split,
    wrong_folders,
)
from efnet.data.pairs import Pair, PairSet
from efnet.data.splits import held_out
from efnet.errors import InputError

_USUAL_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Folders:
    """The layout that a `dataset.yaml` describes.

    Attributes:
        path: of the YAML file; None: `dataset.yaml` under the root.
        name: of the layout.
    """

    path: Path | None = None
    name: str = "folders"

    def describe(self, root: Path) -> Description:
        """Read the YAML file that goes with `root`.

        Raises:
            InputError: see `Description.read`.
        """
        require_root(root)
        return Description.read(self.path or root / FILE_NAME)

    def class_set(self, root: Path) -> ClassSet:
        """The classes that the YAML file names."""
        return self.describe(root).classes

    def splits(self, root: Path) -> tuple[str, ...]:
        """The splits found under `root`, `val` and `trainval` included where they can be made."""
        return self._known(root, self.describe(root))

    def open(self, root: Path, split: str) -> PairSet:
        """The pairs of `split`.

        Raises:
            InputError: the YAML is wrong, no image folders, or no such split.
        """
        description = self.describe(root)
        if not self._homes(root, description):
            wanted = description.folders
            raise wrong_folders(
                root,
                "folders",
                [
                    f"{wanted['rgb']}/ and {wanted['thermal']}/",
                    f"{wanted['rgbt']}/",
                    "these under train/ val/ test/",
                ],
            )
        known = self._known(root, description)
        if split not in known:
            raise unknown_split(split, known, root)
        return PairSet(
            dataset=self.name,
            root=root,
            split=split,
            pairs=self._pairs(root, description, split),
            classes=description.classes,
            protocol="native",
            thermal_scale=description.thermal_scale,
        )

    def image_folders(self, root: Path) -> tuple[Path, ...]:
        """The image folders present under `root`."""
        description = self.describe(root)
        folders = (_triple(home, description) for home in self._homes(root, description))
        return tuple(path for triple in folders if triple is not None for path in triple.paths())

    def _sources(self, root: Path, description: Description) -> dict[str, Path]:
        """Split to the list file or folder it comes from."""
        if description.splits:
            return {split: root / where for split, where in description.splits.items()}
        found = {}
        for split in _USUAL_SPLITS:
            folder, names = root / split, find_file(root, f"{split}.txt")
            if _triple(folder, description) is not None:
                found[split] = folder
            elif names is not None:
                found[split] = names
        return found

    def _homes(self, root: Path, description: Description) -> tuple[Path, ...]:
        """Folders that hold `rgb/ thermal/` or `rgbt/`."""
        candidates = [root, *(path for path in self._sources(root, description).values() if path.is_dir())]
        return tuple(home for home in candidates if _triple(home, description) is not None)

    def _known(self, root: Path, description: Description) -> tuple[str, ...]:
        sources = self._sources(root, description)
        if not sources:
            return ("train", "val", "trainval")
        made = {"val", "trainval"} if "train" in sources else set()
        order = [*_USUAL_SPLITS, *sorted(set(sources) - set(_USUAL_SPLITS)), "trainval"]
        return tuple(dict.fromkeys(split for split in order if split in sources or split in made))

    def _pairs(self, root: Path, description: Description, split: str) -> tuple[Pair, ...]:
        sources = self._sources(root, description)
        if not sources:
            everything = _from_folder(root, description)
        elif split in sources and (split != "train" or "val" in sources):
            return _from_source(root, sources[split], description)
        else:
            everything = _from_source(root, sources["train"], description)
            if split == "trainval" and "val" in sources:
                return everything + _from_source(root, sources["val"], description)
        if split == "trainval":
            return everything
        val = held_out([pair.name for pair in everything])
        return tuple(pair for pair in everything if (pair.name in val) == (split == "val"))


def _triple(home: Path, description: Description) -> TripleFolders | None:
    """The folders under `home`, or None if it has neither kind."""
    names = description.folders
    labels = home / names["labels"]
    if (home / names["rgbt"]).is_dir():
        return TripleFolders.read(home / names["rgbt"], None, labels)
    if (home / names["rgb"]).is_dir() or (home / names["thermal"]).is_dir():
        return TripleFolders.read(home / names["rgb"], home / names["thermal"], labels)
    return None


def _from_source(root: Path, source: Path, description: Description) -> tuple[Pair, ...]:
    """The pairs of a split's list or folder."""
    if source.is_dir():
        return _from_folder(source, description)
    if not source.is_file():
        raise InputError(f"{source}: no such list or folder; correct 'splits' in {FILE_NAME}")
    triple = _triple(root, description)
    if triple is None:
        raise wrong_folders(root, "folders", [f"{description.folders['rgb']}/ beside {source.name}"])
    return tuple(triple.pair(name, description.condition(name)) for name in read_list(source))


def _from_folder(home: Path, description: Description) -> tuple[Pair, ...]:
    """All pairs under `home`."""
    triple = _triple(home, description)
    if triple is None:
        raise wrong_folders(
            home, "folders", [f"{description.folders['rgb']}/ and {description.folders['thermal']}/"]
        )
    return tuple(triple.pair(stem, description.condition(stem)) for stem in triple.stems())


LAYOUT = Folders()
