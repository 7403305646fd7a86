"""Configure Sphinx: the pages of this folder and a reference from docstrings (`make docs`)."""

from __future__ import annotations

import re
from typing import Any

from efnet import __version__

project = "efnet"
author = "the efnet authors"
copyright = "2026, the efnet authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_use_ivar = True
html_theme = "furo"
html_title = f"efnet {__version__}"
html_static_path: list[str] = []

_TRANSCLUDED = {"../benchmarks/README.md": "benchmarks.md"}
"""Pages outside this folder, with the page that includes each on the site."""


def _links(app: Any, page: str, source: list[str]) -> None:
    """Replace links out of this folder with the including page, or with plain text."""
    text = source[0]
    for target, here in _TRANSCLUDED.items():
        text = text.replace(f"]({target}", f"]({here}")
    source[0] = re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", text)


def setup(app: Any) -> None:
    """Register the link rule."""
    app.connect("source-read", _links)
    app.connect("include-read", lambda app, path, page, source: _of_repository(source))


def _of_repository(source: list[str]) -> None:
    """Fix links of an included file, which point to this folder as `../docs/`."""
    source[0] = source[0].replace("](../docs/", "](")
