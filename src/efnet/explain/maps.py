"""Magnitudes as colours: maps on the initial grid with their scale below, as palette images.

Colours are matplotlib's viridis (CC0), which people with any kind of colour vision can order, here by a
table so that no plotting library is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from efnet.ops.tokens import Size

LEVELS = 253
"""Colours of the scale; three of a palette's 256 are left for lines and letters."""

PAPER, INK, FRAME = LEVELS, LEVELS + 1, LEVELS + 2
"""Palette entries: black, white, mid grey."""

_ANCHORS = (
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1f9f88 27ad81 3dbc74 5cc863 81d34d "
    "aadc32 d5e21a fde725"
)


def viridis(count: int) -> NDArray[np.uint8]:
    """(count, 3) colours from dark blue to yellow."""
    anchors = np.array([tuple(bytes.fromhex(anchor)) for anchor in _ANCHORS.split()], dtype=np.float64)
    places = np.linspace(0, len(anchors) - 1, count)
    channels = [np.interp(places, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def enlarge(values: NDArray[Any], size: Size) -> NDArray[Any]:
    """Repeat the cells of a map (h, w, ...) so that it fills (H, W, ...), each pixel by its nearest cell."""
    rows, columns = (np.arange(size[axis]) * values.shape[axis] // size[axis] for axis in (0, 1))
    enlarged: NDArray[Any] = values[rows[:, None], columns]
    return enlarged


def heat_map(
    values: NDArray[np.floating[Any]],
    size: Size,
    limits: tuple[float, float] | None = None,
    outlined: NDArray[np.bool_] | None = None,
    reverse: bool = False,
) -> Image.Image:
    """Draw a map of magnitudes with its scale below.

    Args:
        values: (h, w), finite.
        size: (H, W) of the map's picture; the scale comes on top of it.
        limits: values at the ends of the scale; those of the map if None.
        outlined: (h, w) cells to draw a line around.
        reverse: let small values be bright.

    Returns:
        a palette image, W wide.
    """
    low, high = limits or (float(values.min()), float(values.max()))
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    share = np.clip(1 - share if reverse else share, 0, 1)
    pixels = enlarge(np.rint(share * (LEVELS - 1)).astype(np.uint8), size)
    if outlined is not None:
        _outline(pixels, enlarge(outlined, size))
    image = Image.new("P", (size[1], size[0] + _scale_height(size[1])), PAPER)
    # Before anything is drawn: Pillow finds a palette's entries by it.
    image.putpalette([*viridis(LEVELS).flatten().tolist(), 0, 0, 0, 255, 255, 255, 128, 128, 128])
    image.paste(Image.fromarray(pixels), (0, 0))
    ends = (low, high) if not reverse else (high, low)
    _draw_scale(image, size, f"{ends[0]:.3g}", f"{ends[1]:.3g}")
    return image


def edges(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """(H, W) pixels whose right or lower neighbour has another label: lines one pixel thin."""
    lines = np.zeros(labels.shape, dtype=bool)
    lines[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    lines[:-1] |= labels[:-1] != labels[1:]
    return lines


def _outline(pixels: NDArray[np.uint8], inside: NDArray[np.bool_]) -> None:
    """Draw around a region, in place: white on its inner side, black on its outer side."""
    padded = np.pad(inside, 1, mode="edge")
    shifts = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    pixels[inside & ~np.logical_and.reduce(shifts)] = INK
    pixels[~inside & np.logical_or.reduce(shifts)] = PAPER


def _scale_height(width: int) -> int:
    return 2 * _font_size(width)


def _font_size(width: int) -> int:
    return max(11, width // 28)


def _draw_scale(image: Image.Image, size: Size, left: str, right: str) -> None:
    """The colours from the low end to the high one, each with its value."""
    height, width = size
    font = ImageFont.load_default(size=_font_size(width))
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"  # smoothed letters would mix palette entries
    gap = _font_size(width) // 2
    middle = height + _scale_height(width) // 2
    draw.text((gap, middle), left, fill=INK, font=font, anchor="lm")
    draw.text((width - gap, middle), right, fill=INK, font=font, anchor="rm")
    start = round(2 * gap + font.getlength(left))
    stop = round(width - 2 * gap - font.getlength(right))
    if stop - start < 8:
        return
    bar = np.linspace(0, LEVELS - 1, stop - start).round().astype(np.uint8)
    thick = max(4, _font_size(width) // 2)
    image.paste(Image.fromarray(np.repeat(bar[None], thick, axis=0)), (start, middle - thick // 2))
