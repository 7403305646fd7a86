"""Watch a network while it predicts: what passes between its modules is noted, and nothing is changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from efnet.core.errors import InputError
from efnet.explain.explanation import Clustering, Exchange, Explanation, Interaction
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import ImageLike, Prepared
from efnet.models.base import SegmentationModel
from efnet.models.dbtc import DBTC
from efnet.models.efnet import EFNet
from efnet.models.fusion import MIF
from efnet.models.layers import Tokens
from efnet.models.position import grid_coordinates


@dataclass(frozen=True)
class Call:
    """What a module was given in its last call, and what it returned."""

    inputs: tuple[Any, ...]
    output: Any


def explain(
    network: Predictor | SegmentationModel, rgb: ImageLike | None, thermal: ImageLike | None = None
) -> Explanation:
    """Predict one pair and note what the network did with it.

    Args:
        network: a predictor, or a network (then a `Predictor` is made of it, where it is now).
        rgb: as `Predictor` takes it.
        thermal: likewise.

    Returns:
        the prediction of `Predictor`, bit for bit, with what led to it.

    Raises:
        InputError: the network is not an EFNet, or what a `Predictor` refuses.
        TypeError: no network at all.
    """
    if not isinstance(network, Predictor):
        if not isinstance(network, SegmentationModel):
            raise TypeError(f"the network is a {type(network).__name__}; see Predictor.from_pretrained")
        network = Predictor(network, device=str(next(network.parameters()).device))
    return explain_prepared(network, network.prepare(rgb, thermal))


def explain_prepared(predictor: Predictor, prepared: Prepared) -> Explanation:
    """As `explain`, of a pair that `Predictor.prepare` returned. Not for several threads at once.

    Raises:
        InputError: the network is not an EFNet, or one without clusterings.
    """
    model = predictor.model
    if not isinstance(model, EFNet):
        raise InputError(f"{type(model).__name__}: not an EFNet; only an EFNet can be looked into")
    if model.config.merging != "dbtc":
        raise InputError(
            f"{model.name} merges tokens by `{model.config.merging}`: it has no clusters to draw; explain a "
            "network with merging `dbtc`"
        )
    dbtcs = [cast(DBTC, stage.dbtc) for stage in model.token_stages]
    watched: dict[str, nn.Module] = {f"dbtc{place}": dbtc for place, dbtc in enumerate(dbtcs)}
    watched["decoder"] = model.decoder
    if isinstance(model.fusion, MIF):
        watched["fusion"] = model.fusion
        watched["rgb"], watched["thermal"] = model.fusion.rgb_channels, model.fusion.thermal_channels
    with noted_calls(watched) as calls:
        (prediction,) = predictor.run([prepared])
    return Explanation(
        model=model.name,
        config=model.config,
        image=prepared.original,
        thermal=prepared.thermal,
        network_size=prepared.network_size,
        prediction=prediction,
        clusterings=tuple(_clustering(dbtc, calls[f"dbtc{place}"]) for place, dbtc in enumerate(dbtcs)),
        interaction=_interaction(calls) if "fusion" in calls else None,
        logits=_array(calls["decoder"].output[0]),
    )


@contextlib.contextmanager
def noted_calls(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Call]]:
    """Note the last call of each module by its key, as long as the context lasts."""
    calls: dict[str, Call] = {}
    handles: list[RemovableHandle] = []

    def note(name: str, module: nn.Module) -> RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] = Call(inputs, output)

        return module.register_forward_hook(hook)

    try:
        for name, module in modules.items():
            handles.append(note(name, module))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def _clustering(dbtc: DBTC, call: Call) -> Clustering:
    before: Tokens = call.inputs[0]
    merged: Tokens
    source: Tokens
    merged, source, importance = call.output
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
    """(M, 2) row and column of the clusters' centres.

    A DBTC keeps its assignment only. Clustering gives the same for the same tokens, so it is asked again.

    Args:
        dbtc: the module.
        tokens: what it clusters, already normalised.
    """
    centers = dbtc.clusters(tokens).centers
    size = tokens.grid.size
    middle = torch.tensor([(cells - 1) / 2 for cells in size], device=centers.device)
    coordinates = tokens.from_map(grid_coordinates(size, centers.device)) + middle
    return coordinates[0, centers[0]]


def _interaction(calls: Mapping[str, Call]) -> Interaction:
    return Interaction(*(_exchange(calls, place, name) for place, name in enumerate(("rgb", "thermal"))))


def _exchange(calls: Mapping[str, Call], place: int, name: str) -> Exchange:
    """Of the modality that enters the fusion at `place`."""
    features: Tensor = calls["fusion"].inputs[place][0]
    brought: Tensor = calls[name].inputs[0][0]
    scores: Tensor = calls[name].output[0]
    return Exchange(
        weights=_array(scores.flatten()),
        contribution=_array((scores * brought).float().norm(dim=-1)),
        features=_array(features.float().norm(dim=-1)),
    )


def _array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.float().cpu().numpy()
    return array
