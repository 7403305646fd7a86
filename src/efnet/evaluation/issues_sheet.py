"""Doubted labels as files: JSON, tables for spreadsheets, and a page with pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.core.files import write_json, write_text
from efnet.evaluation.label_issues import Doubt, LabelIssues, RankedPair, inner
from efnet.evaluation.sheet import WRONG
from efnet.inference.postprocess import Prediction, thermal_pixels
from efnet.inference.preprocess import Prepared
from efnet.reporting.html import bar_cell, data_uri, figure, legend, render_page, table

FILES = ("issues.json", "pairs.csv", "regions.csv", "issues.html")
_WIDEST = 640  # pixels of a picture
_LISTED = 5  # regions that a card names
_DEFINITION = (
    "A region counts if the network's mean probability of another class there reaches that class's "
    "threshold, its mean probability over the pixels that are labelled so. Score: pixels of these regions, "
    "each times the lead of the other class over the label. Pixels near borders do not count. The network "
    "may be wrong: look before you change a label."
)


def write_tables(folder: Path, issues: LabelIssues, circumstances: Mapping[str, Any]) -> None:
    """Write `issues.json`, `pairs.csv` and `regions.csv`, each whole or not at all."""
    names, doubted = issues.classes.names, issues.confusions()
    classes = [
        {
            "name": name,
            "pixels": issues.pixels[number],
            "threshold": issues.thresholds[number],
            "doubted": int(doubted[number].sum()),
            "taken_for": {
                names[other]: int(doubted[number, other]) for other in np.flatnonzero(doubted[number])
            },
        }
        for number, name in enumerate(names)
    ]
    pairs: list[dict[str, Any]] = [
        {"name": pair.name, "score": round(pair.score, 3), "pixels": pair.pixels}
        | {"regions": [_region(doubt, names) for doubt in pair.doubts]}
        for pair in issues.pairs
    ]
    write_json(folder / "issues.json", {**circumstances, "classes": classes, "pairs": pairs})
    ranked = list(enumerate(pairs, start=1))
    write_text(
        folder / "pairs.csv",
        _csv(
            {
                "rank": place,
                **{key: pair[key] for key in ("name", "score", "pixels")},
                "regions": len(pair["regions"]),
            }
            for place, pair in ranked
        ),
    )
    write_text(
        folder / "regions.csv",
        _csv(
            {"rank": place, "pair": pair["name"], **region}
            for place, pair in ranked
            for region in pair["regions"]
        ),
    )


def _region(doubt: Doubt, names: Sequence[str]) -> dict[str, Any]:
    left, top, width, height = doubt.box
    return {
        "label": names[doubt.label],
        "likely": names[doubt.likely],
        "pixels": doubt.pixels,
        "weight": round(doubt.weight, 3),
        "left": left,
        "top": top,
        "width": width,
        "height": height,
        "p_label": round(doubt.p_label, 4),
        "p_likely": round(doubt.p_likely, 4),
    }


def _csv(rows: Any) -> str:
    """Return rows of one set of keys as CSV with a header; empty without rows."""
    stream = io.StringIO()
    writer = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(stream, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    return stream.getvalue()


def card(
    place: int,
    pair: RankedPair,
    issues: LabelIssues,
    prepared: Prepared,
    label: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
) -> str:
    """Return the HTML of one pair: RGB, thermal, label, prediction, and the doubted pixels in red."""
    names = issues.classes.names
    prediction = probabilities.argmax(axis=0).astype(np.uint8)
    height, width = label.shape
    colors = Image.fromarray(prepared.original).resize((width, height), Image.Resampling.BILINEAR)
    grey = np.repeat(np.asarray(colors.convert("L"))[..., None], 3, axis=2)
    grey[doubted_pixels(pair.doubts, label, prediction)] = WRONG
    panels = [("RGB", colors), ("doubted pixels", Image.fromarray(grey))]
    if prepared.thermal is not None:
        panels.append(("thermal", Image.fromarray(thermal_pixels(prepared.thermal))))
    panels += [
        ("label", Prediction(label, issues.classes).indexed()),
        ("prediction", Prediction(prediction, issues.classes).indexed()),
    ]
    figures = []
    for caption, image in panels:
        smooth = Image.Resampling.NEAREST if image.mode == "P" else Image.Resampling.BOX
        image.thumbnail((_WIDEST, _WIDEST), smooth)
        figures.append(figure(data_uri(image), image.size, caption, f"{caption} of pair {pair.name}"))
    listed = "".join(
        f"<li>{escape(names[doubt.label])}, rather {escape(names[doubt.likely])}: {doubt.pixels} pixels at "
        f"({doubt.box[0]}, {doubt.box[1]}), {doubt.p_label:.2f} against {doubt.p_likely:.2f}</li>"
        for doubt in pair.doubts[:_LISTED]
    )
    more = len(pair.doubts) - _LISTED
    listed += f"<li>and {more} smaller regions</li>" if more > 0 else ""
    return (
        f'<article class="pair"><header><h3>{place}. {escape(pair.name)}</h3>'
        f'<span class="hint">score {pair.score:.0f}</span></header>'
        f'<div class="panels">{"".join(figures)}</div><ul>{listed}</ul></article>'
    )


def doubted_pixels(
    doubts: Sequence[Doubt], label: NDArray[np.uint8], prediction: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Return the mask (H, W) of regions, with the pixels at borders that they leave out."""
    mask = np.zeros(label.shape, dtype=np.bool_)
    for doubt in doubts:
        left, top, width, height = doubt.box
        window = (slice(top, top + height), slice(left, left + width))
        mask[window] |= (label[window] == doubt.label) & (prediction[window] == doubt.likely)
    return mask & inner(label, 1)


def write_page(folder: Path, issues: LabelIssues, title: str, cards: Sequence[str]) -> None:
    """Write `issues.html`, which needs no other file."""
    doubtful = sum(bool(pair.doubts) for pair in issues.pairs)
    lead = f"{doubtful} of {len(issues.pairs)} pairs have regions whose label the network doubts."
    sections = [
        f"<section><h2>Pairs, the most doubted first</h2>{legend(issues.classes)}{''.join(cards)}</section>"
        if cards
        else "",
        f"<section><h2>Classes</h2>{_class_table(issues)}</section>",
        f'<section><h2>Definition</h2><p class="hint">{escape(_DEFINITION)}</p></section>',
    ]
    write_text(folder / "issues.html", render_page(title, lead, sections))


def _class_table(issues: LabelIssues) -> str:
    names, doubted = issues.classes.names, issues.confusions()
    shares = [int(row.sum()) / max(1, count) for row, count in zip(doubted, issues.pixels, strict=True)]
    rows = []
    for number, name in enumerate(names):
        threshold = issues.thresholds[number]
        other = int(doubted[number].argmax())
        cells = (
            str(issues.pixels[number]),
            "-" if threshold is None else f"{threshold:.3f}",
            f"{100 * shares[number]:.2f}",
            escape(names[other]) if doubted[number, other] else "-",
        )
        row = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{row}{bar_cell(min(1.0, shares[number]))}</tr>')
    heads = ("labelled pixels", "threshold", "doubted, %", "mostly for")
    numbers = "".join(f'<th scope="col" class="number">{head}</th>' for head in heads)
    return table(f'<th scope="col">class</th>{numbers}<th scope="col"></th>', rows)
