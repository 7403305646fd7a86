"""The traced program of EFNet, as all formats are made from it, at sizes and batches that were not traced."""

from __future__ import annotations

import pytest
import torch

from efnet.export.formats import Deployed, trace
from efnet.models.base import SegmentationModel
from efnet.models.config import BackboneConfig, EFNetConfig
from efnet.models.efnet import EFNet
from efnet.models.registry import create_model


@pytest.mark.slow
def test_program_for_any_size() -> None:
    """Of every part of the network, with one block a stage: tracing takes time per block."""
    backbone = BackboneConfig((1, 1, 1, 1), (16, 32, 48, 64), (1, 2, 3, 4), (2, 2, 2, 2))
    check_any_size(EFNet(EFNetConfig(backbone, num_classes=4)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efnet_tiny", "efnet_light"])
def test_program_of_presets_for_any_size(name: str) -> None:
    check_any_size(create_model(name, num_classes=4))


def check_any_size(model: SegmentationModel) -> None:
    deployed = Deployed(model.eval(), "float", "logits").eval()
    program = trace(deployed).module()
    for size in ((1, 96, 128), (3, 70, 33)):
        images = deployed.example(size)
        with torch.no_grad():
            torch.testing.assert_close(program(*images), deployed(*images), rtol=1e-3, atol=1e-4)
