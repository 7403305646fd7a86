"""An explanation as files: pictures, an HTML page that shows them with captions, and figures as JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from efnet import __version__
from efnet.core.files import write_image, write_json, write_text
from efnet.explain.explanation import Clustering, Exchange, Explanation
from efnet.explain.pictures import Part, Picture, pictures
from efnet.reporting.html import bar_cell, data_uri, figure, legend, render_page, table
from efnet.reporting.svg import bar_chart, standalone

PAGE_FILE = "explain.html"
FIGURES_FILE = "explain.json"
CHART_FILE = "channel-weights.svg"

_HINTS: dict[Part, list[str]] = yaml.safe_load(
    resources.files("efnet.explain").joinpath("sections.yaml").read_text(encoding="utf-8")
)


def write_explanation(folder: str | os.PathLike[str], name: str, explanation: Explanation) -> list[Path]:
    """Write `explain.html`, `explain.json` and the pictures, each whole or not at all; return their paths.

    The folder is created if absent. Pictures that only an earlier explanation has are removed. The figures
    are written last. `name` is the name of the pair, for the headline.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(folder)
    shown = list(pictures(explanation))
    written = []
    for picture in shown:
        written.append(folder / f"{picture.name}.png")
        write_image(written[-1], picture.image)
    charts = _channel_charts(explanation)
    if charts:
        written.append(folder / CHART_FILE)
        write_text(written[-1], standalone(*charts))
    for stale in _earlier(folder) - set(written):
        stale.unlink(missing_ok=True)
    write_text(folder / PAGE_FILE, render(explanation, name, shown))
    names = [path.name for path in written]
    write_json(folder / FIGURES_FILE, {"name": name, **figures(explanation), "pictures": names})
    return [*written, folder / PAGE_FILE, folder / FIGURES_FILE]


def render(explanation: Explanation, name: str, pictures: Sequence[Picture]) -> str:
    """Return the page as HTML for the pair `name`, with the pictures of `efnet.explain.pictures.pictures`."""
    rows, columns = explanation.clusterings[0].clusters.shape
    height, width = explanation.prediction.index.shape
    lead = (
        f"{explanation.model} on a pair of {width}x{height} pixels: {rows * columns} tokens "
        f"({columns}x{rows}), then {', '.join(str(level.num_clusters) for level in explanation.clusterings)}."
    )
    extras: dict[Part, str] = {
        "pair": legend(explanation.classes),
        "clusters": _tokens_table(explanation),
        "fusion": _weights(explanation),
    }
    sections = [
        _section(part, [picture for picture in pictures if picture.part == part], extras.get(part, ""))
        for part in _HINTS
    ]
    absent = "".join(f"<li>{escape(sentence)}</li>" for sentence in explanation.absent())
    if absent:
        sections.append(f"<section><h2>What this network does not have</h2><ul>{absent}</ul></section>")
    return render_page(f"Inside EFNet: {name}", lead, sections)


def figures(explanation: Explanation) -> dict[str, Any]:
    """Return the content of `explain.json`: measures of the maps, as plain values."""
    names = explanation.classes.names
    interaction, distances = explanation.interaction, explanation.distances
    return {
        "efnet": __version__,
        "model": explanation.model,
        "config": explanation.config.to_dict(),
        "image_size": list(explanation.prediction.index.shape),
        "network_size": list(explanation.network_size),
        "grid_size": list(explanation.clusterings[0].clusters.shape),
        "shares": explanation.prediction.shares(),
        "clusterings": [_clustering(explanation, clustering) for clustering in explanation.clusterings],
        "mif": interaction and {"rgb": _exchange(interaction.rgb), "thermal": _exchange(interaction.thermal)},
        "distances": None if distances is None else dict(zip(names, map(_summary, distances), strict=True)),
        "confidence": _summary(explanation.confidence),
        "margin": _summary(explanation.margin),
        "absent": explanation.absent(),
    }


def _section(part: Part, pictures: Sequence[Picture], extra: str) -> str:
    if not pictures:
        return ""
    heading, hint = _HINTS[part]
    shown = (
        figure(data_uri(picture.image), picture.image.size, picture.caption, f"{heading}: {picture.caption}")
        for picture in pictures
    )
    # Fine lines need room; maps can be compared side by side.
    kind = "charts" if part == "clusters" else "panels"
    return (
        f'<section><h2>{heading}</h2><p class="hint">{escape(hint)}</p>'
        f'<div class="{kind}">{"".join(shown)}</div>{extra}</section>'
    )


def _tokens_table(explanation: Explanation) -> str:
    """Return a table of the tokens of each class in the prediction, with their shares of all tokens."""
    levels = explanation.clusterings
    counts = [level.tokens_per_class(explanation.cell_classes, len(explanation.classes)) for level in levels]
    densities = explanation.token_densities(levels[-1])
    widest = max(np.nanmax(densities), 1.0)
    shares = explanation.prediction.shares()
    columns = ("pixels", *(f"DBTC {number}" for number, _ in enumerate(levels, 1)))
    numbers = "".join(f'<th scope="col" class="number">{column}</th>' for column in columns)
    rows = []
    for number, name in enumerate(explanation.classes.names):
        if shares[name] == 0 and not counts[0][number]:
            continue
        density = None if np.isnan(densities[number]) else densities[number]
        cells = [f"{100 * shares[name]:.1f}"]
        cells += [
            f"{count[number]:.0f} ({100 * count[number] / level.num_clusters:.1f})"
            for count, level in zip(counts, levels, strict=True)
        ]
        cells.append("-" if density is None else f"{density:.2f}")
        row = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        bar = bar_cell(None if density is None else density / widest)
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{row}{bar}</tr>')
    return (
        '<p id="tokens">Tokens by predicted class, in brackets their share in percent. Density: tokens of '
        "the last clustering per cell, 1 being an even spread. Classes that the prediction does not contain "
        "are left out.</p>"
        + table(
            f'<th scope="col">class</th>{numbers}<th scope="col" colspan="2">density</th>',
            rows,
            attributes='aria-describedby="tokens"',
        )
    )


def _weights(explanation: Explanation) -> str:
    charts = "".join(f"<figure>{chart}</figure>" for chart in _channel_charts(explanation))
    if not charts:
        return ""
    return (
        '<p class="hint">Channel weights s: bars from the largest to the least, a dashed line at their mean, '
        f'a band of one standard deviation.</p><div class="charts">{charts}</div>'
    )


def _channel_charts(explanation: Explanation) -> list[str]:
    """Draw MIF's channel weights, one chart for each modality; none for other ways of fusion."""
    interaction = explanation.interaction
    if interaction is None:
        return []
    sides = ((interaction.rgb, "RGB"), (interaction.thermal, "thermal"))
    return [bar_chart(exchange.weights, title, "channels") for exchange, title in sides]


def _earlier(folder: Path) -> set[Path]:
    """Return the pictures of an earlier explanation in the folder."""
    try:
        names = json.loads((folder / FIGURES_FILE).read_text(encoding="utf-8"))["pictures"]
        return {folder / name for name in names if re.fullmatch(r"[a-z0-9-]+\.(png|svg)", name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _clustering(explanation: Explanation, clustering: Clustering) -> dict[str, Any]:
    names = explanation.classes.names
    tokens = clustering.tokens_per_class(explanation.cell_classes, len(names))
    densities = explanation.token_densities(clustering)
    return {
        "tau": clustering.tau,
        "spatial_weight": round(clustering.spatial_weight, 6),
        "tokens_before": clustering.num_tokens,
        "tokens": clustering.num_clusters,
        "tokens_per_class": dict(zip(names, map(_rounded, tokens), strict=True)),
        "token_density": dict(zip(names, map(_rounded, densities), strict=True)),
        "importance": _summary(clustering.importance),
    }


def _exchange(exchange: Exchange) -> dict[str, Any]:
    return {
        "weights": [round(float(weight), 6) for weight in exchange.weights],
        "weight": _summary(exchange.weights),
        "contribution": _summary(exchange.contribution),
        "features": _summary(exchange.features),
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _summary(values: NDArray[np.float32]) -> dict[str, float]:
    """Return mean, standard deviation and range."""
    exact = values.astype(np.float64)
    measures = {"mean": exact.mean(), "std": exact.std(), "min": exact.min(), "max": exact.max()}
    return {name: round(float(value), 6) for name, value in measures.items()}
