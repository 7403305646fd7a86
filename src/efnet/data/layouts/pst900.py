"""PST900 (Shivakumar et al., ICRA 2020): underground scenes, 1280x720, five classes."""

from __future__ import annotations

from efnet.classes import ClassSet
from efnet.data.layouts.train_test import TrainTestFolders

CLASSES = ClassSet(
    names=("background", "fire_extinguisher", "backpack", "hand_drill", "survivor"),
    palette=((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)),
)
"""In the order of the label values; several public repositories print the names in another order."""

LAYOUT = TrainTestFolders("pst900", CLASSES, "pst900", rgb="rgb", thermal="thermal", labels="labels")
"""`train/ test/`, each with `rgb/ thermal/ labels/` (and `thermal_raw/ depth/`, not read)."""
