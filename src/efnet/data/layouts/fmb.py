"""FMB (Liu et al., ICCV 2023): streets, 800x600, fourteen classes and `unlabeled`."""

from __future__ import annotations

from efnet.classes import ClassSet
from efnet.data.layouts.train_test import TrainTestFolders

CLASSES = ClassSet(
    names=(
        "unlabeled",
        "road",
        "sidewalk",
        "building",
        "traffic_lamp",
        "sign",
        "vegetation",
        "sky",
        "person",
        "car",
        "truck",
        "bus",
        "motorcycle",
        "bicycle",
        "pole",
    ),
    palette=(
        (0, 0, 0),
        (179, 228, 228),
        (181, 57, 133),
        (67, 162, 177),
        (200, 178, 50),
        (132, 45, 199),
        (66, 172, 84),
        (179, 73, 79),
        (76, 99, 166),
        (66, 121, 253),
        (137, 165, 91),
        (155, 97, 152),
        (105, 153, 140),
        (222, 215, 158),
        (135, 113, 90),
    ),
)

LAYOUT = TrainTestFolders(
    "fmb", CLASSES, "fmb", rgb="Visible", thermal="Infrared", labels="Label", unscored=(0,)
)
"""`train/ test/`, each with `Visible/ Infrared/ Label/`."""
