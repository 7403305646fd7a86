"""EGFNet's edge map, which its authors make beforehand with OpenCV."""

from __future__ import annotations

import math

import torch

from efnet.models.baselines.egfnet import edge_map


def halves(value: float) -> float:
    """The nearest whole number, of two the even one."""
    return float(round(value))


def test_edges_are_both_images_sobel_gradients_and_wrap_around() -> None:
    """Pixel by pixel; borders are mirrored without the border's own row."""
    torch.manual_seed(3)
    rgb8, thermal8 = torch.randint(0, 256, (1, 3, 7, 9)), torch.randint(0, 256, (1, 1, 7, 9))
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    grey = [
        torch.tensor(
            [[halves(float(weights @ rgb8[0, :, y, x].double())) for x in range(9)] for y in range(7)]
        ),
        thermal8[0, 0].double(),
    ]
    found = edge_map(rgb8.float() / 255, thermal8.float() / 255)[0, 0]
    wrapped = 0
    for y in range(7):
        for x in range(9):
            total = 0.0
            for image in grey:
                near = {
                    (dy, dx): float(image[abs(y + dy) if y + dy < 7 else 5, abs(x + dx) if x + dx < 9 else 7])
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                }
                across = sum((2 - abs(dy)) * dx * value for (dy, dx), value in near.items())
                down = sum((2 - abs(dx)) * dy * value for (dy, dx), value in near.items())
                total += halves((min(abs(across), 255) + min(abs(down), 255)) / 2)
            wrapped += total > 255
            assert math.isclose(float(found[y, x]), total % 256)
    assert wrapped > 5


def test_even_images_have_no_edges() -> None:
    assert not edge_map(torch.full((1, 3, 8, 8), 0.5), torch.full((1, 1, 8, 8), 0.25)).any()
