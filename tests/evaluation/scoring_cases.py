"""Pairs for the tests of scoring."""

from pathlib import Path

import numpy as np
from PIL import Image

from efnet.core.classes import ClassSet, spread_colors
from efnet.data.pairs import Pair, PairSet

MFNET = ClassSet(
    ("unlabeled", "car", "person", "bike", "curve", "car_stop", "guardrail", "color_cone", "bump"),
    tuple(spread_colors(9)),
)


def named(name="a", condition=None):
    """A pair for counting; its files are never opened."""
    return Pair(name, Path(f"{name}.png"), None, None, condition=condition)


def write_pairset(root, shapes, classes, seed=0, conditions=("day", "night"), split="test"):
    """Pairs on disk: blocky random labels, an RGB image that shows them, and noise as thermal."""
    rng = np.random.default_rng(seed)
    pairs = []
    for number, (height, width) in enumerate(shapes):
        blocks = rng.integers(0, len(classes), ((height + 15) // 16, (width + 15) // 16))
        label = np.kron(blocks, np.ones((16, 16), dtype=int))[:height, :width].astype(np.uint8)
        rgb = np.stack([label * 20, rng.integers(0, 256, label.shape), 255 - label * 20], axis=-1)
        label[rng.random(label.shape) < 0.02] = 255
        images = {
            "rgb": rgb.astype(np.uint8),
            "thermal": rng.integers(0, 256, label.shape).astype(np.uint8),
            "label": label,
        }
        paths = {}
        for kind, values in images.items():
            paths[kind] = root / kind / f"pair{number}.png"
            paths[kind].parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(paths[kind])
        pairs.append(Pair(f"pair{number}", **paths, condition=conditions[number % len(conditions)]))
    return PairSet("made", root, split, tuple(pairs), classes, "native")
