"""Data set layouts: where the files of a data set lie and what its labels mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.archive import ShardIndex, members_of, split_of_tar
from efnet.data.items import PREFIX as ITEMS
from efnet.data.layouts.folders import USUAL_SPLITS, Folders
from efnet.data.layouts.listing import Layout, unknown_split
from efnet.data.layouts.public import PUBLIC
from efnet.data.pairs import PairSet

_SETS = Path(__file__).parent / "sets"
_DESCRIBED = (
    "cart",
    "sus",
    "semanticrt",
    "kaist",
)  # public sets that a dataset.yaml of the package describes
_ALL: tuple[Layout, ...] = (
    *PUBLIC,
    *(Folders(_SETS / f"{name}.yaml", name) for name in _DESCRIBED),
    Folders(),
)

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}  # layout by name


def layout_names() -> tuple[str, ...]:
    """Return the names of all layouts."""
    return tuple(LAYOUTS)


def find_layout(dataset: str) -> Layout:
    """Return the layout of that name, or that of a data set's YAML file; an `InputError` if it is neither."""
    if dataset in LAYOUTS:
        return LAYOUTS[dataset]
    if dataset.endswith((".yaml", ".yml")):
        return Folders(Path(dataset))
    if dataset.startswith(ITEMS):
        raise InputError(f"dataset '{dataset}' is an object of Python; give it to efnet.train as `dataset`")
    remedy = f"give one of {', '.join(LAYOUTS)}, or the path of a dataset.yaml"
    raise InputError(f"unknown dataset '{dataset}'; {remedy}")


def layout_at(dataset: str, root: str | os.PathLike[str]) -> Layout:
    """Return `find_layout`'s layout, or `Packed` if `root` holds packed shards of such a data set."""
    layout = find_layout(dataset)
    return Packed(layout) if is_packed(Path(root)) else layout


def open_split(dataset: str, root: str | os.PathLike[str], split: str) -> PairSet:
    """Open one split of a data set on disk: its pairs, in a fixed order.

    Only names are looked up: files may be missing or damaged, `verify` finds out.

    Args:
        dataset: a layout name, or the path of a data set's YAML file.
        root: the data set's folder; or that of packed shards, or some of these, separated by commas.
        split: `train`, `val`, `test`, `trainval` or another that the layout knows.

    Raises:
        InputError: unknown layout or split, a folder or list is missing, or the YAML file is wrong.
    """
    return layout_at(dataset, root).open(Path(root), split)


def splits_of(dataset: str, root: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the splits that can be opened under `root`; errors as `open_split`."""
    return layout_at(dataset, root).splits(Path(root))


@dataclass(frozen=True)
class Packed:
    """Packed shards: a folder of them, or some tars separated by commas (`a-000000.tar,a-000001.tar`)."""

    layout: Layout  # of the data set that was packed

    @property
    def name(self) -> str:
        """Name of the layout that was packed."""
        return self.layout.name

    def class_set(self, root: Path) -> ClassSet:
        """Return the classes of the labels."""
        return self.open(root, self.splits(root)[0]).classes

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return the splits that were packed."""
        found = {split_of_tar(tar.name) for tar in _tars(root)}
        splits = {split for split in found if split is not None and _index(root, split).is_file()}
        if not splits:
            raise InputError(f"{root}: its tars have no index beside them; write both with efnet data pack")
        usual = [split for split in USUAL_SPLITS if split in splits]
        return (*usual, *sorted(splits - set(usual)))

    def open(self, root: Path, split: str) -> PairSet:
        """Return a split's pairs in order, or those inside some tars; an `InputError` for a wrong index."""
        splits = self.splits(root)
        if split not in splits:
            raise unknown_split(split, splits, root)
        index = ShardIndex.read(_index(root, split))
        pairset = index.pairset
        if pairset.dataset != self.layout.name:
            raise InputError(f"{root}: holds {pairset.dataset}; give `dataset` {pairset.dataset}")
        if isinstance(self.layout, Folders) and self.layout.path is not None:
            classes = self.layout.class_set(self.layout.path.parent)
            if classes != pairset.classes:
                fault = f"names other classes than {root} was packed with"
                raise InputError(f"{self.layout.path}: {fault}; pack it again")
        tars = {tar.name: tar for tar in _tars(root)}
        if root.is_dir():
            for name in index.shards:
                if name not in tars:
                    raise InputError(f"{root / name}: is missing; copy it from where the shards were packed")
        else:
            files = ((pair, (pair.rgb, pair.thermal, pair.label)) for pair in pairset.pairs)
            held = (pair for pair, paths in files if all(path.parent.name in tars for path in paths if path))
            pairset = replace(pairset, pairs=tuple(held))
        for name in index.shards.keys() & tars.keys():
            members_of(tars[name])  # refuses one that was cut off
        return replace(pairset, root=root)

    def image_folders(self, root: Path) -> tuple[Path, ...]:
        """Return none: the index lists every file in a shard."""
        return ()


def is_packed(root: Path) -> bool:
    """Return whether a data root is a folder with shards, or names tars."""
    if root.is_dir():
        with os.scandir(root) as entries:
            return any(split_of_tar(entry.name) is not None for entry in entries)
    return root.suffix == ".tar"


def _tars(root: Path) -> Sequence[Path]:
    """The shards in a folder, or those that a list names."""
    if root.is_dir():
        return sorted(path for path in root.iterdir() if split_of_tar(path.name) is not None)
    tars = [Path(part.strip()) for part in str(root).split(",") if part.strip()]
    for tar in tars:
        if not tar.is_file():
            raise InputError(f"{tar}: no such tar; give the folder of the shards as `root`, or their names")
    if len({tar.parent for tar in tars}) > 1:
        raise InputError(f"{root}: lie in several folders; give tars of one folder, beside their index")
    return tars


def _index(root: Path, split: str) -> Path:
    folder = root if root.is_dir() else _tars(root)[0].parent
    return folder / f"{split}.json"
