"""Plots as files, drawn by matplotlib, which is an extra."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from efnet.core.errors import InputError

SUFFIXES = (".svg", ".png")
"""File formats of a plot."""


def check_plot(path: str | os.PathLike[str]) -> None:
    """Raise an `InputError` for a suffix other than SVG's and PNG's, or if matplotlib is not installed."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise InputError(f"`plot` {path}: give a file name that ends in {' or '.join(SUFFIXES)}")
    figure_class()


def figure_class() -> Any:
    """Return matplotlib's `Figure`; raise an `InputError` if matplotlib is not installed."""
    try:
        # Not pyplot: a figure by itself needs no window system.
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise InputError("`plot` needs matplotlib: pip install 'efnet[plot]'") from error
