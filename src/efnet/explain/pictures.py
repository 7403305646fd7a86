"""The pictures of an explanation: clusters over the image; maps of importance, fusion, distances, certainty.

Maps are palette images on the initial grid with their scale below. Their colours are matplotlib's viridis
(CC0), which people with any kind of colour vision can order; a table of it saves a plotting library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from efnet.core.errors import InputError
from efnet.explain.explanation import Clustering, Exchange, Explanation
from efnet.inference.postprocess import thermal_pixels
from efnet.ops.tokens import Size

CLUSTER_SIDE = 960
"""Least longer side of the cluster picture, in pixels: lines between clusters are thin from there on."""

LARGEST_SIDE = 1920
"""Greatest longer side of any picture: a page of photographs at full size would be too heavy to send."""

MAP_SIDE = 640
"""Longer side of a map in pixels."""

_STRENGTH = 0.7
_CENTER = (255, 214, 10)

LEVELS = 253
"""Colours of the scale; the other entries of a palette are for lines and letters."""

PAPER, INK = LEVELS, LEVELS + 1
"""Palette entries: black and white."""

_ANCHORS = (
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1f9f88 27ad81 3dbc74 5cc863 81d34d "
    "aadc32 d5e21a fde725"
)

Part = Literal["pair", "clusters", "importance", "fusion", "distances", "certainty"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with its file name without suffix, its part of the page and its caption."""

    name: str
    part: Part
    caption: str
    image: Image.Image


def pictures(explanation: Explanation) -> Iterator[Picture]:
    """Yield the pictures that the network has a part for, in the order of the page."""
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


def _pair(explanation: Explanation) -> Iterator[Picture]:
    size = (explanation.image.shape[0], explanation.image.shape[1])
    if explanation.config.modality != "thermal":
        yield Picture("input-rgb", "pair", "RGB", _shrunk(Image.fromarray(explanation.image)))
    if explanation.thermal is not None:
        grey = Image.fromarray(thermal_pixels(explanation.thermal))
        yield Picture(
            "input-thermal", "pair", "thermal", _shrunk(grey.resize(size[::-1], Image.Resampling.BILINEAR))
        )
    overlay = explanation.prediction.overlay(explanation.image, 0.6)
    yield Picture("prediction", "pair", "prediction", _shrunk(overlay))


def draw_clusters(image: NDArray[np.uint8], clustering: Clustering) -> Image.Image:
    """Draw outlines and centres of the clusters over an image (H, W, 3).

    The result is RGB, enlarged by a whole factor to `CLUSTER_SIDE` at least, or shrunk to `LARGEST_SIDE`.
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
    """Return a copy of an image (H, W, 3) with lines (H, W), bright on dark parts and dark on bright ones.

    `strength` is the share of white or black in the lines, 0 to 1.
    """
    # Smoothed: a line must not flicker with the image's noise.
    ground = np.asarray(Image.fromarray(image).convert("L").filter(ImageFilter.BoxBlur(2)))
    tint = np.where(ground < 128, 255.0, 0.0)[lines]
    drawn = image.copy()
    drawn[lines] = np.rint(image[lines] * (1 - strength) + tint[:, None] * strength)
    return drawn


def draw_importance(explanation: Explanation, clustering: Clustering) -> Image.Image:
    """Draw the importance p of one DBTC, on its own scale."""
    return heat_map(clustering.importance, _map_size(explanation))


def draw_contribution(
    explanation: Explanation, exchange: Exchange, limits: tuple[float, float] | None = None
) -> Image.Image:
    """Draw the norm of s * I: how much one modality takes from the other at each place."""
    return heat_map(exchange.contribution, _map_size(explanation), limits)


def draw_distance(explanation: Explanation, number: int) -> Image.Image:
    """Draw MFAD's distance to one class, bright where near, with a line around the cells that it wins.

    All classes share one scale.

    Raises:
        InputError: the network has another decoder.
    """
    distances = explanation.distances
    if distances is None:
        raise InputError(f"a decoder of kind {explanation.config.decoder} measures no distance to classes")
    limits = float(distances.min()), float(distances.max())
    won = explanation.cell_classes == number
    return heat_map(distances[number], _map_size(explanation), limits, outlined=won, reverse=True)


def viridis(count: int) -> NDArray[np.uint8]:
    """Return (count, 3) colours from dark blue to yellow."""
    anchors = np.array([tuple(bytes.fromhex(anchor)) for anchor in _ANCHORS.split()], dtype=np.float64)
    places = np.linspace(0, len(anchors) - 1, count)
    channels = [np.interp(places, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def enlarge(values: NDArray[Any], size: Size) -> NDArray[Any]:
    """Repeat the cells of a map (h, w, ...) so that it fills (H, W, ...), each pixel by its nearest cell."""
    rows, columns = (np.arange(size[axis]) * values.shape[axis] // size[axis] for axis in (0, 1))
    return np.asarray(values[rows[:, None], columns])


def heat_map(
    values: NDArray[np.floating[Any]],
    size: Size,
    limits: tuple[float, float] | None = None,
    outlined: NDArray[np.bool_] | None = None,
    reverse: bool = False,
) -> Image.Image:
    """Draw finite magnitudes (h, w) at `size` (H, W) with their scale below, as a palette image.

    `limits` are the ends of the scale, by default those of the values; `reverse` makes small values bright.
    A line surrounds the `outlined` cells (h, w).
    """
    low, high = limits or (float(values.min()), float(values.max()))
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    share = np.clip(1 - share if reverse else share, 0, 1)
    pixels = enlarge(np.rint(share * (LEVELS - 1)).astype(np.uint8), size)
    if outlined is not None:
        _outline(pixels, enlarge(outlined, size))
    image = Image.new("P", (size[1], size[0] + 2 * _font_size(size[1])), PAPER)
    # Before anything is drawn: Pillow finds a palette's entries by it.
    image.putpalette([*viridis(LEVELS).flatten().tolist(), 0, 0, 0, 255, 255, 255])
    image.paste(Image.fromarray(pixels), (0, 0))
    ends = (low, high) if not reverse else (high, low)
    _draw_scale(image, size, f"{ends[0]:.3g}", f"{ends[1]:.3g}")
    return image


def edges(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (H, W) pixels whose right or lower neighbour has another label: lines one pixel thin."""
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


def _font_size(width: int) -> int:
    return max(11, width // 28)


def _draw_scale(image: Image.Image, size: Size, left: str, right: str) -> None:
    """Draw the colours from the low end to the high one, each end with its value."""
    height, width = size
    letters = _font_size(width)
    font = ImageFont.load_default(size=letters)
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"  # smoothed letters would mix palette entries
    gap, middle = letters // 2, height + letters
    draw.text((gap, middle), left, fill=INK, font=font, anchor="lm")
    draw.text((width - gap, middle), right, fill=INK, font=font, anchor="rm")
    start = round(2 * gap + font.getlength(left))
    stop = round(width - 2 * gap - font.getlength(right))
    if stop - start < 8:
        return
    bar = np.linspace(0, LEVELS - 1, stop - start).round().astype(np.uint8)
    thick = max(4, gap)
    image.paste(Image.fromarray(np.repeat(bar[None], thick, axis=0)), (start, middle - thick // 2))


def _draw_centers(picture: Image.Image, clustering: Clustering) -> None:
    """Draw a dot with a dark rim for each cluster, as large as the clusters leave room for."""
    rows, columns = clustering.clusters.shape
    step = np.array([picture.height / rows, picture.width / columns])
    pitch = math.sqrt(picture.height * picture.width / clustering.num_clusters)
    radius = min(max(round(pitch / 14), 1), 5)
    draw = ImageDraw.Draw(picture)
    for y, x in (clustering.centers + 0.5) * step:
        for size, color in ((radius + 1, (0, 0, 0)), (radius, _CENTER)):
            draw.ellipse((x - size, y - size, x + size, y + size), fill=color)


def _shrunk(image: Image.Image) -> Image.Image:
    """Return an image within `LARGEST_SIDE`."""
    factor = LARGEST_SIDE / max(image.size)
    return image if factor >= 1 else image.resize(_scaled(image.size, factor), Image.Resampling.LANCZOS)


def _scaled(size: Size, factor: float) -> Size:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _map_size(explanation: Explanation) -> Size:
    """Return the image's shape, at the size of maps."""
    height, width, _ = explanation.image.shape
    return _scaled((height, width), MAP_SIDE / max(height, width))


def _plain(name: str) -> str:
    """Return a class name as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "class"
