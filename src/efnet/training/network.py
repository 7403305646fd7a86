"""The network of a recipe, and the weights that it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.models.base import SegmentationModel
from efnet.models.baselines import RIVALS, Rival
from efnet.models.checkpoint import load_checkpoint
from efnet.models.efnet import EFNet
from efnet.models.registry import create_model
from efnet.models.tcformer_weights import LoadReport
from efnet.training.config import NetworkConfig

_EFNET_OPTIONS = ("fusion", "position", "tau", "decoder", "merging", "drop_path")

_PER_CLASS = (
    *("decoder.class_tokens", "decoder.classify."),
    *("rgb.decoder.classify.", "fusion.encoder.0.", "fusion.classify."),  # PSTNet's two streams
)
"""Where networks keep a row or a column per class."""


def build_network(config: NetworkConfig, classes: ClassSet) -> tuple[SegmentationModel, LoadReport | None]:
    """Build the network for a class set and fill it from `config.init`, if there is one.

    Returns:
        the network, and what was loaded into it (None: nothing).

    Raises:
        InputError: an unknown name or option, or weights that do not fit.
    """
    try:
        network = create_model(config.name, classes=classes, **_options(config))
    except ValueError as error:
        raise InputError(str(error)) from error
    if isinstance(network, EFNet):
        network.checkpoint_activations = config.checkpoint_activations
    if config.init is None:
        return network, None
    return network, _initialize(network, config.init)


def _options(config: NetworkConfig) -> dict[str, Any]:
    """What `create_model` is told: of a network that is no EFNet, which images it looks at.

    Raises:
        InputError: an option of EFNet is set for another network.
    """
    options = {name: getattr(config, name) for name in _EFNET_OPTIONS}
    if config.name not in RIVALS:
        return {"modality": config.modality, **options}
    default = NetworkConfig()
    names = (*_EFNET_OPTIONS, "checkpoint_activations")
    set_ = [f"network.{name}" for name in names if getattr(config, name) != getattr(default, name)]
    if set_:
        raise InputError(f"{config.name} has no {', '.join(set_)}; leave it out")
    return {"modality": config.modality}


def _initialize(network: SegmentationModel, source: str) -> LoadReport:
    """From a file of published weights, or from a checkpoint of ours, perhaps with other classes."""
    if Path(source).is_file() and isinstance(network, EFNet):
        return network.load_tcformer(source)
    if Path(source).is_file() and isinstance(network, Rival):
        return network.load_encoder(source)
    given = load_checkpoint(source)
    if given.architecture != network.architecture:
        raise InputError(f"{source}: a checkpoint of {given.name}, which cannot start {network.name}")
    return copy_weights(network, given, source)


def copy_weights(network: SegmentationModel, given: SegmentationModel, source: str) -> LoadReport:
    """Copy every tensor that both networks have in the same shape; class tokens of other classes stay fresh.

    Raises:
        InputError: the networks differ in more than their classes.
    """
    own, theirs = network.state_dict(), given.state_dict()
    # As many classes may be other classes.
    left = () if network.classes.names == given.classes.names else _PER_CLASS
    loaded = {
        name: value
        for name, value in theirs.items()
        if name in own and own[name].shape == value.shape and not name.startswith(left)
    }
    blocks = [name for name in own if ".blocks." in name]
    missing = [name for name in blocks if name not in loaded]
    if missing:
        raise InputError(
            f"{source}: weights of another network size ({missing[0]} does not fit); "
            "choose the preset that fits"
        )
    network.load_state_dict(loaded, strict=False)
    return LoadReport(
        source,
        tuple(loaded),
        tuple(name for name in own if name not in loaded),
        tuple(name for name in theirs if name not in loaded),
    )
