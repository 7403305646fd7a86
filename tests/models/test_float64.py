"""A float64 network computes in float64 throughout: nothing on the way is rounded to float32."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from model_cases import random_pair
from test_parts import WIDTHS, literal_mfad, stages
from torch import Tensor

import efnet
from efnet.core.classes import IGNORE_INDEX
from efnet.models.dbtc import DBTC
from efnet.models.decoders import MFAD
from efnet.models.fusion import ChannelAttention
from efnet.models.layers import DropPath, Tokens
from efnet.models.position import PixelCoordinateEncoding, PositionEmbedding, grid_coordinates, pitch
from efnet.ops.tokens import TokenGrid
from efnet.training.config import LossConfig
from efnet.training.loss import Objective

DOUBLE = torch.float64


def assert_equal(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == DOUBLE
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def merged_grid(cells: int = 48, count: int = 12) -> TokenGrid:
    """Tokens of unequal numbers of cells, thirds and sevenths among their means."""
    clusters = torch.arange(cells).square().remainder(count * 7) % count
    clusters[:count] = torch.arange(count)
    return TokenGrid(clusters[None], count, (6, 8))


def literal_positions(grid: TokenGrid) -> Tensor:
    """(N, 2) the mean coordinates of each token's cells, one token after the other."""
    cells = grid_coordinates(grid.size, torch.device("cpu"), DOUBLE).flatten(2)[0].T
    owner = grid.assignment[0]
    return torch.stack([cells[owner == token].sum(0) / int((owner == token).sum()) for token in range(12)])


def test_channel_statistics() -> None:
    scores = ChannelAttention(6).double()
    features = torch.randn(2, 5, 7, 6, dtype=DOUBLE)
    cells = features.flatten(1, 2)
    statistics = torch.cat([cells.mean(1), cells.amax(1), cells.var(1, correction=0)], dim=-1)
    assert_equal(scores(features), scores.mlp(statistics).sigmoid()[:, None, None])


def test_pixel_coordinate_encoding() -> None:
    position, grid = PixelCoordinateEncoding().double(), merged_grid()
    torch.nn.init.normal_(position.map.weight)
    expected = literal_positions(grid) / pitch(grid.size, 3) @ position.map.weight.T
    assert_equal(position(grid, 3)[0], expected)


def test_position_embedding() -> None:
    position, grid = PositionEmbedding().double(), merged_grid()
    cells = torch.nn.functional.interpolate(position.table, grid.size, mode="bilinear", align_corners=False)
    cells, owner = cells.flatten(2)[0].T, grid.assignment[0]
    expected = torch.stack([cells[owner == token].mean(0) for token in range(12)])
    assert_equal(position(grid, 3)[0], expected)


def test_importance_of_a_clustering() -> None:
    dbtc = DBTC(8, 10, neighbors=5, keep=0.25, position="pce", tau=0.5).double()
    grid = merged_grid()
    tokens = Tokens(torch.randn(1, 12, 8, dtype=DOUBLE), grid, (3, 4))
    _, source, importance = dbtc(tokens)
    in_images = literal_positions(grid) / max(grid.size)
    expected = dbtc.score(source.features[0]) + in_images @ dbtc.score_position.weight.T
    assert_equal(importance[0], expected)


def test_mfad() -> None:
    parts = [part.with_features(part.features.double()) for part in stages()]
    decoder = MFAD(WIDTHS, num_classes=5).double()
    assert_equal(decoder(parts), literal_mfad(parts, decoder.class_tokens))


def test_dropped_paths() -> None:
    residual = torch.randn(64, 3, 2, dtype=DOUBLE)
    dropped = DropPath(0.3).train()(residual)
    kept = dropped[:, 0, 0] != 0
    assert_equal(dropped[kept], residual[kept] / 0.7)


def test_loss() -> None:
    logits, label = torch.randn(2, 3, 4, 5, dtype=DOUBLE), torch.randint(0, 3, (2, 4, 5))
    label[0, 0] = IGNORE_INDEX
    loss = Objective(LossConfig(dice=0.3, lovasz=0.3))(logits, label)
    log = logits.log_softmax(1).movedim(1, -1)[label != IGNORE_INDEX]
    expected = -log.gather(1, label[label != IGNORE_INDEX][:, None]).mean()
    assert_equal(Objective(LossConfig())(logits, label), expected)
    assert loss.dtype == DOUBLE


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("efnet_tiny", {"merging": "pool"}),
        ("efnet_tiny", {"merging": "pool", "fusion": "cat", "decoder": "deeplab"}),
        ("mfnet", {}),
        ("tuni_s", {}),
    ],
    ids=str,
)
def test_slopes_of_a_whole_network(name: str, options: dict[str, Any]) -> None:
    """The slope in a direction is the difference quotient of a step that float32 would not see."""
    torch.manual_seed(0)
    model = efnet.create_model(name, 3, **options).double().eval()
    rgb, thermal = (image.double() for image in random_pair(32, 32))
    direction = torch.randn_like(rgb) * 1e-8
    weights = torch.randn(1, 3, 32, 32, dtype=DOUBLE)
    rgb.requires_grad_()
    (slope,) = torch.autograd.grad((model(rgb, thermal) * weights).sum(), rgb)
    with torch.no_grad():
        after, before = ((model(rgb + step * direction, thermal) * weights).sum() for step in (1, -1))
    assert math.isclose(float(after - before), 2 * float((slope * direction).sum()), rel_tol=1e-4)
