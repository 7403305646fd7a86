"""The page of an explanation: every picture with what it shows and where the paper says it.

An explanation as files: pictures, the page that holds them all, and the figures.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from efnet.core.files import write_image, write_json, write_text
from efnet.explain.explanation import Explanation, figures, token_densities
from efnet.explain.pictures import Part, Picture, pictures, standalone, weight_strip
from efnet.reporting.html import data_uri, render_page

_HINTS: dict[Part, tuple[str, str]] = {
    "pair": ("The pair", "What came in and what came out. Black classes stay untinted."),
    "clusters": (
        "Where tokens are spent",
        "Each of the three clusterings (DBTC, section II-C) keeps a quarter of the tokens. Lines run between "
        "clusters, a dot marks the token that is a cluster's centre.",
    ),
    "importance": (
        "Importance",
        "The learned score p of each token before its clustering. It weights the merge as e^p (eq. 4) and "
        "is added to the next stage's attention logits (eq. 5). Only differences count; each map has its "
        "own scale.",
    ),
    "fusion": (
        "What each modality takes from the other",
        "MIF (section II-B) adds s * I to each modality: I comes from the other one by attention inside "
        "windows, s weights its channels. One scale for both maps.",
    ),
    "distances": (
        "Distance to each class",
        "MFAD (section II-D, eq. 7) gives each cell the class whose token is nearest. Bright is near; one "
        "scale for all classes; a line surrounds the cells that a class wins.",
    ),
    "certainty": (
        "How sure it is",
        "Softmax over the classes (eq. 8), cell by cell. It is the network's own view, not the chance of "
        "being right.",
    ),
}


def render(explanation: Explanation, name: str, pictures: Sequence[Picture]) -> str:
    """The page as HTML.

    Args:
        explanation: gives figures and charts.
        name: of the pair.
        pictures: all that `efnet.explain.pictures.pictures` gave.
    """
    rows, columns = explanation.clusterings[0].clusters.shape
    height, width = explanation.prediction.index.shape
    lead = (
        f"{explanation.model} on a pair of {width}x{height} pixels: {rows * columns} tokens "
        f"({columns}x{rows}), then {', '.join(str(level.num_clusters) for level in explanation.clusterings)}."
    )
    extras: dict[Part, str] = {
        "pair": _legend(explanation),
        "clusters": _tokens_table(explanation),
        "fusion": _weights(explanation),
    }
    sections = [
        _section(part, [picture for picture in pictures if picture.part == part], extras.get(part, ""))
        for part in _HINTS
    ]
    return render_page(f"Inside EFNet: {name}", lead, [*sections, _absent(explanation)])


def _section(part: Part, pictures: Sequence[Picture], extra: str) -> str:
    if not pictures:
        return ""
    heading, hint = _HINTS[part]
    figures = (
        f'<figure><img src="{data_uri(picture.image)}" width="{picture.image.width}" '
        f'height="{picture.image.height}" loading="lazy" alt="{escape(f"{heading}: {picture.caption}")}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in pictures
    )
    # Fine lines need room; maps can be compared side by side.
    kind = "charts" if part == "clusters" else "panels"
    return (
        f'<section><h2>{heading}</h2><p class="hint">{escape(hint)}</p>'
        f'<div class="{kind}">{"".join(figures)}</div>{extra}</section>'
    )


def _legend(explanation: Explanation) -> str:
    entries = "".join(
        f'<li><span class="swatch" style="background:rgb{color}"></span>{escape(name)}</li>'
        for name, color in zip(explanation.classes.names, explanation.classes.palette, strict=True)
    )
    return f'<ul class="legend">{entries}</ul>'


def _tokens_table(explanation: Explanation) -> str:
    """Tokens of every class that the prediction has, as shares of all."""
    levels = explanation.clusterings
    counts = [level.tokens_per_class(explanation.cell_classes, len(explanation.classes)) for level in levels]
    densities = token_densities(explanation, levels[-1])
    widest = max(np.nanmax(densities), 1.0)
    shares = explanation.prediction.shares()
    heading = "".join(
        f'<th scope="col" class="number">{words}</th>'
        for words in ("pixels", *(f"DBTC {number}" for number, _ in enumerate(levels, 1)))
    )
    rows = []
    for number, name in enumerate(explanation.classes.names):
        if shares[name] == 0 and not counts[0][number]:
            continue
        cells = [f"{100 * shares[name]:.1f}"]
        cells += [
            f"{count[number]:.0f} ({100 * count[number] / level.num_clusters:.1f})"
            for count, level in zip(counts, levels, strict=True)
        ]
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        rows.append(
            f'<tr><th scope="row">{escape(name)}</th>{numbers}{_density(densities[number], widest)}</tr>'
        )
    return (
        '<p id="tokens">Tokens by predicted class, in brackets their share in percent. Density: tokens of '
        "the last clustering per cell, 1 being an even spread. Classes that the prediction has nowhere are "
        'left out.</p><div class="scroll" tabindex="0"><table aria-describedby="tokens">'
        f'<thead><tr><th scope="col">class</th>{heading}<th scope="col" colspan="2">density</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _density(value: float, widest: float) -> str:
    if np.isnan(value):
        return '<td class="number">-</td><td class="barcell"></td>'
    bar = f'<span class="bartrack"><span class="bar" style="width:{100 * value / widest:.1f}%"></span></span>'
    return f'<td class="number">{value:.2f}</td><td class="barcell">{bar}</td>'


def _weights(explanation: Explanation) -> str:
    """Charts of the channel weights."""
    if explanation.interaction is None:
        return ""
    charts = "".join(f"<figure>{chart}</figure>" for chart in channel_charts(explanation))
    return (
        '<p class="hint">Channel weights s: bars from the largest to the least, a dashed line at their mean, '
        f'a band of one standard deviation.</p><div class="charts">{charts}</div>'
    )


def channel_charts(explanation: Explanation) -> list[str]:
    """MIF's channel weights, one chart for each modality; none for other ways of fusion."""
    interaction = explanation.interaction
    if interaction is None:
        return []
    return [
        weight_strip(interaction.rgb.weights, "RGB"),
        weight_strip(interaction.thermal.weights, "thermal"),
    ]


def _absent(explanation: Explanation) -> str:
    sentences = explanation.absent()
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<section><h2>What this network does not have</h2><ul>{items}</ul></section>"


PAGE_FILE = "explain.html"
FIGURES_FILE = "explain.json"
CHART_FILE = "channel-weights.svg"


def write_explanation(folder: str | os.PathLike[str], name: str, explanation: Explanation) -> list[Path]:
    """Write `explain.html`, `explain.json` and the pictures, each whole or not at all.

    Pictures of an earlier explanation that this one has not are removed. The figures come last.

    Args:
        folder: made if absent.
        name: of the pair, for the page's headline.
        explanation: what to show.

    Returns:
        the files written.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(folder)
    shown = list(pictures(explanation))
    written = []
    for picture in shown:
        written.append(folder / f"{picture.name}.png")
        write_image(written[-1], picture.image)
    charts = channel_charts(explanation)
    if charts:
        written.append(folder / CHART_FILE)
        write_text(written[-1], standalone(*charts))
    for stale in _earlier(folder) - set(written):
        stale.unlink(missing_ok=True)
    write_text(folder / PAGE_FILE, render(explanation, name, shown))
    names = [path.name for path in written]
    write_json(folder / FIGURES_FILE, {"name": name, **figures(explanation), "pictures": names})
    return [*written, folder / PAGE_FILE, folder / FIGURES_FILE]


def _earlier(folder: Path) -> set[Path]:
    """The pictures that an explanation wrote there before."""
    try:
        names = json.loads((folder / FIGURES_FILE).read_text(encoding="utf-8"))["pictures"]
        return {folder / name for name in names if re.fullmatch(r"[a-z0-9-]+\.(png|svg)", name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
