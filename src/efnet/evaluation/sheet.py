"""Picture sheets: pairs as rows of RGB, thermal, prediction, truth and errors; a pair under corruptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from efnet.core.classes import IGNORE_INDEX, ClassSet, Color
from efnet.data.sample import Sample
from efnet.evaluation.corruptions.suite import Corruption, corrupt_sample
from efnet.evaluation.metrics import LabelMap, Tally, resize_nearest
from efnet.evaluation.protocols import Protocol
from efnet.inference.postprocess import thermal_pixels

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
    """One pair of the sheet."""

    name: str  # of the pair; `note` is printed after it, such as `night, mIoU 43.21`
    rgb: NDArray[np.uint8]  # (H, W, 3) in 0..255
    thermal: NDArray[np.float32]  # (H, W) in [0, 1]
    prediction: LabelMap  # label map (h, w)
    truth: LabelMap  # label map (h', w'), 255 where ignored
    note: str = ""


def choose_rows(tally: Tally, count: int = 6) -> list[int]:
    """Choose pairs that show the range of a tally: best, median, worst and between, by own mIoU.

    Day and night get equal shares where both are known. Pairs with a single class in truth show little and
    are passed over while there are others. Deterministic: equal figures go by place. Returns up to `count`
    places in the tally, by condition and then from best to worst.
    """
    miou = tally.pair_miou()
    rated = [place for place, value in enumerate(miou) if not np.isnan(value)]
    telling = [place for place in rated if (tally.pairs[place].counts.sum(axis=1) > 0).sum() > 1]
    conditions = tally.conditions() or (None,)
    chosen: list[int] = []
    for number, condition in enumerate(conditions):
        everywhere = telling or rated
        group = [place for place in everywhere if condition in (None, tally.pairs[place].pair.condition)]
        group.sort(key=lambda place: (-miou[place], place))
        share = count // len(conditions) + (number < count % len(conditions))
        chosen += _spread(group, share)
    return chosen


def worst_rows(tally: Tally, count: int) -> list[int]:
    """Return the places of up to `count` pairs in a tally, the lowest own mIoU first.

    Pairs in which no averaged class occurs have none and are left out; equal figures go by place.
    """
    miou = tally.pair_miou()
    rated = [place for place, value in enumerate(miou) if not np.isnan(value)]
    return sorted(rated, key=lambda place: (miou[place], place))[:count]


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
    """Draw rows, at least one, a title and a legend: RGB, 320 pixels per column, ignored pixels grey."""
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
    """The RGB image in grey (h', w', 3) at the truth's size, wrong pixels red, ignored ones light grey."""
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
    height = max(1, round(_PANEL_WIDTH * row.rgb.shape[0] / row.rgb.shape[1]))
    smooth, exact = Image.Resampling.BOX, Image.Resampling.NEAREST
    panels = [
        (Image.fromarray(row.rgb), smooth),
        (Image.fromarray(thermal_pixels(row.thermal)), smooth),
        (Image.fromarray(classes.colorize(row.prediction)), exact),
        (Image.fromarray(classes.colorize(row.truth)), exact),
        (Image.fromarray(error_panel(row, protocol)), smooth),
    ]
    strip = Image.new("RGB", (_left(len(panels)), _LINE + height + _GAP), _BACKGROUND)
    caption = f"{row.name}   {row.note}" if row.note else row.name
    ImageDraw.Draw(strip).text((_GAP, 4), caption, fill=_INK, font=ImageFont.load_default(_FONT_SIZE))
    for column, (panel, resampling) in enumerate(panels):
        strip.paste(panel.resize((_PANEL_WIDTH, height), resampling), (_left(column), _LINE))
    return strip


def _heading(title: str, width: int) -> Image.Image:
    """The title, if any, and the names of the columns."""
    heading = Image.new("RGB", (width, _LINE * (2 if title else 1) + 4), _BACKGROUND)
    draw = ImageDraw.Draw(heading)
    font = ImageFont.load_default(_FONT_SIZE)
    if title:
        draw.text((_GAP, 6), title, fill=_INK, font=font)
    for column, name in enumerate(_COLUMNS):
        draw.text(
            (_left(column), heading.height - _LINE + 4),
            name,
            fill=_INK,
            font=ImageFont.load_default(_FONT_SIZE),
        )
    return heading


def _legend(classes: ClassSet, width: int) -> Image.Image:
    """Colour and name of every class, of errors and of ignored pixels, in as many lines as needed."""
    entries = [*zip(classes.names, classes.palette, strict=True), ("wrong", WRONG), ("ignored", IGNORED)]
    font = ImageFont.load_default(_FONT_SIZE)
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


Panel = tuple[str, NDArray[np.uint8]]  # a caption and a picture (H, W, 3)

_SMALL_WIDTH, _SMALL_GAP, _SMALL_LINE, _SMALL_FONT = 180, 6, 18, 12
_MOST_PANELS = 6  # in a row of the sheet of corruptions


def draw_corruptions(
    sample: Sample, corruptions: Sequence[Corruption], severities: Sequence[int], seed: int = 0
) -> Image.Image:
    """Draw the clean pair, then the image that each corruption changes, at each severity.

    Corruptions without severities have one picture; `seed` is that of `corrupt`. The image is RGB, 180 pixels
    per picture, up to six in a row.
    """
    strips: list[list[Panel]] = [
        [("colour, clean", sample.rgb), ("thermal, clean", thermal_pixels(sample.thermal))]
    ]
    for corruption in corruptions:
        strip: list[Panel] = []
        for severity in severities if corruption.graded else severities[:1]:
            spoiled = corrupt_sample(sample, corruption, severity, seed)
            caption = f"{corruption.name} {severity}" if corruption.graded else corruption.name
            picture = spoiled.rgb if corruption.image == "rgb" else thermal_pixels(spoiled.thermal)
            strip.append((caption, picture))
        # Faults of one kind share a row as long as they fit.
        if len(strips) > 1 and len(strips[-1]) + len(strip) <= _MOST_PANELS:
            strips[-1] += strip
        else:
            strips.append(strip)
    height = max(1, round(_SMALL_WIDTH * sample.thermal.shape[0] / sample.thermal.shape[1]))
    columns = max(len(strip) for strip in strips)
    pitch = _SMALL_LINE + height + _SMALL_GAP
    size = (_SMALL_GAP + columns * (_SMALL_WIDTH + _SMALL_GAP), len(strips) * pitch)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_SMALL_FONT)
    for row, strip in enumerate(strips):
        for column, (caption, picture) in enumerate(strip):
            place = (_SMALL_GAP + column * (_SMALL_WIDTH + _SMALL_GAP), row * pitch)
            draw.text((place[0], place[1] + 1), caption, fill=_INK, font=font)
            shrunk = Image.fromarray(picture).resize((_SMALL_WIDTH, height), Image.Resampling.BOX)
            sheet.paste(shrunk, (place[0], place[1] + _SMALL_LINE))
    return sheet
