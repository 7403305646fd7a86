"""The arithmetic that decides a clustering: what it computes, and that nothing but its order enters."""

from __future__ import annotations

import math

import pytest
import torch

from efnet.ops.clustering.distances import exponential, mean_square, ordered_sum, square_root


def test_exponential_is_within_one_unit_in_the_last_place() -> None:
    random = torch.Generator().manual_seed(0)
    near = -torch.rand(4000, dtype=torch.float64, generator=random)
    values = torch.cat([near, 40 * near, 708 * near, near * 1e-9, torch.arange(-708.0, 1).double()])
    expected = torch.tensor([math.exp(value) for value in values.tolist()], dtype=torch.float64)
    unit = torch.tensor([math.ulp(value) for value in expected.tolist()], dtype=torch.float64)
    assert ((exponential(values) - expected).abs() <= unit).all()
    assert exponential(torch.zeros(1, dtype=torch.float64)).item() == 1


def test_exponential_beyond_normal_numbers() -> None:
    values = torch.linspace(-746, -708, 999, dtype=torch.float64)
    expected = torch.tensor([math.exp(value) for value in values.tolist()], dtype=torch.float64)
    assert ((exponential(values) - expected).abs() <= expected * 2.0**-52 + 5e-324).all()
    far = torch.tensor([-747.0, -1e10, -1e300, -torch.inf], dtype=torch.float64)
    assert exponential(far).eq(0).all()


@pytest.mark.parametrize("width", [1, 2, 3, 16, 17, 31, 32, 33, 64, 100, 320])
def test_sum_has_one_order(width: int) -> None:
    """Number by number from the rule, whatever the shape of the tensor."""
    terms = torch.rand(5, 7, width, dtype=torch.float64, generator=torch.Generator().manual_seed(width))
    lanes = torch.zeros(32, 5, 7, dtype=torch.float64)
    for channel in range(width):
        lanes[channel % 32] += terms[..., channel]
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    together = ordered_sum(terms.clone())
    assert torch.equal(together, lanes[0])
    assert torch.equal(ordered_sum(terms[2, 3].clone()), lanes[0, 2, 3])
    torch.testing.assert_close(together, terms.sum(-1))


def test_roots_are_rounded_correctly() -> None:
    values = torch.rand(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e3
    expected = torch.tensor([math.sqrt(value) for value in values.tolist()], dtype=torch.float64)
    assert torch.equal(square_root(values), expected)


def test_mean_square_counts_the_token_itself() -> None:
    distance = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    assert mean_square(distance, 4).tolist() == [21 / 4, 9 / 4]
    assert mean_square(distance[:, :0], 1).tolist() == [0, 0]
