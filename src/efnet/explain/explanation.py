"""Explanation of one pair: typed arrays, recorded by hooks while the network predicts.

Shapes: h w the initial grid (a quarter of the network's input), H W the image, C channels of stage 1,
K classes, N tokens before and M after a clustering.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.inference.postprocess import Prediction
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import ImageLike, Prepared
from efnet.models.base import SegmentationModel
from efnet.models.config import EFNetConfig
from efnet.models.dbtc import DBTC
from efnet.models.efnet import EFNet
from efnet.models.fusion import MIF
from efnet.models.layers import Tokens
from efnet.models.position import grid_coordinates


@dataclass(frozen=True, eq=False)
class Clustering:
    """The result of one DBTC (section II-C).

    `centers` are (M, 2) rows and columns in cells: the mean over the cells of the token that eq. 2 and 3
    chose. The centre of a scattered token may lie outside it. `importance` is p of the token that every cell
    belonged to before: it weights the merge as e^p (eq. 4) and is added to the attention logits (eq. 5).
    """

    clusters: NDArray[np.int64]  # (h, w), the cluster of every cell, 0 to M - 1
    centers: NDArray[np.float32]  # (M, 2)
    importance: NDArray[np.float32]  # (h, w)
    num_tokens: int  # N
    tau: float  # balance of equation 1
    spatial_weight: float  # of the spatial distance, 1 - tau; 0 for a network without position

    @property
    def num_clusters(self) -> int:
        """The number M."""
        return len(self.centers)

    def tokens_per_class(
        self, cell_classes: NDArray[np.integer[Any]], num_classes: int
    ) -> NDArray[np.float64]:
        """Return (K,) the tokens of every class, which sum to M, for the classes (h, w) of the cells.

        A token over several classes is divided among them by its cells.
        """
        owners = self.clusters.ravel()
        share = 1 / np.bincount(owners, minlength=self.num_clusters)[owners]
        tokens: NDArray[np.float64] = np.zeros(num_classes)
        np.add.at(tokens, cell_classes.ravel(), share)
        return tokens


@dataclass(frozen=True, eq=False)
class Exchange:
    """The addition of MIF to one modality from the other (section II-B): F' = F + s * I."""

    weights: NDArray[np.float32]  # (C,), the channel scores s, between 0 and 1
    contribution: NDArray[np.float32]  # (h, w), the norm of s * I over channels
    features: NDArray[np.float32]  # (h, w), the norm of F over channels


@dataclass(frozen=True, eq=False)
class Interaction:
    """Both directions of MIF."""

    rgb: Exchange  # from thermal to colour features
    thermal: Exchange  # from colour to thermal features


@dataclass(frozen=True, eq=False)
class Explanation:
    """One pair, seen from inside the network."""

    model: str  # name of the network
    config: EFNetConfig
    image: NDArray[np.uint8]  # (H, W, 3), the image given (thermal as grey for a thermal-only network)
    thermal: NDArray[np.float32] | None  # in [0, 1], at `network_size`; None for an RGB-only network
    network_size: tuple[int, int]  # height and width of the network's input
    prediction: Prediction  # exactly that of a `Predictor` for the pair
    clusterings: tuple[Clustering, ...]  # of the three DBTCs
    interaction: Interaction | None  # of MIF; None for other ways of fusion and for one modality
    logits: NDArray[np.float32]  # (K, h, w), before they are resized to the image
    temperature: float = 1.0  # of the checkpoint: divides logits before they become probabilities

    @property
    def classes(self) -> ClassSet:
        """Names and colours of the K classes."""
        return self.prediction.classes

    @property
    def distances(self) -> NDArray[np.float32] | None:
        """float32 (K, h, w), MFAD's distance of every cell to every class (eq. 7); other decoders: None."""
        return -self.logits if self.config.decoder == "mfad" else None

    @property
    def cell_classes(self) -> NDArray[np.int64]:
        """(h, w) the class of every cell."""
        return np.asarray(self.logits.argmax(axis=0), dtype=np.int64)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """float32 (K, h, w), the softmax of the logits (eq. 8), at the checkpoint's temperature."""
        powers = np.exp((self.logits - self.logits.max(axis=0)) / self.temperature)
        return np.asarray(powers / powers.sum(axis=0), dtype=np.float32)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """float32 (h, w), the probability of every cell's class."""
        return np.asarray(self.probabilities.max(axis=0), dtype=np.float32)

    @property
    def margin(self) -> NDArray[np.float32]:
        """float32 (h, w), that probability minus the next class's."""
        ordered = np.sort(self.probabilities, axis=0)
        return np.asarray(ordered[-1] - ordered[-2], dtype=np.float32)

    def token_densities(self, clustering: Clustering) -> NDArray[np.float64]:
        """Return (K,) tokens per cell of each class: 1 is an even spread, NaN a class without cells."""
        num_classes, classes = len(self.classes), self.cell_classes
        tokens = clustering.tokens_per_class(classes, num_classes) / clustering.num_clusters
        cells = np.bincount(classes.ravel(), minlength=num_classes) / classes.size
        densities: NDArray[np.float64] = np.full(num_classes, np.nan)
        np.divide(tokens, cells, out=densities, where=cells > 0)
        return densities

    def absent(self) -> list[str]:
        """Return a sentence for each part of an explanation that this network lacks."""
        config, sentences = self.config, []
        if config.modality != "rgbt":
            sentences.append(f"The network looks at {config.modality} alone: there is nothing to fuse.")
        elif self.interaction is None:
            sentences.append(
                f"The network fuses by {config.fusion}: there is no MIF, so no channel weights and no "
                "contribution of each modality."
            )
        if self.distances is None:
            sentences.append(
                f"The network decodes by {config.decoder}: there is no MFAD, so no distances to classes."
            )
        if config.position == "none":
            sentences.append("The network has no position: clusters follow features alone, whatever tau is.")
        return sentences


@dataclass(frozen=True)
class Call:
    """Arguments and result of the last call of a module."""

    inputs: tuple[Any, ...]
    output: Any


def explain(
    network: Predictor | SegmentationModel, rgb: ImageLike | None, thermal: ImageLike | None = None
) -> Explanation:
    """Predict one pair, given as for a `Predictor`, and record what the network did with it.

    A network is wrapped in a `Predictor` on its own device. The prediction is exactly that of `Predictor`.

    Raises:
        InputError: the network is not an EFNet, or a `Predictor` would refuse the pair.
        TypeError: `network` is neither.
    """
    if not isinstance(network, Predictor):
        if not isinstance(network, SegmentationModel):
            raise TypeError(f"the network is a {type(network).__name__}; see Predictor.from_pretrained")
        network = Predictor(network, device=str(next(network.parameters()).device))
    return explain_prepared(network, network.prepare(rgb, thermal))


def explain_prepared(predictor: Predictor, prepared: Prepared) -> Explanation:
    """Explain a pair that `Predictor.prepare` returned. Not for several threads at once.

    Raises:
        InputError: the network is not an EFNet, or it has no clusterings.
    """
    model = predictor.model
    if not isinstance(model, EFNet):
        raise InputError(f"{type(model).__name__}: not an EFNet; only an EFNet can be looked into")
    if model.config.merging != "dbtc":
        raise InputError(
            f"{model.name} merges tokens by {model.config.merging}: it has no clusters to draw; explain a "
            "network that merges them by dbtc"
        )
    dbtcs = [cast(DBTC, stage.dbtc) for stage in model.token_stages]
    watched: dict[str, nn.Module] = {f"dbtc{place}": dbtc for place, dbtc in enumerate(dbtcs)}
    watched["decoder"] = model.decoder
    if isinstance(model.fusion, MIF):
        watched["fusion"] = model.fusion
        watched["rgb"], watched["thermal"] = model.fusion.rgb_channels, model.fusion.thermal_channels
    with recorded_calls(watched) as calls:
        (prediction,) = predictor.run([prepared])
    interaction = None
    if "fusion" in calls:
        interaction = Interaction(_exchange(calls, 0, "rgb"), _exchange(calls, 1, "thermal"))
    return Explanation(
        model=model.name,
        config=model.config,
        image=prepared.original,
        thermal=prepared.thermal,
        network_size=prepared.network_size,
        prediction=prediction,
        clusterings=tuple(_clustering(dbtc, calls[f"dbtc{place}"]) for place, dbtc in enumerate(dbtcs)),
        interaction=interaction,
        logits=_array(calls["decoder"].output[0]),
        temperature=predictor.temperature,
    )


@contextlib.contextmanager
def recorded_calls(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Call]]:
    """Record the last call of each module under its key, as long as the context lasts."""
    calls: dict[str, Call] = {}

    def record(name: str, _: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[name] = Call(inputs, output)

    with contextlib.ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_hook(partial(record, name)))
        yield calls


@torch.inference_mode()
def _clustering(dbtc: DBTC, call: Call) -> Clustering:
    before: Tokens = call.inputs[0]
    merged, source, importance = cast(tuple[Tokens, Tokens, Tensor], call.output)
    size, assignment = before.grid.size, before.assignment[0]
    return Clustering(
        clusters=merged.assignment[0].view(size).cpu().numpy(),
        centers=_array(_centers(dbtc, source)),
        importance=_array(importance[0, :, 0][assignment].view(size)),
        num_tokens=before.grid.num_tokens,
        tau=dbtc.tau,
        spatial_weight=0.0 if dbtc.position is None else 1 - dbtc.tau,
    )


def _centers(dbtc: DBTC, tokens: Tokens) -> Tensor:
    """Return (M, 2) rows and columns of the centres of the clusters of a DBTC's normalised tokens."""
    # A DBTC keeps its assignment only; clustering the same tokens again gives the same centres.
    centers = dbtc.clusters(tokens).centers
    size = tokens.grid.size
    middle = torch.tensor([(cells - 1) / 2 for cells in size], device=centers.device)
    coordinates = tokens.from_map(grid_coordinates(size, centers.device)) + middle
    return coordinates[0, centers[0]]


def _exchange(calls: Mapping[str, Call], place: int, name: str) -> Exchange:
    """Return the exchange of the modality that is the fusion's argument number `place`."""
    features, brought = calls["fusion"].inputs[place][0], calls[name].inputs[0][0]
    scores = calls[name].output[0]
    return Exchange(
        weights=_array(scores.flatten()),
        contribution=_array((scores * brought).float().norm(dim=-1)),
        features=_array(features.float().norm(dim=-1)),
    )


def _array(values: Tensor) -> NDArray[np.float32]:
    return np.asarray(values.float().cpu().numpy(), dtype=np.float32)
