"""EFNet: RGB-thermal semantic segmentation (arXiv 2501.10958).

The public names load on first use: a command that needs no network does not wait for PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efnet import ops
    from efnet.core.classes import ClassSet
    from efnet.core.cpu_tuning import ProcessSettings, process_settings, tune_process
    from efnet.core.errors import InputError
    from efnet.inference.predictor import Predictor
    from efnet.models import EFNet, EFNetEdge, TCFormer, create_model, list_models

__version__ = "0.1.0"

__all__ = [
    "ClassSet",
    "EFNet",
    "EFNetEdge",
    "InputError",
    "Predictor",
    "ProcessSettings",
    "TCFormer",
    "__version__",
    "create_model",
    "list_models",
    "ops",
    "process_settings",
    "tune_process",
]

_HOMES = {
    "ClassSet": "efnet.core.classes",
    "EFNet": "efnet.models",
    "EFNetEdge": "efnet.models",
    "InputError": "efnet.core.errors",
    "Predictor": "efnet.inference.predictor",
    "ProcessSettings": "efnet.core.cpu_tuning",
    "TCFormer": "efnet.models",
    "create_model": "efnet.models",
    "list_models": "efnet.models",
    "process_settings": "efnet.core.cpu_tuning",
    "tune_process": "efnet.core.cpu_tuning",
}


def __getattr__(name: str) -> Any:
    if name == "ops":
        return importlib.import_module("efnet.ops")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'efnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
