"""MSRS (Tang et al., Information Fusion 2022): MFNet cleaned of misaligned pairs, its thermal enhanced."""

from __future__ import annotations

from efnet.data.layouts import mfnet
from efnet.data.layouts.listing import mfnet_condition
from efnet.data.layouts.train_test import TrainTestFolders

CLASSES = mfnet.CLASSES

LAYOUT = TrainTestFolders(
    "msrs",
    CLASSES,
    "mfnet",
    rgb="vi",
    thermal="ir",
    labels="Segmentation_labels",
    condition=mfnet_condition,
)
"""`train/ test/`, each with `vi/ ir/ Segmentation_labels/`; D or N in the name tells day from night."""
