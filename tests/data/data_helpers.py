"""Small data sets on disk, in every layout, for the tests of the readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 24, 32


def save(path: Path, array: NDArray[Any]) -> Path:
    """Write an array as an image, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def random_rgb(seed: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def random_thermal(seed: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    return np.random.default_rng(seed + 1000).integers(0, 255, (height, width), dtype=np.uint8)


def random_label(seed: int, classes: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    return np.random.default_rng(seed + 2000).integers(0, classes, (height, width), dtype=np.uint8)


def make_mfnet(root: Path, lists: dict[str, list[str]]) -> Path:
    """MFNet's layout with the files that the lists name."""
    for index, name in enumerate(dict.fromkeys(name for names in lists.values() for name in names)):
        if name.endswith("_flip"):
            continue
        rgbt = np.dstack([random_rgb(index), random_thermal(index)])
        save(root / "images" / f"{name}.png", rgbt)
        save(root / "labels" / f"{name}.png", random_label(index, 9))
    for split, names in lists.items():
        (root / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def make_pairs(
    home: Path,
    stems: list[str],
    folders: tuple[str, str, str] = ("rgb", "thermal", "labels"),
    classes: int = 5,
) -> Path:
    """Three folders matched by stem."""
    for index, stem in enumerate(stems):
        save(home / folders[0] / f"{stem}.png", random_rgb(index))
        save(home / folders[1] / f"{stem}.png", random_thermal(index))
        save(home / folders[2] / f"{stem}.png", random_label(index, classes))
    return home
