"""Parts of the convolutional networks against their specification, written plainly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import efnet
from efnet.core.errors import InputError
from efnet.models.baselines.eaefnet import EAEF
from efnet.models.baselines.feanet import FEANet
from efnet.models.baselines.lasnet import ChannelAttention, Correlation
from efnet.models.baselines.mfnet import MiniInception
from efnet.models.baselines.pstnet import Factorized, PSTNet
from efnet.models.baselines.rtfnet import RTFNet, TransBottleneck
from efnet.models.config import BaselineConfig


def randomized(module: nn.Module) -> Any:
    """With statistics and scales as training leaves them, for evaluation in float64."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias, std=0.3)
    return module.double().eval()


def maps(channels: int, height: int = 6, width: int = 7, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, height, width, dtype=torch.float64)


def norm(values: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    mean, var, weight, bias = (
        value[:, None, None] for value in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return (values - mean) / (var + 1e-5).sqrt() * weight + bias


def pointwise(values: Tensor, layer: nn.Conv2d) -> Tensor:
    out = torch.einsum("bchw,oc->bohw", values, layer.weight[:, :, 0, 0])
    return out if layer.bias is None else out + layer.bias[:, None, None]


def unit(values: Tensor, layers: nn.Sequential, reach: int = 1) -> Tensor:
    """A 3x3 convolution with bias, its normalisation and a leaky ReLU of slope 0.2."""
    convolved = F.conv2d(values, layers.conv.weight, layers.conv.bias, padding=reach, dilation=reach)
    both = norm(convolved, layers.bn)
    return torch.where(both > 0, both, 0.2 * both)


def test_mini_inception_is_two_halves_of_which_one_is_dilated() -> None:
    block = randomized(MiniInception(6, 8))
    features = maps(6)
    expected = features
    for layer in (1, 2, 3):
        sides = [block.get_submodule(f"conv{layer}_{side}") for side in ("left", "right")]
        expected = torch.cat(
            [unit(expected, side, reach) for side, reach in zip(sides, (1, 2), strict=True)], dim=1
        )
    torch.testing.assert_close(block(features), expected)


def test_mfnets_logits_are_normalised_and_leaky() -> None:
    """The last layer is one like the others: below zero its slope is a fifth."""
    model = efnet.create_model("mfnet", 5).eval()
    seen: list[Tensor] = []
    model.get_submodule("decode1.bn").register_forward_hook(lambda *call: seen.append(call[-1]))
    with torch.inference_mode():
        logits = model(torch.rand(1, 3, 32, 48), torch.rand(1, 1, 32, 48))
    assert (seen[0] < 0).any()
    torch.testing.assert_close(logits, torch.where(seen[0] > 0, seen[0], 0.2 * seen[0]))


def test_rtfnets_blocks() -> None:
    keep, double = (randomized(TransBottleneck(4, *shape)) for shape in ((4, False), (3, True)))
    features = maps(4)
    inner = norm(pointwise(features, keep.conv1), keep.bn1).relu()
    inner = norm(F.conv2d(inner, keep.conv2.weight, padding=1), keep.bn2).relu()
    inner = norm(F.conv2d(inner, keep.conv3.weight, padding=1), keep.bn3)
    torch.testing.assert_close(keep(features), (inner + features).relu())

    inner = norm(pointwise(features, double.conv1), double.bn1).relu()
    inner = norm(F.conv2d(inner, double.conv2.weight, padding=1), double.bn2).relu()
    inner = norm(doubled(inner, double.conv3), double.bn3)
    shortcut = norm(doubled(features, double.upsample[0]), double.upsample[1])
    torch.testing.assert_close(double(features), (inner + shortcut).relu())


def doubled(values: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """A 2x2 transposed convolution of stride 2: every cell becomes four, each by a matrix of its own."""
    four = torch.einsum("bchw,coij->bohiwj", values, layer.weight)
    return four.flatten(4, 5).flatten(2, 3)


class Shallow(RTFNet):
    depth = 18


def test_rtfnet_adds_thermal_to_colour_and_its_logits_are_never_negative() -> None:
    model = Shallow(BaselineConfig(3)).eval()
    rgb, thermal = torch.randn(1, 3, 32, 32), torch.randn(1, 1, 32, 32)
    seen: list[Tensor] = []
    model.get_submodule("deconv1").register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        of_thermal = model.encoder_thermal(thermal)
        expected = rgb
        for level in range(5):
            expected = model.encoder_rgb.level(level, expected) + of_thermal[level]
        logits = model.score_padded(rgb, thermal.expand(-1, 3, -1, -1))
    torch.testing.assert_close(seen[0], expected)
    assert logits.min() == 0


class ShallowFEANet(FEANet):
    depth = 18


def test_feanet_keeps_its_authors_two_slips() -> None:
    model = ShallowFEANet(BaselineConfig(3)).eval()
    for level, width in enumerate(model.encoder_rgb.widths):
        rgb, thermal = torch.randn(1, width, 6, 7), torch.randn(1, width, 6, 7)
        suffix = ("0", "1", "2", "3_1", "4_1")[level]
        channels = model.get_submodule(f"atten_depth_channel_{suffix}")
        cells = model.get_submodule(f"atten_depth_spatial_{suffix}")
        with torch.inference_mode():
            weighted = [channels(image) * image for image in (rgb, thermal)]
            spread = [cells(image) for image in weighted]
            added = spread[1] * (thermal if level == 3 else weighted[1])
            total, on = model.fuse_level(level, rgb, thermal)
        torch.testing.assert_close(total, spread[0] * weighted[0] + added)
        torch.testing.assert_close(on, weighted[1] if level == 1 else thermal)


def test_factorized_block_reaches_as_far_as_it_is_dilated() -> None:
    block = randomized(Factorized(16, dilation=4, dropout=0.3))
    features = maps(16, 17, 17, batch=1)
    touched = features.clone()
    touched[..., 8, 8] += 1
    changed = (block(features) != block(touched)).any(dim=1)[0]
    rows, columns = changed.nonzero().unbind(1)
    # A column of three, a row of three, then both four cells apart.
    assert (rows - 8).abs().max() == 1 + 4
    assert (columns - 8).abs().max() == 1 + 4
    assert not changed[8 + 2].any()


def test_pstnets_second_stream_sees_scaled_logits_thermal_and_colour() -> None:
    model = efnet.create_model("pstnet", 3).eval()
    assert isinstance(model, PSTNet)
    rgb, thermal, logits = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    given = model.second_input(logits, rgb, thermal)
    for image in range(2):
        scaled = given[image, :3]
        assert (scaled.min(), scaled.max()) == (0, 1)
        spread = logits[image].max() - logits[image].min()
        torch.testing.assert_close(scaled, (logits[image] - logits[image].min()) / spread)
    assert torch.equal(given[:, 3], thermal[:, 0])
    assert torch.equal(given[:, 4:], rgb)


def test_pstnets_colour_stream_works_alone() -> None:
    both, alone = efnet.create_model("pstnet", 5), efnet.create_model("pstnet", 5, modality="rgb")
    names = {name for name in both.state_dict() if name.startswith("rgb_net.")}
    assert set(alone.state_dict()) == names | {"mean", "std"}
    with torch.inference_mode():
        assert alone.eval()(torch.rand(1, 3, 50, 70), None).shape == (1, 5, 50, 70)
    with pytest.raises(InputError, match="at most 27"):
        efnet.create_model("pstnet", 28)


def test_eaef_is_its_equations() -> None:
    module = randomized(EAEF(32, small=False))
    given = rgb, thermal = maps(32), maps(32)
    vectors = []
    for features in given:
        inner = features.mean((2, 3)) @ module.mlp_pool.down.weight.T + module.mlp_pool.down.bias
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        vector = inner @ module.mlp_pool.up.weight.T + module.mlp_pool.up.bias
        vectors.append(vector / vector.square().sum(1, keepdim=True).sqrt())
    # Every thermal channel against the first RGB channel: not the plan of the paper, but the code.
    gate = torch.sigmoid(module.T_c * vectors[0][:, :1] * vectors[1])[:, :, None, None]
    common = torch.cat([rgb * gate, thermal * gate], dim=1)
    peaks = F.conv2d(common, module.dwconv.weight, module.dwconv.bias, padding=3, groups=32).amax((2, 3))
    weights = torch.sigmoid(module.cse(peaks))[:, :, None, None]
    rgb = rgb * (1 - gate) + rgb * gate * weights[:, :32]
    thermal = thermal * (1 - gate) + thermal * gate * weights[:, 32:]
    first, second = (
        pointwise(features, layer["conv1"])
        for features, layer in ((rgb, module.sse_r), (thermal, module.sse_t))
    )
    share = torch.sigmoid(first - second)
    merged, on = module(*given)
    torch.testing.assert_close(merged, share * rgb + (1 - share) * thermal)
    torch.testing.assert_close(on, (1 - share) * thermal)


def test_eaefs_gate_of_a_batch() -> None:
    """Every pair by itself, unless the authors' training is asked for, which exchanges gates."""
    module = randomized(EAEF(64, small=True))
    rgb, thermal = maps(64, batch=3), maps(64, batch=3)
    together = module.gate(rgb, thermal)
    alone = torch.cat([module.gate(rgb[i : i + 1], thermal[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)
    module.mixes_pairs = True
    assert torch.equal(module.gate(rgb, thermal), together)  # in evaluation
    module.train()
    mixed = module.gate(rgb, thermal)[..., 0, 0]
    vectors = []
    for network, features in ((module.mlp_pool_rgb, rgb), (module.mlp_pool_t, thermal)):
        vector = network(features.mean((2, 3)))
        vectors.append(vector / vector.norm(dim=1, keepdim=True))
    for sample in range(3):
        for channel in range(64):
            place = sample * 64 + channel
            source, other = place % 3, place // 3
            expected = torch.sigmoid(64 * vectors[0][source, source] * vectors[1][source, other])
            torch.testing.assert_close(mixed[sample, channel], expected)
    torch.testing.assert_close(module.gate(rgb[:1], thermal[:1]), alone[:1])


def test_correlation_gives_each_exemplar_cell_a_mean_of_the_query() -> None:
    module = randomized(Correlation(5))
    exemplar, query = maps(5, 3, 4), maps(5, 3, 4)
    gathered = torch.zeros_like(query)
    cells = [(row, column) for row in range(3) for column in range(4)]
    for sample in range(2):
        for one in cells:
            key = module.linear_e.weight @ exemplar[sample, :, *one]
            logits = torch.stack([key @ query[sample, :, *other] for other in cells])
            weights = logits.exp() / logits.exp().sum()
            gathered[sample, :, *one] = sum(
                weight * query[sample, :, *other] for weight, other in zip(weights, cells, strict=True)
            )
    fused = norm(F.conv2d(gathered, module.fusion.conv.weight, padding=1), module.fusion.bn)
    torch.testing.assert_close(module(exemplar, query), torch.where(fused > 0, fused, 0.1 * fused))


def test_channels_attend_to_those_that_they_correlate_least_with() -> None:
    module = ChannelAttention().double()
    nn.init.constant_(module.gamma, 0.7)
    features = maps(4)
    expected = features.clone()
    for sample in range(2):
        for channel in range(4):
            energy = torch.stack([(features[sample, channel] * other).sum() for other in features[sample]])
            weights = (-energy + energy.max()).exp()
            weights = weights / weights.sum()
            expected[sample, channel] += 0.7 * torch.einsum("c,chw->hw", weights, features[sample])
    torch.testing.assert_close(module(features), expected)
