"""HTML pages that need nothing but themselves: one style sheet, pictures as data URIs.

No scripts and no requests. A page follows the reader's light or dark theme and fits a phone.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from importlib import resources

from PIL import Image


def render_page(
    title: str, lead: str, sections: Sequence[str], header: str = "", footer: str = "<footer></footer>"
) -> str:
    """Put a page together.

    Args:
        title: headline, plain text.
        lead: one or two sentences below it, plain text.
        sections: HTML; empty ones are left out.
        header: HTML that follows the lead.
        footer: HTML.

    Returns:
        the whole page.
    """
    style = resources.files("efnet.reporting").joinpath("page.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{style}</style></head>",
            "<body>",
            f"<header><h1>{escape(title)}</h1>",
            f'<p class="lead">{escape(lead)}</p>',
            header,
            "</header>",
            "<main>",
            *[section for section in sections if section],
            "</main>",
            footer,
            "</body></html>",
            "",
        ]
    )


def data_uri(image: Image.Image) -> str:
    """An image as a data URI: photographs as JPEG, label maps (palette images) as lossless PNG."""
    buffer = io.BytesIO()
    if image.mode == "P":
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        image.convert("RGB").save(buffer, "JPEG", quality=85, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
