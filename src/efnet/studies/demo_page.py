"""The pictures of one gallery pair, as data URIs.

One self-contained HTML page about a trained model: figures, pictures, curves, and how they came about.

Charts are SVG, pictures are data URIs. Mail it, open it from disk, print it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.core.classes import ClassSet
from efnet.core.files import write_text
from efnet.data.pairs import Condition
from efnet.evaluation.protocols import Protocol
from efnet.evaluation.sheet import SheetRow, error_panel
from efnet.inference.postprocess import index_image, overlay_image, thermal_pixels
from efnet.reporting.html import data_uri, render_page
from efnet.reporting.svg import line_chart


@dataclass(frozen=True)
class Panel:
    """A picture with its caption and its alternative text ("<alt> of pair x")."""

    caption: str
    alt: str
    data_uri: str


def panels(sample: GallerySample, classes: ClassSet, protocol: Protocol) -> list[Panel]:
    """RGB, thermal, overlay, prediction, truth and errors of a pair."""
    row = SheetRow(sample.name, sample.rgb, sample.thermal, sample.prediction, sample.truth)
    overlay = overlay_image(sample.rgb, sample.prediction, classes, opacity=0.6)
    errors = Image.fromarray(error_panel(row, protocol))
    return [
        Panel("RGB", "RGB image", data_uri(Image.fromarray(sample.rgb))),
        Panel("thermal", "Thermal image", data_uri(Image.fromarray(thermal_pixels(sample.thermal)))),
        Panel("overlay", "Prediction laid over the RGB image", data_uri(overlay)),
        Panel("prediction", "Predicted classes", data_uri(index_image(sample.prediction, classes))),
        Panel("truth", "True classes", data_uri(index_image(sample.truth, classes))),
        Panel("errors", "Wrong pixels in red", data_uri(errors)),
    ]


@dataclass(frozen=True, eq=False)
class GallerySample:
    """One pair of the gallery.

    Attributes:
        name: of the pair.
        rgb: uint8 (H, W, 3).
        thermal: float (H, W) in [0, 1].
        prediction: label map uint8 (H, W).
        truth: label map uint8 (H, W), 255 where ignored.
        condition: day or night, where known.
        note: written beside the name, such as its mIoU.
    """

    name: str
    rgb: NDArray[np.uint8]
    thermal: NDArray[np.float32]
    prediction: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    condition: Condition | None = None
    note: str = ""


@dataclass(frozen=True)
class Epoch:
    """What training measured in one epoch.

    Attributes:
        epoch: counted from 1.
        loss: mean training loss.
        miou: mIoU on the validation split as a fraction; None where it was not measured.
    """

    epoch: int
    loss: float
    miou: float | None = None


@dataclass(frozen=True)
class Step:
    """A command that was run and the seconds that it took."""

    command: str
    seconds: float | None = None


@dataclass(frozen=True)
class RunReport:
    """All that the page shows.

    Attributes:
        title: headline.
        summary: one or two sentences below it.
        evaluation: what `efnet evaluate --json` writes.
        classes: names and colours.
        protocol: decides which pixels the error pictures count.
        epochs: training curve; may be empty.
        samples: gallery; may be empty.
        steps: commands in the order in which they were run.
        facts: name to value: versions, sizes, timings.
    """

    title: str
    summary: str
    evaluation: Mapping[str, Any]
    classes: ClassSet
    protocol: Protocol
    epochs: Sequence[Epoch] = ()
    samples: Sequence[GallerySample] = ()
    steps: Sequence[Step] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def write_report(path: str | os.PathLike[str], report: RunReport) -> None:
    """Write the page to `path`, whole or not at all.

    Raises:
        InputError: the folder cannot be written.
    """
    write_text(path, render_report(report))


def render_report(report: RunReport) -> str:
    """The page as HTML."""
    sections = [
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
    """The headline figures."""
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
        f'<span class="value">{_percent(value)}</span></li>'
        for label, value, kind in tiles
    )
    return f'<ul class="tiles">{"".join(items)}</ul>'


def _gallery(report: RunReport) -> str:
    if not report.samples:
        return ""
    legend = "".join(
        f'<li><span class="swatch" style="background:rgb{color}"></span>{escape(name)}</li>'
        for name, color in zip(report.classes.names, report.classes.palette, strict=True)
    )
    cards = (_card(sample, report) for sample in report.samples)
    return (
        "<section><h2>What it sees</h2>"
        '<p class="hint">Pairs of the test split, which training never saw, from well to badly segmented. '
        "Wrong pixels are red in the errors.</p>"
        f'<ul class="legend">{legend}</ul>{"".join(cards)}</section>'
    )


def _card(sample: GallerySample, report: RunReport) -> str:
    height, width = sample.truth.shape
    badge = f'<span class="badge {sample.condition}">{sample.condition}</span>' if sample.condition else ""
    when = f" by {sample.condition}" if sample.condition else ""
    figures = (
        f'<figure><img src="{panel.data_uri}" width="{width}" height="{height}" loading="lazy" '
        f'alt="{escape(panel.alt)} of pair {escape(sample.name)}{when}">'
        f"<figcaption>{escape(panel.caption)}</figcaption></figure>"
        for panel in panels(sample, report.classes, report.protocol)
    )
    note = f'<span class="hint">{escape(sample.note)}</span>' if sample.note else ""
    return (
        f'<article class="pair"><header><h3>{escape(sample.name)}</h3>{badge}{note}</header>'
        f'<div class="panels">{"".join(figures)}</div></article>'
    )


def _class_table(evaluation: Mapping[str, Any]) -> str:
    """IoU per class as bars, with day and night beside it."""
    parts = [part for part in ("day", "night") if part in evaluation]
    heading = '<th scope="col">class</th><th scope="col" colspan="2">IoU</th>' + "".join(
        f'<th scope="col" class="number">{part}</th>' for part in parts
    )
    heading += '<th scope="col" class="number">accuracy</th>'
    rows = [
        _class_row(
            name,
            evaluation["iou"][name],
            [evaluation[part]["iou"][name] for part in parts],
            evaluation["acc"][name],
        )
        for name in evaluation["iou"]
    ]
    others = [evaluation[part]["miou"] for part in parts]
    rows.append(_class_row("mean", evaluation["miou"], others, evaluation["macc"], kind="mean"))
    return (
        "<section><h2>Class by class</h2>"
        '<div class="scroll"><table>'
        f"<caption>Intersection over union on {evaluation['images']} test pairs, in percent</caption>"
        f"<thead><tr>{heading}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _class_row(
    name: str, value: float | None, others: Sequence[float | None], accuracy: float | None, kind: str = ""
) -> str:
    bar = ""
    if value is not None:
        bar = f'<span class="bartrack"><span class="bar" style="width:{100 * value:.1f}%"></span></span>'
    numbers = "".join(f'<td class="number">{_percent(other)}</td>' for other in [*others, accuracy])
    return (
        f'<tr class="{kind}"><th scope="row">{escape(name)}</th><td class="number">{_percent(value)}</td>'
        f'<td class="barcell">{bar}</td>{numbers}</tr>'
    )


def _curves(epochs: Sequence[Epoch]) -> str:
    """Loss and validation mIoU against the epoch."""
    losses = [(float(row.epoch), row.loss) for row in epochs if math.isfinite(row.loss)]
    mious = [
        (float(row.epoch), row.miou) for row in epochs if row.miou is not None and math.isfinite(row.miou)
    ]
    charts: list[tuple[str, str]] = []
    if losses:
        title = "Training loss"
        charts.append((title, line_chart(losses, title=title, x_label="epoch", y_label="loss")))
    if mious:
        title = "mIoU on the validation split"
        best = max(mious, key=lambda point: point[1])
        note = (best[0], f"best {_percent(best[1])}")
        chart = line_chart(mious, title=title, x_label="epoch", y_label="mIoU (%)", percent=True, mark=note)
        charts.append((title, chart))
    if not charts:
        return ""
    figures = "".join(f"<figure><figcaption>{title}</figcaption>{chart}</figure>" for title, chart in charts)
    return f'<section><h2>Training</h2><div class="charts">{figures}</div></section>'


def _confusion(evaluation: Mapping[str, Any], classes: ClassSet) -> str:
    """The confusion matrix as a heat map, each row in percent of the true class."""
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
    return (
        "<section><h2>What is taken for what</h2>"
        '<p class="hint">Rows: true class. Columns: predicted class. Percent of the true class.</p>'
        '<div class="scroll" tabindex="0"><table class="confusion" aria-label="Confusion matrix in percent">'
        f'<thead><tr><td style="--share:0"></td>{heading}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _cell(share: float) -> str:
    """A share in percent, short enough for a heat map."""
    if share == 0:
        return "0"
    return "&lt;0.1" if share < 0.0005 else f"{100 * share:.1f}"


def _steps(steps: Sequence[Step]) -> str:
    if not steps:
        return ""
    lines = [
        escape(step.command) + (f"   # {duration(step.seconds)}" if step.seconds is not None else "")
        for step in steps
    ]
    return (
        "<section><h2>How to get the same</h2>"
        '<p class="hint">The commands that made this page, with the time each took here.</p>'
        f'<pre tabindex="0">{chr(10).join(lines)}</pre></section>'
    )


def _facts(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<section><h2>Made with</h2><dl>{entries}</dl></section>"


def _footer(evaluation: Mapping[str, Any]) -> str:
    summary = evaluation.get("protocol", {}).get("summary")
    return f"<footer><p>Protocol {escape(str(summary))}.</p></footer>" if summary else "<footer></footer>"


def _percent(value: float | None) -> str:
    """A fraction as percent with one decimal; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 12.3 s, 4 min 05 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
