"""Counted multiply-adds against a count by hand."""

from __future__ import annotations

import pytest
import torch

import efnet
from efnet.models.complexity import count, measure


def test_light_at_full_size() -> None:
    light = measure("efnet_light", 9, (480, 640))
    assert light.parameters == sum(p.numel() for p in efnet.create_model("efnet_light", 9).parameters())
    assert light.layers / 1e9 == pytest.approx(18.3, abs=0.1)
    # All distances of three clusterings: N^2 C of 19,200, 4,800 and 1,200 tokens.
    assert light.clustering == 19_200**2 * 128 + 4_800**2 * 320 + 1_200**2 * 512
    assert light.attention > 0


def test_of_a_network_that_is_no_preset() -> None:
    with torch.device("meta"):
        model = efnet.create_model("efnet_tiny", 5, fusion="add", drop_path=0.1)
    assert count(model, (64, 96)) == measure("efnet_tiny", 5, (64, 96), fusion="add")


def test_parts_add_up() -> None:
    """Leaving a modality out saves one stem, one stage 1 and the fusion, and nothing else."""
    both, rgb = (measure("efnet_tiny", 9, (64, 96), modality=modality) for modality in ("rgbt", "rgb"))
    cells, width = 16 * 24, 32
    stem = cells * width * 3 * 49
    reduced = (cells // 64) * width * width * 64  # the spatial reduction, 8x8 patches
    linear = cells * width * width * (1 + 1 + 4 + 4) + (cells // 64) * width * 2 * width
    depthwise = cells * 4 * width * 9
    stage = stem + 2 * (reduced + linear + depthwise)
    windows = 2 * cells * width * width * (1 + 2 + 1)
    channels = 2 * (96 * 48 + 48 * 32)
    assert both.layers - rgb.layers == stage + windows + channels


def test_moved_numbers() -> None:
    """Each convolution of MFNet reads its map and its weights and writes its map; other steps are free."""
    with torch.device("meta"):
        model = efnet.create_model("mfnet", 4).eval()
    expected = 0

    def add(layer: torch.nn.Conv2d, given: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal expected
        expected += given[0].numel() + output.numel() + sum(part.numel() for part in layer.parameters())

    convolutions = [part for part in model.modules() if isinstance(part, torch.nn.Conv2d)]
    handles = [convolution.register_forward_hook(add) for convolution in convolutions]
    model(torch.empty(1, 3, 64, 96, device="meta"), torch.empty(1, 1, 64, 96, device="meta"))
    for handle in handles:
        handle.remove()
    assert count(model, (64, 96)).moved == expected
