"""Networks by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from efnet.core.classes import ClassSet
from efnet.models.base import SegmentationModel
from efnet.models.baselines import BASELINES
from efnet.models.config import BACKBONES, BaselineConfig, EFNetConfig, NetworkOptions
from efnet.models.efnet import EFNet

_PRESETS = {f"efnet_{size}": EFNetConfig(backbone) for size, backbone in BACKBONES.items()}

_NETWORKS: tuple[type[SegmentationModel], ...] = (EFNet, *BASELINES.values())

ARCHITECTURES = {network.architecture: network for network in _NETWORKS}
"""The class that reads a checkpoint, by the architecture that the checkpoint names."""


def list_models() -> list[str]:
    """The names that `create_model` knows: EFNet's presets, then networks of other papers."""
    return [*_PRESETS, *BASELINES]


def create_model(
    name: str, num_classes: int | None = None, classes: ClassSet | None = None, **options: Any
) -> SegmentationModel:
    """Build a network with fresh weights.

    Args:
        name: one of `list_models()`.
        num_classes: K; by default as many as `classes`, else 9.
        classes: names and colours of the classes; numbered ones if None.
        **options: of an EFNet those of `NetworkOptions`, and `drop_path`; of another network `modality`.

    Returns:
        the network, in training mode; an `EFNet` for its presets.

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
    if name in BASELINES:
        _refuse_unknown(name, options, ("modality",))
        return BASELINES[name](BaselineConfig(num_classes, **options), name, classes)
    if name not in _PRESETS:
        raise ValueError(f"no model {name!r}; there are {', '.join(list_models())}")
    _refuse_unknown(name, options, (*NetworkOptions.names(), "drop_path"))
    config = _PRESETS[name]
    drop_path = options.pop("drop_path", None)
    if drop_path is not None:
        options["backbone"] = dataclasses.replace(config.backbone, drop_path=drop_path)
    return EFNet(dataclasses.replace(config, num_classes=num_classes, **options), name, classes)


def _refuse_unknown(name: str, options: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; there are {', '.join(known)}")
