"""The class of each pixel, and which logits are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.inference.engine import Engine


class Fixed(torch.nn.Module):
    """Gives the same logits (1, K, H, W) for every image."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, rgb: torch.Tensor, thermal: torch.Tensor) -> torch.Tensor:
        return self.logits


def predicted(logits: torch.Tensor) -> np.ndarray:
    engine = Engine(Fixed(logits), ClassSet.generic(logits.shape[1]), "cpu")
    image = np.zeros((32, 40, 3), np.uint8)
    return engine.run([engine.prepare(image, np.zeros((32, 40), np.float32))])[0].index


def test_the_first_of_equal_classes_wins() -> None:
    logits = torch.randint(0, 3, (1, 7, 32, 40), generator=torch.Generator().manual_seed(0)).float()
    assert np.array_equal(predicted(logits), logits[0].numpy().argmax(0))


def test_finite_logits_whose_sum_overflows_are_taken() -> None:
    logits = torch.full((1, 3, 32, 40), 3e38)
    logits[:, 0] = 1.0
    assert (predicted(logits) == 1).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_refused(value: float) -> None:
    logits = torch.zeros(1, 3, 32, 40)
    logits[0, 2, 31, 39] = value
    with pytest.raises(InputError, match="logits are not finite"):
        predicted(logits)


def test_infinities_of_both_signs_are_refused() -> None:
    logits = torch.zeros(1, 3, 32, 40)
    logits[0, 0, 0, 0], logits[0, 1, 1, 1] = float("inf"), -float("inf")
    with pytest.raises(InputError, match="logits are not finite"):
        predicted(logits)
