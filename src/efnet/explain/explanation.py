"""What was seen inside a network, as typed arrays, and the figures that follow from them.

Shapes: h w the initial grid (a quarter of what the network sees), H W the image, C channels of stage 1,
K classes, N tokens before and M after a clustering.

The figures of an explanation as plain values, for `explain.json` and the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet import __version__
from efnet.core.classes import ClassSet
from efnet.inference.postprocess import Prediction
from efnet.models.config import EFNetConfig


@dataclass(frozen=True, eq=False)
class Clustering:
    """What one DBTC made of its tokens (section II-C).

    Attributes:
        clusters: int64 (h, w), the cluster of every cell, 0 to M - 1.
        centers: float32 (M, 2), row and column of every cluster's centre, in cells: the mean over the
            cells of the token that eq. 2 and 3 chose. That of a scattered token may lie outside of it.
        importance: float32 (h, w), p of the token that every cell belonged to before: it weights the
            merge as e^p (eq. 4) and is added to the attention logits (eq. 5).
        num_tokens: N.
        tau: balance of equation 1.
        spatial_weight: of the spatial distance, 1 - tau; 0 for a network without position.
    """

    clusters: NDArray[np.int64]
    centers: NDArray[np.float32]
    importance: NDArray[np.float32]
    num_tokens: int
    tau: float
    spatial_weight: float

    @property
    def num_clusters(self) -> int:
        """M."""
        return len(self.centers)

    def tokens_per_class(
        self, cell_classes: NDArray[np.integer[Any]], num_classes: int
    ) -> NDArray[np.float64]:
        """Where the M tokens are spent: (K,) tokens of every class, which sum to M.

        Args:
            cell_classes: (h, w) class of every cell. A token over several classes is shared out among
                them by its cells.
            num_classes: K.
        """
        owners = self.clusters.ravel()
        share = 1 / np.bincount(owners, minlength=self.num_clusters)[owners]
        tokens: NDArray[np.float64] = np.zeros(num_classes)
        np.add.at(tokens, cell_classes.ravel(), share)
        return tokens


@dataclass(frozen=True, eq=False)
class Exchange:
    """What MIF brings to one modality from the other (section II-B): F' = F + s * I.

    Attributes:
        weights: float32 (C,), the channel scores s, between 0 and 1.
        contribution: float32 (h, w), the norm of s * I over channels.
        features: float32 (h, w), the norm of F over channels: what it is added to.
    """

    weights: NDArray[np.float32]
    contribution: NDArray[np.float32]
    features: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Interaction:
    """Both directions of MIF.

    Attributes:
        rgb: what the colour features take from the thermal ones.
        thermal: what the thermal features take from the colour ones.
    """

    rgb: Exchange
    thermal: Exchange


@dataclass(frozen=True, eq=False)
class Explanation:
    """One pair, seen from inside the network.

    Attributes:
        model: name of the network.
        config: what it is made of.
        image: uint8 (H, W, 3), the image given (thermal as grey for a thermal-only network).
        thermal: float32, in [0, 1], at the size that the network saw; None for an RGB-only network.
        network_size: the size that the network saw.
        prediction: exactly what a `Predictor` gives for the pair.
        clusterings: of the three DBTCs.
        interaction: of MIF; None for other ways of fusion and for one modality.
        logits: float32 (K, h, w), before they are resized to the image.
    """

    model: str
    config: EFNetConfig
    image: NDArray[np.uint8]
    thermal: NDArray[np.float32] | None
    network_size: tuple[int, int]
    prediction: Prediction
    clusterings: tuple[Clustering, ...]
    interaction: Interaction | None
    logits: NDArray[np.float32]

    @property
    def classes(self) -> ClassSet:
        """Names and colours of the K classes."""
        return self.prediction.classes

    @property
    def distances(self) -> NDArray[np.float32] | None:
        """float32 (K, h, w), MFAD's distance of every cell to every class (eq. 7); None of other decoders."""
        return -self.logits if self.config.decoder == "mfad" else None

    @property
    def cell_classes(self) -> NDArray[np.int64]:
        """(h, w) the class of every cell."""
        classes: NDArray[np.int64] = self.logits.argmax(axis=0)
        return classes

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """float32 (K, h, w), the softmax of the logits (eq. 8)."""
        powers = np.exp(self.logits - self.logits.max(axis=0))
        shares: NDArray[np.float32] = powers / powers.sum(axis=0)
        return shares

    @property
    def confidence(self) -> NDArray[np.float32]:
        """float32 (h, w), the probability of every cell's class."""
        highest: NDArray[np.float32] = self.probabilities.max(axis=0)
        return highest

    @property
    def margin(self) -> NDArray[np.float32]:
        """float32 (h, w), that probability minus the next class's."""
        ordered = np.sort(self.probabilities, axis=0)
        lead: NDArray[np.float32] = ordered[-1] - ordered[-2]
        return lead

    def absent(self) -> list[str]:
        """A sentence for everything that this network has no part for."""
        config, sentences = self.config, []
        if config.modality != "rgbt":
            sentences.append(f"The network looks at {config.modality} alone: there is nothing to fuse.")
        elif self.interaction is None:
            sentences.append(
                f"The network fuses by `{config.fusion}`: there is no MIF, so no channel weights and no "
                "contribution of each modality."
            )
        if self.distances is None:
            sentences.append(
                f"The network decodes by `{config.decoder}`: there is no MFAD, so no distances to classes."
            )
        if config.position == "none":
            sentences.append("The network has no position: clusters follow features alone, whatever tau is.")
        return sentences


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
