"""Networks by name."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import warnings
from functools import cache
from typing import Any

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.models.base import SegmentationModel
from efnet.models.baselines import BASELINES
from efnet.models.config import BACKBONES, BaselineConfig, EdgeConfig, EFNetConfig, ModelConfig
from efnet.models.edge import EFNetEdge
from efnet.models.efnet import EFNet

_PRESETS: dict[str, tuple[type[SegmentationModel], ModelConfig]] = {
    **{f"efnet_{size}": (EFNet, EFNetConfig(backbone)) for size, backbone in BACKBONES.items()},
    "efnet_edge": (EFNetEdge, EdgeConfig("lite0")),
    "efnet_edge_m": (EFNetEdge, EdgeConfig("lite2")),
    **{name: (network, BaselineConfig()) for name, network in BASELINES.items()},
}

_NETWORKS: tuple[type[SegmentationModel], ...] = (EFNet, EFNetEdge, *BASELINES.values())

ARCHITECTURES = {network.architecture: network for network in _NETWORKS}
"""The class that reads a checkpoint, by the architecture that the checkpoint names."""


_OWN = frozenset(_PRESETS)


def add_network(name: str, network: type[SegmentationModel]) -> None:
    """Add a user's network; raises InputError for a name of the package's own."""
    if name in _OWN or (name in ARCHITECTURES and name not in _PRESETS):
        raise InputError(f"model {name!r} is a network of this package; choose another name")
    try:
        config = network.config_type()
    except TypeError as error:
        raise InputError(
            f"model {name!r}: its config_type cannot be made without arguments ({error}); give each a default"
        ) from error
    _PRESETS[name] = (network, config)
    ARCHITECTURES[name] = network


@cache
def load_plugins() -> None:
    """Import the modules that installed packages list under the entry point `efnet.models`, once."""
    for entry in importlib.metadata.entry_points(group="efnet.models"):
        try:
            entry.load()
        except Exception as error:  # a broken package must not stop networks that need none
            warnings.warn(f"entry point {entry.name} of efnet.models: {error!r}", stacklevel=2)


def find_network(architecture: object) -> type[SegmentationModel] | None:
    """Return the class of an architecture that a checkpoint names; None: it is not known."""
    if not isinstance(architecture, str):
        return None
    if architecture not in ARCHITECTURES:
        load_plugins()
    return ARCHITECTURES.get(architecture)


def list_models() -> list[str]:
    """The names that `create_model` knows: EFNet's presets, networks of other papers, those of users."""
    load_plugins()
    return list(_PRESETS)


def model_options(name: str) -> tuple[str, ...]:
    """The options of `create_model` for this name; raises ValueError if there is no such network."""
    if name not in _PRESETS:
        load_plugins()
    if name not in _PRESETS:
        raise ValueError(f"no model {name!r}; there are {', '.join(list_models())}")
    return _PRESETS[name][0].options


def create_model(
    name: str, num_classes: int | None = None, classes: ClassSet | None = None, **options: Any
) -> SegmentationModel:
    """Build a network with fresh weights.

    Args:
        name: one of `list_models()`.
        num_classes: K; by default as many as `classes`, else 9.
        classes: names and colours of the classes; numbered ones if None.
        **options: of an EFNet those of `NetworkOptions`, and `drop_path`; of an edge preset `fusion`,
            `decoder` and `modality`; of another network `modality`.

    Returns:
        the network, in training mode; an `EFNet` or `EFNetEdge` for its presets.

    Raises:
        ValueError: no such name or option, or a value out of its range.
        TypeError: `classes` is not a `ClassSet`.
    """
    if classes is not None and not isinstance(classes, ClassSet):
        raise TypeError(
            f"classes must be a ClassSet, got {type(classes).__name__}; num_classes takes their number alone"
        )
    if num_classes is None:
        num_classes = len(classes) if classes is not None else 9
    known = model_options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; there are {', '.join(known)}")
    network, config = _PRESETS[name]
    changes: dict[str, Any] = {"num_classes": num_classes}
    drop_path = options.pop("drop_path", None)
    if drop_path is not None and isinstance(config, EFNetConfig):
        changes["backbone"] = dataclasses.replace(config.backbone, drop_path=drop_path)
    return network(dataclasses.replace(config, **changes, **options), name, classes)
