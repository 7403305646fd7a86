"""The pictures of an explanation: clusters over the image, importance, fusion, distances, certainty."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from efnet.errors import InputError
from efnet.explain.maps import edges, enlarge, heat_map
from efnet.explain.result import Clustering, Exchange, Explanation
from efnet.ops.tokens import Size
from efnet.prediction.render import overlay_image, thermal_pixels

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
