"""The traced program of EFNet, as all formats are made from it, at sizes and batches that were not traced."""

from __future__ import annotations

import pytest
import torch

from efnet.export.formats import Deployed, trace
from efnet.models.registry import create_model


@pytest.mark.parametrize("name", ["efnet_tiny", pytest.param("efnet_light", marks=pytest.mark.slow)])
def test_program_for_any_size(name: str) -> None:
    torch.manual_seed(0)
    deployed = Deployed(create_model(name, num_classes=4).eval(), "float", "logits").eval()
    program = trace(deployed).module()
    for size in ((1, 96, 128), (3, 70, 33)):
        images = deployed.example(size)
        with torch.no_grad():
            torch.testing.assert_close(program(*images), deployed(*images), rtol=1e-3, atol=1e-4)
