"""Modules with weights: the TCFormer backbone, the parts of EFNet, and the networks made of them."""

from efnet.models.base import InputSpec, SegmentationModel
from efnet.models.config import BackboneConfig, EFNetConfig
from efnet.models.edge import EFNetEdge
from efnet.models.efnet import EFNet
from efnet.models.registry import create_model, list_models
from efnet.models.tcformer import TCFormer

__all__ = [
    "BackboneConfig",
    "EFNet",
    "EFNetConfig",
    "EFNetEdge",
    "InputSpec",
    "SegmentationModel",
    "TCFormer",
    "create_model",
    "list_models",
]
