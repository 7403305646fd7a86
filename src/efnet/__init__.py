"""EFNet: RGB-thermal semantic segmentation (arXiv 2501.10958).

The public names load on first use: a command that needs no network does not wait for PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efnet import export, ops
    from efnet.core.classes import ClassSet
    from efnet.core.cpu_tuning import ProcessSettings, process_settings, tune_process
    from efnet.core.errors import InputError
    from efnet.evaluation.scoring import evaluate
    from efnet.inference.predictor import Predictor
    from efnet.models import EFNet, EFNetEdge, TCFormer, create_model, list_models
    from efnet.models.custom import register_model
    from efnet.training.from_python import train

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
    "evaluate",
    "export",
    "list_models",
    "ops",
    "process_settings",
    "register_model",
    "train",
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
    "evaluate": "efnet.evaluation.scoring",
    "list_models": "efnet.models",
    "process_settings": "efnet.core.cpu_tuning",
    "register_model": "efnet.models.custom",
    "train": "efnet.training.from_python",
    "tune_process": "efnet.core.cpu_tuning",
}


def __getattr__(name: str) -> Any:
    if name in ("export", "ops"):  # packages; that of `export` can be called
        return importlib.import_module(f"efnet.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'efnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
