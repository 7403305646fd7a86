"""TUNI: its sizes, its modules against their formulas written plainly, and the command line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import efnet
from efnet.cli.main import main
from efnet.models.baselines.tuni import (
    DepthwiseConv,
    RGBLocalModule,
    RGBTGlobalModule,
    RGBTLocalModule,
    TUNIBlock,
    channel_similarity,
    pool_cells,
)
from efnet.models.complexity import measure
from efnet.models.config import Modality
from efnet.scenes import write_dataset

PUBLISHED = {"tuni_b": (29.57, 42.64), "tuni_s": (10.6, None)}
"""Millions of parameters, billions of operations at 480x640."""


def cells(channels: int, height: int = 5, width: int = 6, batch: int = 2) -> Tensor:
    return torch.randn(batch, height, width, channels, dtype=torch.float64)


def spread(values: Tensor, layer: DepthwiseConv) -> Tensor:
    """A depthwise convolution, channel by channel and cell by cell, with zeros around."""
    reach = layer.kernel_size[0] // 2
    _, height, width, channels = values.shape
    out = torch.zeros_like(values)
    for channel in range(channels):
        around = F.pad(values[..., channel], (reach, reach, reach, reach))
        for row in range(height):
            for column in range(width):
                seen = around[:, row : row + 2 * reach + 1, column : column + 2 * reach + 1]
                out[:, row, column, channel] = (seen * layer.weight[channel, 0]).sum((1, 2))
    assert layer.bias is not None
    return out + layer.bias


@pytest.mark.parametrize(
    ("name", "parameters", "operations"), [("tuni_b", 29_116_857, 42.714), ("tuni_s", 10_465_093, 17.104)]
)
def test_sizes_lie_within_two_percent_of_the_published_ones(
    name: str, parameters: int, operations: float
) -> None:
    counted = measure(name, 9, (480, 640))
    billions = (counted.layers + counted.attention) / 1e9
    assert counted.parameters == parameters
    assert billions == pytest.approx(operations, abs=1e-3)
    published = PUBLISHED[name]
    assert parameters / 1e6 == pytest.approx(published[0], rel=0.02)
    if published[1] is not None:
        assert billions == pytest.approx(published[1], rel=0.02)


def test_rgb_local_module_is_its_formula() -> None:
    module = RGBLocalModule(4).double()
    features = cells(4)
    gate = features @ module.gate.weight.T + module.gate.bias
    value = features @ module.value.weight.T + module.value.bias
    torch.testing.assert_close(module(features), spread(gate, module.conv) * value)


def test_rgbt_local_module_is_its_formula() -> None:
    module = RGBTLocalModule(4, 3).double().requires_grad_(False)
    module.slope.normal_()
    module.offset.normal_()
    rgb_cells, thermal_cells = cells(4), cells(3)
    rgb = rgb_cells @ module.rgb.weight.T + module.rgb.bias
    thermal = thermal_cells @ module.thermal.weight.T + module.thermal.bias
    consistent = spread(rgb * thermal, module.consistent)
    distinct = spread((rgb - thermal).abs(), module.distinct)
    expected = torch.zeros_like(consistent)
    for sample in range(2):
        for channel in range(4):
            one, other = rgb[sample, ..., channel].flatten(), thermal[sample, ..., channel].flatten()
            cosine = float(one @ other) / math.sqrt(float(one @ one) * float(other @ other))
            logit = float(module.slope[channel]) * cosine + float(module.offset[channel])
            share = 1 / (1 + math.exp(-logit))
            expected[sample, ..., channel] = (
                share * consistent[sample, ..., channel] + (1 - share) * distinct[sample, ..., channel]
            )
    torch.testing.assert_close(module(rgb_cells, thermal_cells), expected)


def test_similarity_is_of_direction_alone() -> None:
    features = cells(3)
    one = torch.ones(2, 1, 1, 3, dtype=torch.float64)
    torch.testing.assert_close(channel_similarity(features, 7 * features), one)
    torch.testing.assert_close(channel_similarity(features, -0.1 * features), -one)
    assert torch.equal(channel_similarity(features, torch.zeros_like(features)), 0 * one)
    left, right = features.clone(), features.clone()
    left[:, ::2], right[:, 1::2] = 0, 0  # no cell in common
    torch.testing.assert_close(channel_similarity(left, right), 0 * one)


def test_similarity_of_a_large_map_fits_half_precision() -> None:
    """Sums of squares over these cells would be beyond float16's 65504."""
    features = torch.full((1, 120, 160, 2), 20.0, dtype=torch.float16)
    similarity = channel_similarity(features, features)
    assert similarity.dtype == torch.float32
    torch.testing.assert_close(similarity, torch.ones(1, 1, 1, 2))


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 7), (14, 21), (15, 20), (120, 160)])
def test_pooling_is_adaptive(size: tuple[int, int]) -> None:
    features = cells(3, *size)
    expected = F.adaptive_avg_pool2d(features.permute(0, 3, 1, 2), 7).permute(0, 2, 3, 1)
    torch.testing.assert_close(pool_cells(features, 7), expected)


def test_rgbt_global_module_is_its_formula() -> None:
    """One query of one head at a time; enlarged as an image is."""
    width, thermal_width, out_width, heads = 6, 3, 4, 2
    module = RGBTGlobalModule(width, width + thermal_width, out_width, heads).double()
    rgb, thermal = cells(width, 9, 8), cells(thermal_width, 9, 8)
    both = torch.cat([rgb, thermal], dim=3).permute(0, 3, 1, 2)
    pooled = F.adaptive_avg_pool2d(both, 7).flatten(2).transpose(1, 2)
    queries = pooled @ module.q.weight.T + module.q.bias
    keys, values = (rgb.flatten(1, 2) @ module.kv.weight.T + module.kv.bias).split(out_width, dim=2)
    gathered = torch.zeros(2, 49, out_width, dtype=torch.float64)
    for sample in range(2):
        for head in (slice(0, 2), slice(2, 4)):
            for query in range(49):
                logits = keys[sample, :, head] @ queries[sample, query, head] / math.sqrt(2)
                weights = logits.exp() / logits.exp().sum()
                gathered[sample, query, head] = weights @ values[sample, :, head]
    maps = gathered.transpose(1, 2).reshape(2, out_width, 7, 7)
    expected = F.interpolate(maps, (9, 8), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    torch.testing.assert_close(module(rgb, thermal), expected)


def test_thermal_asks_and_rgb_answers() -> None:
    """Values are the RGB map's: where that one is even, no thermal image changes what is gathered."""
    module = RGBTGlobalModule(6, 9, 4, 2).double()
    even = torch.ones(1, 8, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(module(even, cells(3, 8, 8, 1)), module(even, cells(3, 8, 8, 1)))
    uneven = cells(6, 8, 8, 1)
    assert not torch.allclose(module(uneven, cells(3, 8, 8, 1)), module(uneven, cells(3, 8, 8, 1)))


def test_block_updates_both_branches_from_all_modules() -> None:
    block = TUNIBlock(8, 4, heads=2, ratio=2, last=False).double()
    branches = [cells(8), cells(4)]
    normed = [norm(branch) for norm, branch in zip(block.norms, branches, strict=True)]
    assert block.rgbt_local is not None
    joined = torch.cat(
        [block.rgb_local(normed[0]), block.rgbt_global(*normed), block.rgbt_local(*normed)], dim=3
    )
    for after, before, project, mlp in zip(
        block(branches), branches, block.projects, block.mlps, strict=True
    ):
        fused = before + joined @ project.weight.T + project.bias
        torch.testing.assert_close(after, fused + mlp(fused))


def test_last_block_ends_the_thermal_branch() -> None:
    block = TUNIBlock(8, 4, heads=2, ratio=2, last=True).double()
    (after,) = block([cells(8), cells(4)])
    assert after.shape == (2, 5, 6, 8)


@pytest.mark.parametrize(("modality", "channels"), [("rgb", 3), ("thermal", 1)])
def test_one_modality_has_the_wide_branch_alone(modality: Modality, channels: int) -> None:
    with torch.device("meta"):
        both, alone = (efnet.create_model("tuni_s", 9, modality=kind) for kind in ("rgbt", modality))
    shapes = {name: value.shape for name, value in alone.state_dict().items()}
    assert shapes["stages.0.downsample.0.0.weight"][1] == channels
    assert shapes.keys() < both.state_dict().keys()
    assert not any("rgbt_local" in name or "downsample.1" in name for name in shapes)


def test_as_a_user_types_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "data", train=2, val=1, test=1, size=(64, 96), seed=1)
    run, data = str(tmp_path / "run"), str(tmp_path / "data")
    train = ["train", "--dataset", "mfnet", "--root", data, "--size", "64x96", "--model", "tuni_s"]
    train += ["--epochs", "1", "--workers", "0", "--device", "cpu"]
    assert main([*train, "--out", run]) == 0
    predict = ["predict", "--checkpoint", run, "--rgbt", str(tmp_path / "data" / "images" / "*.png")]
    assert main([*predict, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert len(list((tmp_path / "out" / "index").glob("*.png"))) == 4
    capsys.readouterr()
    weights = tmp_path / "tuni.pth"
    torch.save({"weight": torch.zeros(1)}, weights)
    assert main([*train, "--init", str(weights), "--out", str(tmp_path / "other")]) == 2
    assert "no pretrained encoder is known for tuni_s" in capsys.readouterr().err
