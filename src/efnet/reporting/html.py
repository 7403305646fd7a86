"""HTML pages that need no other file: one style sheet, images as data URIs, no scripts, no requests.

A page follows the reader's light or dark theme and fits a phone.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from importlib import resources
from typing import Any

from PIL import Image

from efnet.core.classes import ClassSet


def render_page(title: str, lead: str, sections: Iterable[str], header: str = "", footer: str = "") -> str:
    """Return a page: plain text as title and lead, then HTML as rest of the header, sections and footer.

    Empty sections are left out.
    """
    style = resources.files("efnet.reporting").joinpath("page.css").read_text(encoding="utf-8")
    main = "".join(f"{section}\n" for section in sections if section)
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style></head>
<body>
<header><h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
{header}</header>
<main>
{main}</main>
<footer>{footer}</footer>
</body></html>
"""


def table(head: str, rows: Iterable[str], caption: str = "", attributes: str = "") -> str:
    """Return a table of `<th>` and `<tr>` elements, which scrolls sideways where it is too wide.

    `caption` is HTML above the table, `attributes` are those of the `<table>` element.
    """
    tag = f"table {attributes}".strip()
    above = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0"><{tag}>{above}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def figure(image: str, size: tuple[int, int], caption: str, alt: str) -> str:
    """Return an image, a data URI of `size` (W, H) in pixels, with plain text as caption and alternative."""
    return (
        f'<figure><img src="{image}" width="{size[0]}" height="{size[1]}" loading="lazy" '
        f'alt="{escape(alt)}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def legend(classes: ClassSet) -> str:
    """Return the classes with their colours."""
    entries = (
        f'<li><span class="swatch" style="background:rgb{color}"></span>{escape(name)}</li>'
        for name, color in zip(classes.names, classes.palette, strict=True)
    )
    return f'<ul class="legend">{"".join(entries)}</ul>'


def bar_cell(share: float | None) -> str:
    """Return a table cell with a bar of this share of its width; empty where there is none."""
    bar = ""
    if share is not None:
        bar = f'<span class="bartrack"><span class="bar" style="width:{100 * share:.1f}%"></span></span>'
    return f'<td class="barcell">{bar}</td>'


def data_uri(image: Image.Image) -> str:
    """Return an image as a data URI: photographs as JPEG, label maps (palette images) as lossless PNG."""
    if image.mode == "P":
        kind, content = "png", image_bytes(image, "PNG", optimize=True)
    else:
        kind, content = "jpeg", image_bytes(image.convert("RGB"), "JPEG", quality=85, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def image_bytes(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image file of a kind that Pillow writes, with its options."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
