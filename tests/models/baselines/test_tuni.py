"""TUNI: its modules against their formulas written plainly, its two versions, and the command line."""

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
    FeedForward,
    FusedAttention,
    RGBTLocalModule,
    TUNIBlock,
    pool_cells,
    similarity,
)
from efnet.scenes import write_dataset


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


def linear(values: Tensor, layer: torch.nn.Linear) -> Tensor:
    product = values @ layer.weight.T
    return product if layer.bias is None else product + layer.bias


def test_rgbt_local_module_is_its_formula() -> None:
    module = RGBTLocalModule(16).double().requires_grad_(False)
    rgb_cells, thermal_cells = cells(16), cells(8)
    rgb, thermal = linear(rgb_cells, module.linear1), linear(thermal_cells, module.linear2)
    both = torch.cat([spread(rgb * thermal, module.conv1), spread((rgb - thermal).abs(), module.conv2)], 3)
    expected = torch.zeros_like(both)
    for sample in range(2):
        mean = both[sample].mean(2).flatten()
        one = [both[sample, ..., channel].flatten() for channel in range(16)]
        cosine = torch.stack([mean @ c / (math.sqrt(mean @ mean) * math.sqrt(c @ c) + 1e-6) for c in one])
        inner = linear(cosine, module.fc_channel[0])
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        expected[sample] = both[sample] / (1 + torch.exp(-linear(inner, module.fc_channel[2])))
    torch.testing.assert_close(module(rgb_cells, thermal_cells), linear(expected, module.linear3))


def test_similarity_of_a_large_map_fits_half_precision() -> None:
    """Sums of squares over these cells would be beyond float16's 65504."""
    features = torch.full((1, 120, 160, 2), 20.0, dtype=torch.float16)
    found = similarity(features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.ones(1, 2))


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 7), (14, 21), (15, 20), (120, 160)])
def test_pooling_is_adaptive(size: tuple[int, int]) -> None:
    features = cells(3, *size)
    expected = F.adaptive_avg_pool2d(features.permute(0, 3, 1, 2), 7).permute(0, 2, 3, 1)
    torch.testing.assert_close(pool_cells(features, 7), expected)


@pytest.mark.parametrize(("order", "heads"), [("LGR", 2), ("LRG", 2), ("LGR", 0)])
def test_three_modules_are_concatenated_in_the_versions_order(order: str, heads: int) -> None:
    """One query of one head at a time; in stage 1, without heads, there is no global module."""
    module = FusedAttention(16, heads, False, order).double().requires_grad_(False)
    rgb_cells, thermal_cells = cells(16, 9, 8), cells(8, 9, 8)
    rgb, thermal = (
        F.layer_norm(values, values.shape[3:], layer.weight, layer.bias, 1e-6)
        for values, layer in ((rgb_cells, module.norm), (thermal_cells, module.norm_e))
    )
    local = spread(linear(rgb, module.local_rr2), module.conv)
    parts = {"L": linear(rgb, module.local_rr1) * linear(local, module.local_rr3)}
    parts["R"] = module.local_rx(rgb, thermal)
    if heads:
        both = torch.cat([rgb, thermal], dim=3).permute(0, 3, 1, 2)
        queries = linear(F.adaptive_avg_pool2d(both, 7).flatten(2).transpose(1, 2), module.q_rx)
        keys, values = linear(rgb.flatten(1, 2), module.kv_rx).split(8, dim=2)
        gathered = torch.zeros(2, 49, 8, dtype=torch.float64)
        for sample in range(2):
            for head in (slice(0, 4), slice(4, 8)):
                for query in range(49):
                    logits = keys[sample, :, head] @ queries[sample, query, head] / 2
                    weights = logits.exp() / logits.exp().sum()
                    gathered[sample, query, head] = weights @ values[sample, :, head]
        grid = gathered.transpose(1, 2).reshape(2, 8, 7, 7)
        enlarged = F.interpolate(grid, (9, 8), mode="bilinear", align_corners=False)
        parts["G"] = enlarged.permute(0, 2, 3, 1)
    joined = torch.cat([parts[name] for name in order if name in parts], dim=3)
    for ours, layer in zip(module(rgb_cells, thermal_cells), (module.proj, module.proj_e), strict=True):
        torch.testing.assert_close(ours, linear(joined, layer))


def test_feed_forward_adds_its_depthwise_convolution() -> None:
    module = FeedForward(4, 2).double().requires_grad_(False)
    features = cells(4)
    hidden = linear(F.layer_norm(features, (4,), module.norm.weight, module.norm.bias, 1e-6), module.fc1)
    hidden = hidden + spread(hidden, module.pos)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    torch.testing.assert_close(module(features), linear(hidden, module.fc2))


def test_block_scales_its_residuals_and_the_last_one_ends_the_thermal_branch() -> None:
    block, last = (TUNIBlock(16, 1, 0, "LGR", last=last).double() for last in (False, True))
    given = cells(16), cells(8)
    residuals = block.attn(*given)
    expected = []
    for branch, residual, mlp, suffix in zip(
        given, residuals, (block.mlp, block.mlp_e2), ("", "_e"), strict=True
    ):
        fused = branch + block.get_parameter(f"layer_scale_1{suffix}") * residual
        expected.append(fused + block.get_parameter(f"layer_scale_2{suffix}") * mlp(fused))
    for ours, wanted in zip(block(*given), expected, strict=True):
        torch.testing.assert_close(ours, wanted)
    assert torch.equal(last(*given)[1], given[1])
    scales = [value.detach() for name, value in last.named_parameters() if "scale" in name]
    assert len(scales) == 2
    for scale in scales:
        torch.testing.assert_close(scale, torch.full((16,), 1e-6, dtype=torch.float64))


def test_versions_have_the_same_names_and_differ() -> None:
    torch.manual_seed(1)
    first, second = (efnet.create_model(name, 4).eval() for name in ("tuni_v1_s", "tuni_s"))
    with torch.no_grad():
        for name, value in first.named_parameters():
            if "layer_scale" in name:
                value.fill_(1)
    second.load_state_dict(first.state_dict())
    pair = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert not torch.allclose(first(*pair), second(*pair), rtol=1e-2)


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
