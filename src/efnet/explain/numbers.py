"""The figures of an explanation as plain values, for `explain.json` and the page."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet import __version__
from efnet.explain.result import Clustering, Exchange, Explanation


def figures(explanation: Explanation) -> dict[str, Any]:
    """What `explain.json` holds: no maps, but what one would measure on them."""
    names = explanation.classes.names
    rows, columns = explanation.clusterings[0].clusters.shape
    interaction, distances = explanation.interaction, explanation.distances
    return {
        "efnet": __version__,
        "model": explanation.model,
        "config": explanation.config.to_dict(),
        "image_size": list(explanation.prediction.index.shape),
        "network_size": list(explanation.network_size),
        "grid_size": [rows, columns],
        "shares": explanation.prediction.shares(),
        "clusterings": [_clustering(explanation, clustering) for clustering in explanation.clusterings],
        "mif": None
        if interaction is None
        else {"rgb": _exchange(interaction.rgb), "thermal": _exchange(interaction.thermal)},
        "distances": None
        if distances is None
        else {name: _summary(values) for name, values in zip(names, distances, strict=True)},
        "confidence": _summary(explanation.confidence),
        "margin": _summary(explanation.margin),
        "absent": explanation.absent(),
    }


def token_densities(explanation: Explanation, clustering: Clustering) -> NDArray[np.float64]:
    """(K,) tokens per cell of each class, where 1 is an even spread; NaN for a class without cells."""
    num_classes = len(explanation.classes)
    classes = explanation.cell_classes
    tokens = clustering.tokens_per_class(classes, num_classes) / clustering.num_clusters
    cells = np.bincount(classes.ravel(), minlength=num_classes) / classes.size
    densities: NDArray[np.float64] = np.full(num_classes, np.nan)
    np.divide(tokens, cells, out=densities, where=cells > 0)
    return densities


def _clustering(explanation: Explanation, clustering: Clustering) -> dict[str, Any]:
    names = explanation.classes.names
    tokens = clustering.tokens_per_class(explanation.cell_classes, len(names))
    densities = token_densities(explanation, clustering)
    return {
        "tau": clustering.tau,
        "spatial_weight": round(clustering.spatial_weight, 6),
        "tokens_before": clustering.num_tokens,
        "tokens": clustering.num_clusters,
        "tokens_per_class": {name: round(float(count), 4) for name, count in zip(names, tokens, strict=True)},
        "token_density": {
            name: None if np.isnan(value) else round(float(value), 4)
            for name, value in zip(names, densities, strict=True)
        },
        "importance": _summary(clustering.importance),
    }


def _exchange(exchange: Exchange) -> dict[str, Any]:
    return {
        "weights": [round(float(weight), 6) for weight in exchange.weights],
        "weight": _summary(exchange.weights),
        "contribution": _summary(exchange.contribution),
        "features": _summary(exchange.features),
    }


def _summary(values: NDArray[np.float32]) -> dict[str, float]:
    """Mean, spread and range."""
    exact = values.astype(np.float64)
    measures = {"mean": exact.mean(), "std": exact.std(), "min": exact.min(), "max": exact.max()}
    return {name: round(float(value), 6) for name, value in measures.items()}
