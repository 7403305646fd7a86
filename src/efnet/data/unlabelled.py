"""Training pairs, each with a pair without a mask beside it: for teachers and pseudo-labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_json
from efnet.data.augment import AugmentConfig, augment
from efnet.data.dataset import Item, PairDataset, to_tensors
from efnet.data.false_color import is_palette
from efnet.data.layouts.folders import FILE_NAME, Description, triple_at
from efnet.data.pairs import PairSet

STRONG = AugmentConfig(
    flip=0,
    scale=(1, 1),
    brightness=0.5,
    contrast=0.5,
    saturation=0.5,
    hue=0.08,
    thermal_gain=0.5,
    thermal_offset=0.15,
    thermal_gamma=0.7,
)
"""Changes that only the student sees: colours and thermal values vary, places stay."""

SETTINGS_FILE = "pseudo-label.json"
"""Classes and settings of the pseudo-labels beside it."""

PREFIX = "unlabelled_"
"""Beginning of the names of such a pair's entries in an item."""


def open_unlabelled(folder: str, like: PairSet) -> PairSet:
    """Open the pairs of a folder with `rgb` and `thermal`, matched by name, and perhaps pseudo-labels.

    A `dataset.yaml` in the folder may give all that one of `folders` gives, but classes are those of `like`,
    and so is the thermal scale unless it gives one. `labels`, if it exists, holds the pseudo-labels that
    `efnet pseudo-label` wrote. Raises InputError if there are no pairs; missing partners and labels are found
    by `verify`.
    """
    root = Path(folder).expanduser()
    described = (root / FILE_NAME).is_file()
    description = Description.read(root / FILE_NAME) if described else Description(like.classes)
    folders = triple_at(root, description)
    if folders is None or not (stems := folders.stems()):
        places = " and ".join(str(root / description.folders[key]) for key in ("rgb", "thermal"))
        raise InputError(f"{root}: no pairs; put their images into {places}")
    pairs = tuple(description.parts(folders.pair(stem)) for stem in stems)
    scale = like.thermal_scale if description.thermal_scale == "auto" else description.thermal_scale
    unlabelled = replace(
        like, root=root, split="unlabelled", pairs=pairs, registered=True, thermal_scale=scale
    )
    if folders.labels.exists:
        _require_classes(root, like.classes.names)
    return unlabelled


def _require_classes(root: Path, names: tuple[str, ...]) -> None:
    """Raise InputError if pseudo-labels were written for other classes, or for the same in another order."""
    path = root / SETTINGS_FILE
    try:
        found = parse_json(path.read_text(encoding="utf-8"))["classes"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}), so the classes of the labels in {root} are unknown; "
            "write them with efnet pseudo-label"
        ) from error
    if tuple(found) != names:
        raise InputError(
            f"{path}: labels of other classes ({', '.join(map(str, found))}) than the data set's "
            f"({', '.join(names)}); write them anew with a network of these classes"
        )


class SemiDataset(PairDataset):
    """`PairDataset` whose items also hold a random pair without a mask.

    Beside an item's own entries there are, at the same size: `unlabelled_rgb` and `unlabelled_thermal`, as a
    teacher sees them; `unlabelled_strong_rgb` and `unlabelled_strong_thermal`, the same places with other
    colours and thermal values; `unlabelled_label` int64 (h, w), 255 beyond the image, elsewhere the
    pseudo-label, or 0 where there is none; and `unlabelled_index`, which counts on after the labelled pairs.
    The pair and its changes depend on seed, epoch and index alone. An InputError is raised for false colours
    beside a fixed range of raw values.
    """

    def __init__(self, pairset: PairSet, unlabelled: PairSet, *args: Any, **options: Any) -> None:
        super().__init__(pairset, *args, **options)
        cache = self._cache is not None
        own = unlabelled.thermal_scale
        scale = self.thermal_scale if own == pairset.thermal_scale else own
        if is_palette(scale) and not isinstance(self.thermal_scale, str):
            fault = "its false colours are relative values, but this run has a range of raw ones"
            raise InputError(f"{unlabelled.root}: {fault}; leave 'thermal_scale' out")
        self.unlabelled = PairDataset(unlabelled, thermal_scale=scale, cache=cache)

    def preload(self) -> None:
        """Fill the caches; errors as `PairDataset.preload`."""
        super().preload()
        self.unlabelled.preload()

    def __getitem__(self, index: int) -> Item:
        item = super().__getitem__(index)
        assert self.augment is not None
        assert self.size is not None
        rng = np.random.default_rng((self.seed, int(self._epoch), index, 1))
        number = int(rng.integers(len(self.unlabelled)))
        sample = self.unlabelled.read(number)
        if sample.label is None:
            sample = replace(sample, label=np.zeros(sample.thermal.shape, dtype=np.uint8))
        places = AugmentConfig(flip=self.augment.flip, scale=self.augment.scale, brightness=0, contrast=0)
        weak = augment(sample, replace(places, saturation=0, hue=0), self.size, rng)
        number += len(self)
        strong = to_tensors(augment(weak, STRONG, self.size, rng), number)
        seen = to_tensors(weak, number)
        item |= {f"{PREFIX}{key}": seen[key] for key in ("rgb", "thermal", "label", "index")}
        return item | {f"{PREFIX}strong_{key}": strong[key] for key in ("rgb", "thermal")}
