"""The picture sheet of corruptions: what every one makes of a pair, at rising severity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from efnet.data.sample import Sample
from efnet.evaluation.corruptions.suite import Corruption, corrupt_sample

Panel = tuple[str, NDArray[np.uint8]]
"""A caption and a picture (H, W, 3)."""

_WIDTH = 180
_GAP = 6
_LINE = 18
_FONT_SIZE = 12
_COLUMNS = 6
"""Most panels in a row."""


def draw_corruptions(
    sample: Sample, corruptions: Sequence[Corruption], severities: Sequence[int], seed: int = 0
) -> Image.Image:
    """Draw the clean pair, then the image that each corruption changes, at each severity.

    Args:
        sample: the pair, at its own size.
        corruptions: in the order of the sheet; those without severities have one picture.
        severities: from left to right.
        seed: as for `corrupt`.

    Returns:
        an RGB image, 180 pixels per picture, up to six in a row.
    """
    strips: list[list[Panel]] = [[("colour, clean", sample.rgb), ("thermal, clean", _grey(sample))]]
    for corruption in corruptions:
        strip = _strip(sample, corruption, severities, seed)
        # Faults of one kind share a row as long as they fit.
        if len(strips) > 1 and len(strips[-1]) + len(strip) <= _COLUMNS:
            strips[-1] += strip
        else:
            strips.append(strip)
    return _lay_out(strips, max(1, round(_WIDTH * sample.thermal.shape[0] / sample.thermal.shape[1])))


def _strip(sample: Sample, corruption: Corruption, severities: Sequence[int], seed: int) -> list[Panel]:
    """The pictures of one corruption."""
    panels: list[Panel] = []
    for severity in severities if corruption.graded else severities[:1]:
        spoiled = corrupt_sample(sample, corruption, severity, seed)
        caption = f"{corruption.name} {severity}" if corruption.graded else corruption.name
        panels.append((caption, spoiled.rgb if corruption.image == "rgb" else _grey(spoiled)))
    return panels


def _grey(sample: Sample) -> NDArray[np.uint8]:
    """The thermal image as a picture (H, W, 3)."""
    grey = np.rint(np.clip(sample.thermal, 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _lay_out(strips: Sequence[Sequence[Panel]], height: int) -> Image.Image:
    """Rows of pictures of `height` pixels, each with its caption above."""
    columns = max(len(strip) for strip in strips)
    pitch = _LINE + height + _GAP
    sheet = Image.new("RGB", (_GAP + columns * (_WIDTH + _GAP), len(strips) * pitch), (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_FONT_SIZE)
    for row, strip in enumerate(strips):
        for column, (caption, picture) in enumerate(strip):
            place = (_GAP + column * (_WIDTH + _GAP), row * pitch)
            draw.text((place[0], place[1] + 1), caption, fill=(32, 32, 32), font=font)
            shrunk = Image.fromarray(picture).resize((_WIDTH, height), Image.Resampling.BOX)
            sheet.paste(shrunk, (place[0], place[1] + _LINE))
    return sheet
