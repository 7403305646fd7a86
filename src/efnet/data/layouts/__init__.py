"""One module per data set layout: where its files lie and what its labels mean."""

from __future__ import annotations

import os
from pathlib import Path

from efnet.core.errors import InputError
from efnet.data.layouts import folders, public
from efnet.data.layouts.folders import Folders
from efnet.data.layouts.listing import Layout
from efnet.data.layouts.packed import Packed, is_packed
from efnet.data.pairs import PairSet

LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (public.MFNET, public.PST900, public.FMB, public.MSRS, folders.LAYOUT)
}
"""Layout by name."""


def layout_names() -> tuple[str, ...]:
    """The names that `--dataset` takes."""
    return tuple(LAYOUTS)


def find_layout(dataset: str) -> Layout:
    """The layout of that name, or the one that a YAML file describes.

    Args:
        dataset: a layout name, or the path of a data set's YAML file.

    Raises:
        InputError: neither.
    """
    if dataset in LAYOUTS:
        return LAYOUTS[dataset]
    if dataset.endswith((".yaml", ".yml")):
        return Folders(Path(dataset))
    raise InputError(
        f"unknown dataset '{dataset}'; give one of {', '.join(LAYOUTS)}, or the path of a dataset.yaml"
    )


def layout_at(dataset: str, root: str | os.PathLike[str]) -> Layout:
    """The layout of that name, or that of packed shards (`efnet data pack`) if `root` is of these.

    Raises:
        InputError: see `find_layout`.
    """
    layout = find_layout(dataset)
    return Packed(layout) if is_packed(Path(root)) else layout


def open_split(dataset: str, root: str | os.PathLike[str], split: str) -> PairSet:
    """Open one split of a data set on disk.

    Only names are looked up: files may be missing or damaged, `verify` finds out.

    Args:
        dataset: a layout name, or the path of a data set's YAML file.
        root: the data set's folder; or that of packed shards, or some of these, separated by commas.
        split: `train`, `val`, `test`, `trainval` or another that the layout knows.

    Returns:
        the pairs, in a fixed order.

    Raises:
        InputError: unknown layout or split, a folder or list is missing, or the YAML file is wrong.
    """
    return layout_at(dataset, root).open(Path(root), split)


def splits_of(dataset: str, root: str | os.PathLike[str]) -> tuple[str, ...]:
    """The splits that can be opened under `root`.

    Raises:
        InputError: unknown layout, or the YAML file is wrong.
    """
    return layout_at(dataset, root).splits(Path(root))
