"""Lightning Fabric on the configured device."""

from __future__ import annotations

from typing import Any

from lightning_fabric import Fabric

from efnet.devices import Precision, pick_device

_PRECISIONS: dict[Precision, Any] = {"32": "32-true", "bf16": "bf16-mixed"}


def make_fabric(device: str, precision: Precision) -> Fabric:
    """Fabric for one device.

    Raises:
        InputError: the device is unknown or not there.
    """
    chosen = pick_device(device)
    devices: Any = 1 if chosen.index is None else [chosen.index]
    return Fabric(accelerator=chosen.type, devices=devices, precision=_PRECISIONS[precision])
