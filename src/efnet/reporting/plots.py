"""Plots as files. They need matplotlib, which is an extra."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from efnet.core.errors import InputError

SUFFIXES = (".svg", ".png")
"""What a plot may be written as."""


def check_plot(path: str | os.PathLike[str]) -> None:
    """Refuse what could not be drawn, before anything is computed.

    Raises:
        InputError: another suffix than SVG's or PNG's, or matplotlib is not installed.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise InputError(f"--plot {path}: give a file name that ends in {' or '.join(SUFFIXES)}")
    figure_class()


def figure_class() -> Any:
    """Matplotlib's figure.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        # Not pyplot: a figure by itself needs no window system.
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise InputError("--plot needs matplotlib: pip install 'efnet[plot]'") from error
