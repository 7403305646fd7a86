"""Networks by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from efnet.core.classes import ClassSet
from efnet.models.base import SegmentationModel
from efnet.models.baselines import RIVALS, RivalConfig
from efnet.models.config import BACKBONES, EFNetConfig
from efnet.models.efnet import EFNet

_PRESETS = {f"efnet_{size}": EFNetConfig(backbone) for size, backbone in BACKBONES.items()}
_OPTIONS = tuple(
    field.name for field in dataclasses.fields(EFNetConfig) if field.name not in ("backbone", "num_classes")
)

_NETWORKS: tuple[type[SegmentationModel], ...] = (EFNet, *RIVALS.values())

ARCHITECTURES = {network.architecture: network for network in _NETWORKS}
"""What a checkpoint says it is, and what can read it."""


def list_models() -> list[str]:
    """The names that `create_model` knows: EFNet's presets, then networks of other papers."""
    return [*_PRESETS, *RIVALS]


def create_model(
    name: str, num_classes: int | None = None, classes: ClassSet | None = None, **options: Any
) -> SegmentationModel:
    """Build a network with fresh weights.

    Args:
        name: one of `list_models()`.
        num_classes: K; by default as many as `classes`, else 9.
        classes: names and colours of the classes; numbered ones if None.
        **options: of an EFNet any of `fusion`, `position`, `tau`, `decoder`, `modality`, `merging` and
            `drop_path`; of another network `modality`.

    Returns:
        the network, in training mode; an `EFNet` for its presets.

    Raises:
        ValueError: no such name or option, or a value out of its range.
        TypeError: `classes` is no `ClassSet`.
    """
    if classes is not None and not isinstance(classes, ClassSet):
        raise TypeError(
            f"classes must be a ClassSet, got {type(classes).__name__}; num_classes takes their number alone"
        )
    if num_classes is None:
        num_classes = len(classes) if classes is not None else 9
    if name in RIVALS:
        _refuse_unknown(name, options, ("modality",))
        return RIVALS[name](RivalConfig(num_classes, **options), name, classes)
    if name not in _PRESETS:
        raise ValueError(f"no model {name!r}; there are {', '.join(list_models())}")
    _refuse_unknown(name, options, (*_OPTIONS, "drop_path"))
    config = _PRESETS[name]
    drop_path = options.pop("drop_path", None)
    if "tau" in options:
        tau = options["tau"]
        options["tau"] = tuple(tau) if isinstance(tau, Iterable) else (tau,)
    if drop_path is not None:
        if not isinstance(drop_path, int | float) or not 0 <= drop_path < 1:
            raise ValueError(f"drop_path must be at least 0 and below 1, got {drop_path!r}")
        options["backbone"] = dataclasses.replace(config.backbone, drop_path=drop_path)
    return EFNet(dataclasses.replace(config, num_classes=num_classes, **options), name, classes)


def _refuse_unknown(name: str, options: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; there are {', '.join(known)}")
