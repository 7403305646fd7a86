"""MFNet, RTFNet, PSTNet, EAEFNet and LASNet: what every network must do, and their sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_cases import (
    check_determinism,
    check_gradients,
    check_round_trip,
    check_shapes,
    random_pair,
)
from torch.export import Dim

import efnet
from efnet.models.complexity import measure
from efnet.models.config import Modality

SMALL = ("mfnet", "pstnet")
LARGE = ("rtfnet50", "rtfnet152", "eaefnet", "lasnet")
MODALITIES: tuple[Modality, ...] = ("rgbt", "rgb", "thermal")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("modality", MODALITIES)
def test_shapes(name: str, modality: Modality) -> None:
    check_shapes(efnet.create_model(name, 5, modality=modality))


@pytest.mark.parametrize("name", LARGE)
def test_large_ones(name: str) -> None:
    model = efnet.create_model(name, 4).eval()
    rgb, thermal = random_pair(32, 64)
    with torch.inference_mode():
        logits = model(rgb, thermal)
        assert logits.shape == (1, 4, 32, 64)
        assert logits.isfinite().all()
        assert not torch.equal(logits, model(1 - rgb, thermal))
        assert not torch.equal(logits, model(rgb, 1 - thermal))


@pytest.mark.parametrize("name", ["eaefnet", "lasnet"])
def test_large_ones_of_one_modality(name: str) -> None:
    model = efnet.create_model(name, 4, modality="thermal").eval()
    assert not any(key.startswith(("rgb.", "fuse.")) for key in model.state_dict())
    with torch.inference_mode():
        assert model(None, random_pair(33, 40)[1]).shape == (1, 4, 33, 40)


@pytest.mark.parametrize("name", SMALL)
def test_gradients(name: str) -> None:
    check_gradients(efnet.create_model(name, 4), torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_gradients_of_large_ones(name: str) -> None:
    check_gradients(efnet.create_model(name, 4), torch.float32)


@pytest.mark.parametrize("name", SMALL)
def test_determinism(name: str) -> None:
    check_determinism(efnet.create_model(name, 4))


@pytest.mark.parametrize("name", SMALL)
def test_round_trip(name: str, tmp_path: Path) -> None:
    check_round_trip(efnet.create_model(name, 4), tmp_path)


@pytest.mark.parametrize("name", SMALL)
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


@pytest.mark.parametrize("name", SMALL)
def test_one_exported_program_serves_every_size(name: str) -> None:
    model = efnet.create_model(name, 3).eval()
    free = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(model, random_pair(64, 96, 2), dynamic_shapes=(free, free)).module()
    pair = random_pair(50, 70)
    with torch.inference_mode():
        torch.testing.assert_close(program(*pair), model(*pair))


@pytest.mark.parametrize(
    ("name", "parameters", "operations", "official"),
    [
        ("mfnet", 735_017, 8.296, (0.736, 8.3)),
        ("rtfnet50", 185_238_501, 198.566, (185.24, 198.6)),
        ("rtfnet152", 254_510_053, 289.478, (254.51, 289.5)),
        ("eaefnet", 147_193_403, 190.024, (147.24, 189.7)),
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
