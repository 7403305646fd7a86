"""One self-contained HTML page about a trained model: figures, pictures, curves, and its commands.

Charts are SVG, pictures are data URIs. The page can be mailed, opened from disk and printed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.core.classes import ClassSet
from efnet.core.files import write_text
from efnet.data.pairs import Condition
from efnet.evaluation.protocols import Protocol
from efnet.evaluation.sheet import SheetRow, error_panel
from efnet.inference.postprocess import Prediction, thermal_pixels
from efnet.reporting.html import bar_cell, data_uri, figure, legend, render_page, table
from efnet.reporting.svg import line_chart
from efnet.reporting.tables import percent


@dataclass(frozen=True, eq=False)
class GallerySample:
    """One pair of the gallery."""

    name: str
    rgb: NDArray[np.uint8]  # (H, W, 3)
    thermal: NDArray[np.float32]  # (H, W) in [0, 1]
    prediction: NDArray[np.uint8]  # (H, W)
    truth: NDArray[np.uint8]  # (H, W), 255 where ignored
    condition: Condition | None = None
    note: str = ""  # shown beside the name, such as the mIoU


@dataclass(frozen=True)
class FirstLook:
    """A pair as the weights that come with the package see it; pictures that `efnet predict` wrote."""

    name: str
    overlay: Path
    color: Path


@dataclass(frozen=True)
class Epoch:
    """One epoch of training, counted from 1: mean loss, and mIoU on the validation split as a fraction."""

    epoch: int
    loss: float
    miou: float | None = None


@dataclass(frozen=True)
class Step:
    """A command and the seconds that it took."""

    command: str
    seconds: float | None = None


@dataclass(frozen=True)
class RunReport:
    """Contents of the page."""

    title: str
    summary: str  # one or two sentences below it
    evaluation: Mapping[str, Any]  # report of `efnet evaluate`
    classes: ClassSet
    protocol: Protocol  # decides which pixels the error pictures count
    epochs: Sequence[Epoch] = ()
    samples: Sequence[GallerySample] = ()  # gallery
    first: Sequence[FirstLook] = ()  # before any training
    steps: Sequence[Step] = ()  # in the order in which they ran
    facts: Mapping[str, str] = field(default_factory=dict)  # name to value: versions, sizes, timings


def write_report(path: str | os.PathLike[str], report: RunReport) -> None:
    """Write the page to `path`, whole or not at all; raises InputError if the folder cannot be written."""
    write_text(path, render_report(report))


def render_report(report: RunReport) -> str:
    """Return the page as HTML."""
    sections = [
        _first_look(report),
        _gallery(report),
        _class_table(report.evaluation),
        _curves(report.epochs),
        _confusion(report.evaluation, report.classes),
        _steps(report.steps),
        _facts(report.facts),
    ]
    return render_page(
        report.title, report.summary, sections, _tiles(report.evaluation), _footer(report.evaluation)
    )


def _tiles(evaluation: Mapping[str, Any]) -> str:
    """Return the headline figures."""
    tiles = [("mIoU", evaluation["miou"], "main")]
    tiles += [
        (f"mIoU, {part}", evaluation[part]["miou"], "") for part in ("day", "night") if part in evaluation
    ]
    tiles.append(("mean accuracy", evaluation["macc"], ""))
    if "trivial" in evaluation:
        trivial = evaluation["trivial"]
        tiles.append((f"mIoU of all “{trivial['prediction']}”", trivial["miou"], ""))
    items = (
        f'<li class="{kind}"><span class="label">{escape(label)}</span> '
        f'<span class="value">{percent(value, 1)}</span></li>'
        for label, value, kind in tiles
    )
    return f'<ul class="tiles">{"".join(items)}</ul>'


def _section(title: str, content: str, hint: str = "") -> str:
    lead = f'<p class="hint">{hint}</p>' if hint else ""
    return f"<section><h2>{title}</h2>{lead}{content}</section>"


def _first_look(report: RunReport) -> str:
    if not report.first:
        return ""
    cards = []
    for look in report.first:
        pictures = (
            ("overlay", "Prediction laid over the RGB image", look.overlay),
            ("classes", "Predicted classes", look.color),
        )
        panels = []
        for caption, alt, path in pictures:
            with Image.open(path) as image:
                image.thumbnail((640, 640), Image.Resampling.NEAREST)
                panels.append(figure(data_uri(image), image.size, caption, f"{alt} of pair {look.name}"))
        cards.append(
            f'<article class="pair"><header><h3>{escape(look.name)}</h3></header>'
            f'<div class="panels">{"".join(panels)}</div></article>'
        )
    hint = (
        "What the weights that come with efnet make of these pairs. They were trained on real streets and "
        "have never seen a generated scene."
    )
    return _section("Before any training", legend(report.classes) + "".join(cards), hint)


def _gallery(report: RunReport) -> str:
    if not report.samples:
        return ""
    cards = "".join(_card(sample, report.classes, report.protocol) for sample in report.samples)
    hint = (
        "Pairs of the test split, which training never saw, from well to badly segmented. Wrong pixels are "
        "red in the errors."
    )
    return _section("What it sees", legend(report.classes) + cards, hint)


def _card(sample: GallerySample, classes: ClassSet, protocol: Protocol) -> str:
    """Return RGB, thermal, overlay, prediction, truth and errors of a pair."""
    row = SheetRow(sample.name, sample.rgb, sample.thermal, sample.prediction, sample.truth)
    panels = (
        ("RGB", "RGB image", Image.fromarray(sample.rgb)),
        ("thermal", "Thermal image", Image.fromarray(thermal_pixels(sample.thermal))),
        (
            "overlay",
            "Prediction laid over the RGB image",
            Prediction(sample.prediction, classes).overlay(sample.rgb, opacity=0.6),
        ),
        ("prediction", "Predicted classes", Prediction(sample.prediction, classes).indexed()),
        ("truth", "True classes", Prediction(sample.truth, classes).indexed()),
        ("errors", "Wrong pixels in red", Image.fromarray(error_panel(row, protocol))),
    )
    height, width = sample.truth.shape
    badge = f'<span class="badge {sample.condition}">{sample.condition}</span>' if sample.condition else ""
    of = f"of pair {sample.name}" + (f" by {sample.condition}" if sample.condition else "")
    figures = (
        figure(data_uri(image), (width, height), caption, f"{alt} {of}") for caption, alt, image in panels
    )
    note = f'<span class="hint">{escape(sample.note)}</span>' if sample.note else ""
    return (
        f'<article class="pair"><header><h3>{escape(sample.name)}</h3>{badge}{note}</header>'
        f'<div class="panels">{"".join(figures)}</div></article>'
    )


def _class_table(evaluation: Mapping[str, Any]) -> str:
    """Return IoU per class as bars, with day and night beside it."""
    parts = [part for part in ("day", "night") if part in evaluation]
    numbers = "".join(f'<th scope="col" class="number">{name}</th>' for name in (*parts, "accuracy"))
    heading = f'<th scope="col">class</th><th scope="col" colspan="2">IoU</th>{numbers}'
    rows = [
        _class_row(
            name,
            evaluation["iou"][name],
            [*(evaluation[part]["iou"][name] for part in parts), evaluation["acc"][name]],
        )
        for name in evaluation["iou"]
    ]
    others = [*(evaluation[part]["miou"] for part in parts), evaluation["macc"]]
    rows.append(_class_row("mean", evaluation["miou"], others, kind="mean"))
    caption = f"Intersection over union on {evaluation['images']} test pairs, in percent"
    return _section("Class by class", table(heading, rows, caption))


def _class_row(name: str, value: float | None, others: Sequence[float | None], kind: str = "") -> str:
    numbers = "".join(f'<td class="number">{percent(other, 1)}</td>' for other in others)
    return (
        f'<tr class="{kind}"><th scope="row">{escape(name)}</th><td class="number">{percent(value, 1)}</td>'
        f"{bar_cell(value)}{numbers}</tr>"
    )


def _curves(epochs: Sequence[Epoch]) -> str:
    """Return charts of loss and validation mIoU against the epoch."""
    losses = [(float(row.epoch), row.loss) for row in epochs if math.isfinite(row.loss)]
    mious = [
        (float(row.epoch), row.miou) for row in epochs if row.miou is not None and math.isfinite(row.miou)
    ]
    charts: dict[str, str] = {}
    if losses:
        title = "Training loss"
        charts[title] = line_chart(losses, title=title, x_label="epoch", y_label="loss")
    if mious:
        title = "mIoU on the validation split"
        epoch, best = max(mious, key=lambda point: point[1])
        mark = (epoch, f"best {percent(best, 1)}")
        charts[title] = line_chart(
            mious, title=title, x_label="epoch", y_label="mIoU (%)", percent=True, mark=mark
        )
    figures = "".join(
        f"<figure><figcaption>{title}</figcaption>{chart}</figure>" for title, chart in charts.items()
    )
    return _section("Training", f'<div class="charts">{figures}</div>') if charts else ""


def _confusion(evaluation: Mapping[str, Any], classes: ClassSet) -> str:
    """Return the confusion matrix as a heat map, each row in percent of the true class."""
    counts = np.asarray(evaluation["confusion"], dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    heading = "".join(f'<th scope="col">{escape(name)}</th>' for name in classes.names)
    rows = []
    for name, row, total in zip(classes.names, shares, totals[:, 0], strict=True):
        cells = "".join(
            f'<td style="--share:{share:.3f}">{_cell(share) if total > 0 else "-"}</td>' for share in row
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    attributes = 'class="confusion" aria-label="Confusion matrix in percent"'
    matrix = table(f'<td style="--share:0"></td>{heading}', rows, attributes=attributes)
    hint = "Rows: true class. Columns: predicted class. Percent of the true class."
    return _section("What is taken for what", matrix, hint)


def _cell(share: float) -> str:
    """Return a share in percent, short enough for a heat map."""
    if share == 0:
        return "0"
    return "&lt;0.1" if share < 0.0005 else f"{100 * share:.1f}"


def _steps(steps: Sequence[Step]) -> str:
    if not steps:
        return ""
    lines = "\n".join(
        escape(step.command) + (f"   # {duration(step.seconds)}" if step.seconds is not None else "")
        for step in steps
    )
    hint = "The commands that made this page, with the time each took here."
    return _section("How to get the same", f'<pre tabindex="0">{lines}</pre>', hint)


def _facts(facts: Mapping[str, str]) -> str:
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return _section("Made with", f"<dl>{entries}</dl>") if facts else ""


def _footer(evaluation: Mapping[str, Any]) -> str:
    summary = evaluation.get("protocol", {}).get("summary")
    return f"<p>Protocol {escape(str(summary))}.</p>" if summary else ""


def duration(seconds: float) -> str:
    """Return a time such as 12.3 s or 4 min 05 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
