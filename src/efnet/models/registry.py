"""Networks by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from efnet.classes import ClassSet
from efnet.models.config import BACKBONES, EFNetConfig
from efnet.models.efnet import EFNet

_PRESETS = {f"efnet_{size}": EFNetConfig(backbone) for size, backbone in BACKBONES.items()}
_OPTIONS = tuple(
    field.name for field in dataclasses.fields(EFNetConfig) if field.name not in ("backbone", "num_classes")
)


def list_models() -> list[str]:
    """The names that `create_model` knows."""
    return list(_PRESETS)


def create_model(
    name: str, num_classes: int | None = None, classes: ClassSet | None = None, **options: Any
) -> EFNet:
    """Build a network with fresh weights.

    Args:
        name: one of `list_models()`.
        num_classes: K; by default as many as `classes`, else 9.
        classes: names and colours of the classes; numbered ones if None.
        **options: any of `fusion`, `position`, `tau`, `decoder`, `modality`, `merging` and `drop_path`.

    Returns:
        the network, in training mode.

    Raises:
        ValueError: no such name or option, or a value out of its range.
    """
    if name not in _PRESETS:
        raise ValueError(f"no model {name!r}; there are {', '.join(_PRESETS)}")
    config = _PRESETS[name]
    drop_path = options.pop("drop_path", None)
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ValueError(
            f"{name} has no option {', '.join(unknown)}; there are {', '.join((*_OPTIONS, 'drop_path'))}"
        )
    if num_classes is None:
        num_classes = len(classes) if classes is not None else config.num_classes
    if "tau" in options:
        options["tau"] = tuple(options["tau"])
    if drop_path is not None:
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path must be at least 0 and below 1, got {drop_path}")
        options["backbone"] = dataclasses.replace(config.backbone, drop_path=drop_path)
    config = dataclasses.replace(config, num_classes=num_classes, **options)
    return EFNet(config, name, classes)
