"""An explanation as files: pictures, the page that holds them all, and the figures."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from efnet.explain.numbers import figures
from efnet.explain.page import channel_charts, render
from efnet.explain.pictures import pictures
from efnet.explain.result import Explanation
from efnet.explain.strips import standalone
from efnet.files import write_image, write_json, write_text

PAGE_FILE = "explain.html"
FIGURES_FILE = "explain.json"
CHART_FILE = "channel-weights.svg"


def write_explanation(folder: str | os.PathLike[str], name: str, explanation: Explanation) -> list[Path]:
    """Write `explain.html`, `explain.json` and the pictures, each whole or not at all.

    Pictures of an earlier explanation that this one has not are removed. The figures come last.

    Args:
        folder: made if absent.
        name: of the pair, for the page's headline.
        explanation: what to show.

    Returns:
        the files written.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(folder)
    shown = list(pictures(explanation))
    written = []
    for picture in shown:
        written.append(folder / f"{picture.name}.png")
        write_image(written[-1], picture.image)
    charts = channel_charts(explanation)
    if charts:
        written.append(folder / CHART_FILE)
        write_text(written[-1], standalone(*charts))
    for stale in _earlier(folder) - set(written):
        stale.unlink(missing_ok=True)
    write_text(folder / PAGE_FILE, render(explanation, name, shown))
    names = [path.name for path in written]
    write_json(folder / FIGURES_FILE, {"name": name, **figures(explanation), "pictures": names})
    return [*written, folder / PAGE_FILE, folder / FIGURES_FILE]


def _earlier(folder: Path) -> set[Path]:
    """The pictures that an explanation wrote there before."""
    try:
        names = json.loads((folder / FIGURES_FILE).read_text(encoding="utf-8"))["pictures"]
        return {folder / name for name in names if re.fullmatch(r"[a-z0-9-]+\.(png|svg)", name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
