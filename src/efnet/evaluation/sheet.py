"""The picture sheet: a few pairs as rows of RGB, thermal, prediction, truth and errors.

The picture sheet of corruptions: what every one makes of a pair, at rising severity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from efnet.core.classes import IGNORE_INDEX, ClassSet, Color
from efnet.data.sample import Sample
from efnet.evaluation.corruptions.suite import Corruption, corrupt_sample
from efnet.evaluation.metrics import LabelMap, Tally, resize_nearest
from efnet.evaluation.protocols import Protocol

WRONG: Color = (222, 45, 38)
IGNORED: Color = (189, 189, 189)
_BACKGROUND: Color = (255, 255, 255)
_INK: Color = (32, 32, 32)
_COLUMNS = ("RGB", "thermal", "prediction", "truth", "errors")
_PANEL_WIDTH = 320
_GAP = 8
_FONT_SIZE = 16
_LINE = 26


@dataclass(frozen=True)
class SheetRow:
    """One pair of the sheet.

    Attributes:
        name: of the pair.
        rgb: (H, W, 3) in 0..255.
        thermal: (H, W) in [0, 1].
        prediction: label map (h, w).
        truth: label map (h', w'), 255 where ignored.
        note: printed after the name, such as `night, mIoU 43.21`.
    """

    name: str
    rgb: NDArray[np.uint8]
    thermal: NDArray[np.floating[Any]]
    prediction: LabelMap
    truth: LabelMap
    note: str = ""


def choose_rows(tally: Tally, count: int = 6) -> list[int]:
    """Places in the tally of pairs that show its range: best, median, worst and between, by own mIoU.

    Day and night get equal shares where both are known. Pairs with a single class in truth show
    little and are passed over while there are others. Deterministic: equal figures go by place.

    Returns:
        up to `count` places, by condition and then from best to worst.
    """
    miou = tally.pair_miou()
    rated = [place for place, value in enumerate(miou) if not np.isnan(value)]
    telling = [place for place in rated if (tally.pairs[place].counts.sum(axis=1) > 0).sum() > 1]
    conditions = tally.conditions() or (None,)
    chosen: list[int] = []
    for number, condition in enumerate(conditions):
        group = [
            place
            for place in (telling or rated)
            if condition is None or tally.pairs[place].pair.condition == condition
        ]
        group.sort(key=lambda place: (-miou[place], place))
        share = count // len(conditions) + (number < count % len(conditions))
        chosen += _spread(group, share)
    return chosen


def _spread(ranked: list[int], count: int) -> list[int]:
    """`count` entries at even steps, the first and the last among them."""
    if count >= len(ranked):
        return ranked
    if count == 1:
        return [ranked[len(ranked) // 2]]
    return [ranked[round(step * (len(ranked) - 1) / (count - 1))] for step in range(count)]


def draw_sheet(
    rows: Sequence[SheetRow], classes: ClassSet, protocol: Protocol, title: str = ""
) -> Image.Image:
    """Draw the sheet.

    Args:
        rows: from top to bottom; at least one.
        classes: names and colours of the legend.
        protocol: pixels that it does not count are shown as ignored.
        title: first line.

    Returns:
        an RGB image, 320 pixels per column, with a legend of all classes below.
    """
    if not rows:
        raise ValueError("a picture sheet needs at least one row")
    strips = [_row_strip(row, classes, protocol) for row in rows]
    width = strips[0].width
    parts = [_heading(title, width), *strips, _legend(classes, width)]
    sheet = Image.new("RGB", (width, sum(part.height for part in parts)), _BACKGROUND)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def error_panel(row: SheetRow, protocol: Protocol) -> NDArray[np.uint8]:
    """The RGB image in grey, wrong pixels red, pixels that do not count in a flat light grey.

    Returns:
        (h', w', 3) at the size of the truth.
    """
    size = (row.truth.shape[0], row.truth.shape[1])
    prediction = resize_nearest(row.prediction, size)
    grey = np.asarray(Image.fromarray(row.rgb).convert("L").resize(size[::-1], Image.Resampling.BILINEAR))
    panel = np.repeat(grey[..., None], 3, axis=2)
    ignored = np.isin(row.truth, (*protocol.ignored_truth, IGNORE_INDEX))
    ignored |= np.isin(prediction, protocol.ignored_prediction)
    panel[ignored] = IGNORED
    panel[(prediction != row.truth) & ~ignored] = WRONG
    return panel


def _row_strip(row: SheetRow, classes: ClassSet, protocol: Protocol) -> Image.Image:
    """Caption and five panels."""
    thermal = np.rint(np.clip(row.thermal, 0, 1) * 255).astype(np.uint8)
    height = max(1, round(_PANEL_WIDTH * row.rgb.shape[0] / row.rgb.shape[1]))
    smooth, exact = Image.Resampling.BOX, Image.Resampling.NEAREST
    panels = [
        (Image.fromarray(row.rgb), smooth),
        (Image.fromarray(thermal).convert("RGB"), smooth),
        (Image.fromarray(classes.colorize(row.prediction)), exact),
        (Image.fromarray(classes.colorize(row.truth)), exact),
        (Image.fromarray(error_panel(row, protocol)), smooth),
    ]
    strip = Image.new("RGB", (_left(len(panels)), _LINE + height + _GAP), _BACKGROUND)
    caption = f"{row.name}   {row.note}" if row.note else row.name
    ImageDraw.Draw(strip).text((_GAP, 4), caption, fill=_INK, font=_font())
    for column, (panel, resampling) in enumerate(panels):
        strip.paste(panel.resize((_PANEL_WIDTH, height), resampling), (_left(column), _LINE))
    return strip


def _heading(title: str, width: int) -> Image.Image:
    """The title, if any, and the names of the columns."""
    heading = Image.new("RGB", (width, _LINE * (2 if title else 1) + 4), _BACKGROUND)
    draw = ImageDraw.Draw(heading)
    if title:
        draw.text((_GAP, 6), title, fill=_INK, font=_font())
    for column, name in enumerate(_COLUMNS):
        draw.text((_left(column), heading.height - _LINE + 4), name, fill=_INK, font=_font())
    return heading


def _legend(classes: ClassSet, width: int) -> Image.Image:
    """Colour and name of every class, of errors and of ignored pixels, in as many lines as needed."""
    entries = [*zip(classes.names, classes.palette, strict=True), ("wrong", WRONG), ("ignored", IGNORED)]
    font = _font()
    places: list[tuple[int, int]] = []
    left, top = _GAP, _GAP
    for name, _ in entries:
        needed = _FONT_SIZE + 6 + round(font.getlength(name)) + 18
        if left + needed > width and left > _GAP:
            left, top = _GAP, top + _LINE
        places.append((left, top))
        left += needed
    legend = Image.new("RGB", (width, top + _LINE + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(legend)
    for (name, color), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y, x + _FONT_SIZE, y + _FONT_SIZE), fill=color, outline=_INK)
        draw.text((x + _FONT_SIZE + 6, y - 1), name, fill=_INK, font=font)
    return legend


def _left(column: int) -> int:
    return _GAP + column * (_PANEL_WIDTH + _GAP)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=_FONT_SIZE)


Panel = tuple[str, NDArray[np.uint8]]
"""A caption and a picture (H, W, 3)."""

_WIDTH = 180
_GAP_CORRUPTION_SHEET = 6
_LINE_CORRUPTION_SHEET = 18
_FONT_SIZE_CORRUPTION_SHEET = 12
_COLUMNS_CORRUPTION_SHEET = 6
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
        if len(strips) > 1 and len(strips[-1]) + len(strip) <= _COLUMNS_CORRUPTION_SHEET:
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
    pitch = _LINE_CORRUPTION_SHEET + height + _GAP_CORRUPTION_SHEET
    sheet = Image.new(
        "RGB",
        (_GAP_CORRUPTION_SHEET + columns * (_WIDTH + _GAP_CORRUPTION_SHEET), len(strips) * pitch),
        (255, 255, 255),
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_FONT_SIZE_CORRUPTION_SHEET)
    for row, strip in enumerate(strips):
        for column, (caption, picture) in enumerate(strip):
            place = (_GAP_CORRUPTION_SHEET + column * (_WIDTH + _GAP_CORRUPTION_SHEET), row * pitch)
            draw.text((place[0], place[1] + 1), caption, fill=(32, 32, 32), font=font)
            shrunk = Image.fromarray(picture).resize((_WIDTH, height), Image.Resampling.BOX)
            sheet.paste(shrunk, (place[0], place[1] + _LINE_CORRUPTION_SHEET))
    return sheet
