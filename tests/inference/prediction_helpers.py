"""A small network with fixed weights, and generated images to feed it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import efnet
from efnet.core.classes import ClassSet, spread_colors
from efnet.models.base import SegmentationModel

NAMES = ("unlabeled", "car", "person", "bike", "curve", "car_stop", "guardrail", "color_cone", "bump")
CLASSES = ClassSet(NAMES, tuple(spread_colors(len(NAMES))))


def make_model(modality: str = "rgbt") -> SegmentationModel:
    torch.manual_seed(7)
    return efnet.create_model("efnet_tiny", classes=CLASSES, modality=modality)


def make_pair(seed: int, height: int = 48, width: int = 64, dtype=np.uint8):
    """Smooth random blobs: (rgb uint8 (H, W, 3), thermal of `dtype` (H, W))."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    heat = rng.integers(0, 256, (4, 5), dtype=np.uint8)
    rgb = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))
    heat = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC))
    return rgb, heat if dtype == np.uint8 else heat.astype(dtype) * 37 + 8000


def write_pair(root: Path, name: str, seed: int, **options) -> None:
    rgb, thermal = make_pair(seed, **options)
    for folder, array in (("rgb", rgb), ("thermal", thermal)):
        path = root / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
