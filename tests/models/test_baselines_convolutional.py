"""MFNet, RTFNet, PSTNet, EAEFNet and LASNet: padding, and their sizes beside the official code's."""

from __future__ import annotations

import pytest
import torch
from model_cases import random_pair

import efnet
from efnet.models.complexity import measure


@pytest.mark.parametrize("name", ["mfnet", "pstnet"])
@pytest.mark.parametrize("size", [(64, 96), (50, 70)])
def test_padding_changes_nothing_but_the_border(name: str, size: tuple[int, int]) -> None:
    """Cropping is from the lower right: the upper left stays in place."""
    model = efnet.create_model(name, 4).eval()
    rgb, thermal = random_pair(*size)
    whole = [-(-side // 32) * 32 for side in size]
    pads = (0, whole[1] - size[1], 0, whole[0] - size[0])
    by_hand = [torch.nn.functional.pad(images, pads, mode="replicate") for images in (rgb, thermal)]
    with torch.inference_mode():
        expected = model(*by_hand)[:, :, : size[0], : size[1]]
        inner = (..., slice(0, 16), slice(0, 16))
        if name == "mfnet":  # it pads to multiples of 16: the far border differs, out of the corner's sight
            torch.testing.assert_close(model(rgb, thermal)[inner], expected[inner])
        else:
            torch.testing.assert_close(model(rgb, thermal), expected)


@pytest.mark.parametrize(
    ("name", "parameters", "operations", "official"),
    [
        ("mfnet", 735_017, 8.296, (0.736, 8.3)),
        ("rtfnet50", 185_238_501, 198.566, (185.24, 198.6)),
        ("rtfnet152", 254_510_053, 289.478, (254.51, 289.5)),
        ("eaefnet", 147_193_403, 190.024, (147.24, 189.7)),
        ("eaefnet50", 77_921_851, 99.112, None),
        ("lasnet", 93_008_701, 234.848, (93.58, 234.3)),
        ("pstnet", 16_475_650, 52.328, None),
    ],
)
def test_sizes(name: str, parameters: int, operations: float, official: tuple[float, float] | None) -> None:
    counted = measure(name, 9, (480, 640))
    billions = (counted.layers + counted.attention) / 1e9
    assert counted.parameters == parameters
    assert billions == pytest.approx(operations, abs=1e-3)
    if official is not None:
        assert parameters / 1e6 == pytest.approx(official[0], rel=0.02)
        assert billions == pytest.approx(official[1], rel=0.02)
