"""The nearest few within windows: what they find, and that what they claim about the rest holds."""

from __future__ import annotations

import pytest
import torch
from dpc_transcription import distances
from torch import Tensor

from efnet.ops.clustering.distances import Points
from efnet.ops.clustering.neighbors import Near, fewest, nearest_in_windows, nearest_of_all, spatial_tiles


def inputs(tokens: int, channels: int, scale: float) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(tokens)
    side = tokens**0.5 / 2
    positions = side * torch.rand(2, tokens, 2, generator=random)
    smooth = torch.sin(positions @ torch.randn(2, channels, generator=random) / 3)
    noise = scale * torch.randn(2, tokens, channels, generator=random)
    return smooth + noise + 5, positions


def check(near: Near, features: Tensor, positions: Tensor, weight: float, k: int) -> float:
    """Every claim against all distances; returns the share of tokens that are proved."""
    points = Points(features, positions, weight)
    tokens = features.shape[1]
    true = torch.stack([distances(x, y, weight) for x, y in zip(features, positions, strict=True)])
    unproved = near.unproved(points, k)
    for row, columns, distance, floor, open_ in zip(*near, unproved, strict=True):
        sample, own = divmod(int(row), tokens)
        of_row = true[sample, own].clone()
        of_row[own] = torch.inf
        present = columns < points.none
        few = columns[present] - sample * tokens
        assert len(few.unique()) == len(few)
        assert own not in few
        torch.testing.assert_close(distance[present].double(), of_row[few], rtol=1e-5, atol=1e-6)
        assert torch.isinf(distance[~present]).all()
        of_row[few] = torch.inf
        assert of_row.min() >= floor
        if not open_:
            assert len(few) >= k - 1
            assert of_row.min() >= distance.sort().values[k - 2]
    return 1 - float(unproved.float().mean())


@pytest.mark.parametrize("tokens", [1200, 1531])
@pytest.mark.parametrize("scale", [0.1, 0.5, 3.0])
def test_claims_hold_in_windows(tokens: int, scale: float) -> None:
    weight = 0.7
    features, positions = inputs(tokens, 16, scale)
    points = Points(features, positions, weight)
    near = nearest_in_windows(points, spatial_tiles(points, 32), 7)
    assert near.rows.sort().values.equal(torch.arange(2 * tokens))
    proved = check(near, features, positions, weight, 5)
    assert proved > 0.9 if scale < 1 else proved < 0.5


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_claims_hold_for_all(weight: float) -> None:
    features, positions = inputs(300, 16, 0.5)
    points = Points(features, positions if weight else None, weight)
    near = nearest_of_all(points, 7)
    assert near.rows.equal(torch.arange(600))
    assert check(near, features, positions, weight, 5) > 0.99


@pytest.mark.parametrize("shape", [(40, 1200), (0, 1200), (40, 1199), (5, 9), (3, 8), (3, 1)])
@pytest.mark.parametrize("count", [1, 7, 8])
def test_the_fewest_of_each_row(shape: tuple[int, int], count: int) -> None:
    """In groups of columns (widths that 16 or 8 divides) and without; of equal numbers any may be taken."""
    if count > shape[1]:
        pytest.skip("more than there are")
    values = torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(0)).float()
    values[:, ::7] = torch.inf
    found = fewest(values, count)
    ordered = values.sort(1).values
    assert found.values.equal(ordered[:, :count])
    assert values.gather(1, found.columns).equal(found.values)
    assert all(len(row.unique()) == count for row in found.columns)
    assert found.rest.equal(ordered[:, count] if shape[1] > count else torch.full(shape[:1], torch.inf))
