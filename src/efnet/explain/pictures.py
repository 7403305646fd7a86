"""The pictures of an explanation: clusters over the image, importance, fusion, distances, certainty.

Magnitudes as colours: maps on the initial grid with their scale below, as palette images.

Colours are matplotlib's viridis (CC0), which people with any kind of colour vision can order, here by a
table so that no plotting library is needed.

MIF's channel weights as a chart: one bar per channel, from the largest to the least.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from efnet.core.errors import InputError
from efnet.explain.explanation import Clustering, Exchange, Explanation
from efnet.inference.postprocess import overlay_image, thermal_pixels
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


WIDTH, HEIGHT = 440, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 26, 30

# Of the page's theme where there is one, else for white paper.
_INK, _MUTED = "var(--ink,#16202a)", "var(--muted,#52606d)"
_LINE, _BAR = "var(--line,#d5dbe1)", "var(--accent,#1459a8)"


def weight_strip(weights: NDArray[np.float32], title: str) -> str:
    """Draw the channel weights of one modality.

    Args:
        weights: (C,), from 0 to 1.
        title: written above, and read out by screen readers with mean and spread.

    Returns:
        an `<svg>` element as wide as its container: bars, a line at the mean and a band of one standard
        deviation around it.
    """
    ordered = np.sort(weights.astype(np.float64))[::-1]
    mean, spread = float(ordered.mean()), float(ordered.std())
    heading = f"{title}: mean {mean:.3f}, standard deviation {spread:.3f}"
    right = WIDTH - _RIGHT
    step = (right - _LEFT) / len(ordered)
    top, bottom = _y(min(1.0, mean + spread)), _y(max(0.0, mean - spread))
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(heading)}" '
        'style="font:12px system-ui,sans-serif">',
        f'<rect x="{_LEFT}" y="{top:.2f}" width="{right - _LEFT}" height="{bottom - top:.2f}" '
        f'style="fill:{_LINE}"/>',
    ]
    for value in (0.0, 0.5, 1.0):
        parts.append(
            f'<line x1="{_LEFT}" y1="{_y(value):.2f}" x2="{right}" y2="{_y(value):.2f}" '
            f'style="stroke:{_LINE}"/>'
        )
        parts.append(_text(_LEFT - 6, _y(value) + 4, f"{value:g}", "end"))
    for place, value in enumerate(ordered):
        parts.append(
            f'<rect x="{_LEFT + (place + 0.15) * step:.2f}" y="{_y(value):.2f}" width="{0.7 * step:.2f}" '
            f'height="{_y(0) - _y(value):.2f}" style="fill:{_BAR}"/>'
        )
    parts.append(
        f'<line x1="{_LEFT}" y1="{_y(mean):.2f}" x2="{right}" y2="{_y(mean):.2f}" '
        f'style="stroke:{_INK};stroke-width:1.5;stroke-dasharray:5 3"/>'
    )
    parts.append(_text(_LEFT, 15, heading, "start", _INK))
    parts.append(_text((_LEFT + right) / 2, HEIGHT - 8, f"{len(ordered)} channels, sorted", "middle"))
    return "".join([*parts, "</svg>"])


def standalone(*charts: str) -> str:
    """Charts below each other as a file of their own, on white paper."""
    height = HEIGHT * len(charts)
    placed = (
        f'<g transform="translate(0 {HEIGHT * place})">{chart}</g>' for place, chart in enumerate(charts)
    )
    nested = "".join(placed).replace("<svg ", f'<svg width="{WIDTH}" height="{HEIGHT}" ')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{2 * WIDTH}" '
        f'height="{2 * height}"><rect width="{WIDTH}" height="{height}" fill="#fff"/>{nested}</svg>\n'
    )


def _y(value: float) -> float:
    return _TOP + (1 - value) * (HEIGHT - _TOP - _BOTTOM)


def _text(x: float, y: float, words: str, anchor: str, color: str = _MUTED) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:{color}">{escape(words)}</text>'


CLUSTER_SIDE = 960
"""Longer side, in pixels, from which lines between clusters are thin beside them; smaller images grow."""

LARGEST_SIDE = 1920
"""Longer side of any picture: a page of photographs at full size would be too heavy to send."""

MAP_SIDE = 640
"""Longer side of a map in pixels."""

_STRENGTH = 0.7
_CENTER = (255, 214, 10)

Part = Literal["pair", "clusters", "importance", "fusion", "distances", "certainty"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with its file name without suffix, its part of the page and its caption."""

    name: str
    part: Part
    caption: str
    image: Image.Image


def pictures(explanation: Explanation) -> Iterator[Picture]:
    """Every picture that the network has something to show for, in the order of the page."""
    yield from _pair(explanation)
    for number, clustering in enumerate(explanation.clusterings, 1):
        caption = f"DBTC {number}: {clustering.num_tokens} tokens to {clustering.num_clusters}"
        yield Picture(f"clusters-{number}", "clusters", caption, draw_clusters(explanation.image, clustering))
    for number, clustering in enumerate(explanation.clusterings, 1):
        yield Picture(
            f"importance-{number}", "importance", f"DBTC {number}", draw_importance(explanation, clustering)
        )
    if explanation.interaction is not None:
        both = (explanation.interaction.rgb, explanation.interaction.thermal)
        limits = 0.0, max(float(exchange.contribution.max()) for exchange in both)
        captions = ("what RGB takes from thermal", "what thermal takes from RGB")
        for name, caption, exchange in zip(("rgb", "thermal"), captions, both, strict=True):
            share = 100 * float(exchange.contribution.mean() / exchange.features.mean())
            caption = f"|s * I|: {caption}; on average {share:.1f} % of |F|"
            image = draw_contribution(explanation, exchange, limits)
            yield Picture(f"contribution-{name}", "fusion", caption, image)
    if explanation.distances is not None:
        for number, name in enumerate(explanation.classes.names):
            image = draw_distance(explanation, number)
            yield Picture(f"distance-{number}-{_plain(name)}", "distances", name, image)
    size = _map_size(explanation)
    for name, caption, values in (
        ("confidence", "probability of the predicted class", explanation.confidence),
        ("margin", "that probability minus the next class's", explanation.margin),
    ):
        yield Picture(name, "certainty", caption, heat_map(values, size, (0.0, 1.0)))


def draw_clusters(image: NDArray[np.uint8], clustering: Clustering) -> Image.Image:
    """Outlines and centres of the clusters over the image.

    Args:
        image: uint8 (H, W, 3).
        clustering: of any grid.

    Returns:
        RGB, enlarged by a whole factor to `CLUSTER_SIDE` at least, or shrunk to `LARGEST_SIDE`.
    """
    factor = math.ceil(CLUSTER_SIDE / max(image.shape[:2]))
    size = (image.shape[0] * factor, image.shape[1] * factor)
    picture = _shrunk(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    size = (picture.height, picture.width)
    picture = Image.fromarray(
        outlined(np.asarray(picture), edges(enlarge(clustering.clusters, size)), _STRENGTH)
    )
    _draw_centers(picture, clustering)
    return picture


def outlined(image: NDArray[np.uint8], lines: NDArray[np.bool_], strength: float) -> NDArray[np.uint8]:
    """Draw lines that can be seen on any ground: bright on its dark parts, dark on its bright ones.

    Args:
        image: uint8 (H, W, 3).
        lines: (H, W) pixels to draw on.
        strength: share of white or black in them, 0 to 1.
    """
    # Smoothed: a line must not flicker with the image's noise.
    ground = np.asarray(Image.fromarray(image).convert("L").filter(ImageFilter.BoxBlur(2)))
    tint = np.where(ground < 128, 255.0, 0.0)[lines]
    drawn = image.copy()
    drawn[lines] = np.rint(image[lines] * (1 - strength) + tint[:, None] * strength)
    return drawn


def draw_importance(explanation: Explanation, clustering: Clustering) -> Image.Image:
    """The importance p of one DBTC, by its own scale."""
    return heat_map(clustering.importance, _map_size(explanation))


def draw_contribution(
    explanation: Explanation, exchange: Exchange, limits: tuple[float, float] | None = None
) -> Image.Image:
    """The norm of s * I: how much one modality takes from the other at each place."""
    return heat_map(exchange.contribution, _map_size(explanation), limits)


def draw_distance(explanation: Explanation, number: int) -> Image.Image:
    """MFAD's distance to one class, near being bright, with a line around the cells that it wins.

    The scale is that of all classes together.

    Raises:
        InputError: the network has another decoder.
    """
    distances = explanation.distances
    if distances is None:
        raise InputError(f"a decoder of kind {explanation.config.decoder} measures no distance to classes")
    limits = float(distances.min()), float(distances.max())
    won = explanation.cell_classes == number
    return heat_map(distances[number], _map_size(explanation), limits, outlined=won, reverse=True)


def _pair(explanation: Explanation) -> Iterator[Picture]:
    size = (explanation.image.shape[0], explanation.image.shape[1])
    if explanation.config.modality != "thermal":
        yield Picture("input-rgb", "pair", "RGB", _shrunk(Image.fromarray(explanation.image)))
    if explanation.thermal is not None:
        grey = Image.fromarray(thermal_pixels(explanation.thermal))
        yield Picture(
            "input-thermal", "pair", "thermal", _shrunk(grey.resize(size[::-1], Image.Resampling.BILINEAR))
        )
    overlay = overlay_image(explanation.image, explanation.prediction.index, explanation.classes, 0.6)
    yield Picture("prediction", "pair", "prediction", _shrunk(overlay))


def _draw_centers(picture: Image.Image, clustering: Clustering) -> None:
    """A dot with a dark rim for each, as large as its clusters leave room for."""
    rows, columns = clustering.clusters.shape
    step = np.array([picture.height / rows, picture.width / columns])
    pitch = math.sqrt(picture.height * picture.width / clustering.num_clusters)
    radius = min(max(round(pitch / 14), 1), 5)
    draw = ImageDraw.Draw(picture)
    for y, x in (clustering.centers + 0.5) * step:
        for size, color in ((radius + 1, (0, 0, 0)), (radius, _CENTER)):
            draw.ellipse((x - size, y - size, x + size, y + size), fill=color)


def _shrunk(image: Image.Image) -> Image.Image:
    """An image within `LARGEST_SIDE`."""
    factor = LARGEST_SIDE / max(image.size)
    return image if factor >= 1 else image.resize(_scaled(image.size, factor), Image.Resampling.LANCZOS)


def _scaled(size: Size, factor: float) -> Size:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _map_size(explanation: Explanation) -> Size:
    """The image's shape, at the size of maps."""
    size = (explanation.image.shape[0], explanation.image.shape[1])
    return _scaled(size, MAP_SIDE / max(size))


def _plain(name: str) -> str:
    """A class name as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "class"
