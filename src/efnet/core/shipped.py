"""The weights that come with the package."""

from __future__ import annotations

from pathlib import Path

DEFAULT_WEIGHTS = "efnet-edge-streets"
"""Name that stands for them wherever a checkpoint is asked for, unless a folder has this name."""

SHIPPED_FOLDER = Path(__file__).parents[1] / "weights" / DEFAULT_WEIGHTS
