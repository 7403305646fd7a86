"""EFNet: RGB-thermal semantic segmentation (arXiv 2501.10958)."""

__version__ = "0.1.0"

from efnet import ops
from efnet.classes import ClassSet
from efnet.errors import InputError
from efnet.models import EFNet, TCFormer, create_model, list_models

__all__ = [
    "ClassSet",
    "EFNet",
    "InputError",
    "TCFormer",
    "__version__",
    "create_model",
    "list_models",
    "ops",
]
