"""Parts of MFNet, RTFNet, PSTNet, EAEFNet and LASNet against what their papers say, written plainly."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import efnet
from efnet.models.baselines.lasnet import CollaborativeLocation, ComplementaryActivation, EdgeSharpening
from efnet.models.baselines.mfnet import MFNetDecoder, MiniInception
from efnet.models.baselines.pstnet import ERFNet, Factorized, PSTNet
from efnet.models.baselines.two_resnets import EAEF, BlockA, BlockB, RTFNet
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


def test_mini_inception_is_two_halves_of_which_one_is_dilated() -> None:
    block = randomized(MiniInception(6, 8))
    features = maps(6)
    expected = features
    for near, far in zip(block.near, block.far, strict=True):
        halves = [
            norm(F.conv2d(expected, unit[0].weight, padding=reach, dilation=reach), unit[1])
            for unit, reach in ((near, 1), (far, 2))
        ]
        both = torch.cat(halves, dim=1)
        expected = torch.where(both > 0, both, 0.2 * both)
    torch.testing.assert_close(block(features), expected)


def test_mfnets_decoder_adds_shortcuts_of_the_size_it_reaches() -> None:
    widths = (4, 6, 6, 10, 10)
    decoder = randomized(MFNetDecoder(widths, 3))
    levels = [maps(width, 32 >> level, 48 >> level) for level, width in enumerate(widths)]
    features = levels[4]
    for step, level in zip(decoder.steps, (3, 2, 1), strict=True):
        larger = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        features = step(larger + levels[level])
    larger = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(decoder(levels), decoder.classify(larger))


def test_upception_blocks() -> None:
    keep, enlarge = randomized(BlockA(4)), randomized(BlockB(4, 3))
    features = maps(4)
    first, second, third, last_norm = keep.inner
    inner = norm(pointwise(features, first[0]), first[1]).relu()
    inner = norm(F.conv2d(inner, second[0].weight, padding=1), second[1]).relu()
    inner = norm(F.conv2d(inner, third.weight, padding=1), last_norm)
    torch.testing.assert_close(keep(features), (inner + features).relu())

    first, second, tconv, last_norm = enlarge.inner
    inner = norm(pointwise(features, first[0]), first[1]).relu()
    inner = norm(F.conv2d(inner, second[0].weight, padding=1), second[1]).relu()
    inner = norm(doubled(inner, tconv), last_norm)
    shortcut = norm(doubled(features, enlarge.shortcut[0]), enlarge.shortcut[1])
    torch.testing.assert_close(enlarge(features), (inner + shortcut).relu())


def doubled(values: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """A 2x2 transposed convolution of stride 2: every cell becomes four, each by a matrix of its own."""
    four = torch.einsum("bchw,coij->bohiwj", values, layer.weight)
    return four.flatten(4, 5).flatten(2, 3)


class Shallow(RTFNet):
    depth = 18


def test_rtfnet_adds_thermal_to_colour() -> None:
    model = Shallow(BaselineConfig(3)).eval()
    assert model.rgb is not None
    assert model.thermal is not None
    rgb, thermal = torch.randn(1, 3, 32, 32), torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        of_thermal = model.thermal(thermal)
        expected = rgb
        for level in range(5):
            expected = model.rgb.level(level, expected) + of_thermal[level]
        torch.testing.assert_close(model._encode(rgb, thermal)[-1], expected)
        alone = Shallow(BaselineConfig(3, "thermal")).eval()
        assert alone.rgb is None
        assert alone(None, torch.rand(1, 1, 33, 40)).shape == (1, 3, 33, 40)


def test_factorized_block_reaches_as_far_as_it_is_dilated() -> None:
    block = randomized(Factorized(3, dilation=4, dropout=0.3))
    features = maps(3, 17, 17, batch=1)
    touched = features.clone()
    touched[..., 8, 8] += 1
    changed = (block(features) != block(touched)).any(dim=1)[0]
    rows, columns = changed.nonzero().unbind(1)
    # A column of three, a row of three, then both four cells apart.
    assert (rows - 8).abs().max() == 1 + 4
    assert (columns - 8).abs().max() == 1 + 4
    assert not changed[8 + 2].any()


def test_erfnet_has_the_papers_size() -> None:
    """2.06 M parameters with three channels and 20 classes."""
    network = ERFNet(3, 20)
    assert round(sum(value.numel() for value in network.parameters()) / 1e6, 2) == 2.06


def test_pstnets_fusion_stream_sees_thermal_colour_and_confidences() -> None:
    model = efnet.create_model("pstnet", 3).eval()
    assert isinstance(model, PSTNet)
    assert model.rgb is not None
    assert model.fusion is not None
    rgb, thermal = torch.randn(1, 3, 32, 64), torch.randn(1, 1, 32, 64)
    with torch.inference_mode():
        confidences = model.rgb(rgb).softmax(1)
        expected = model.fusion(torch.cat([thermal, rgb, confidences], dim=1))
        torch.testing.assert_close(model.score_padded(rgb, thermal.expand(-1, 3, -1, -1)), expected)


def test_eaef_is_its_equations() -> None:
    module = randomized(EAEF(32))
    rgb, thermal = maps(32), maps(32)
    weights = []
    for features, (_, narrow, _, widen) in zip((rgb, thermal), module.weigh, strict=True):
        mean = features.mean((2, 3), keepdim=True)
        weights.append(pointwise(pointwise(mean, narrow).relu(), widen))
    agreement = 1 / (1 + torch.exp(-weights[0] * weights[1]))
    complement = (1 - agreement) * rgb + (1 - agreement) * thermal
    both = torch.cat([agreement * rgb, agreement * thermal], dim=1)
    sums = []
    for spread, first_norm, _, point, second_norm in module.enhance:
        # A group of two neighbours of the concatenation per channel.
        inner = norm(F.conv2d(both, spread.weight, padding=1, groups=32), first_norm).relu()
        sums.append(norm(pointwise(inner, point), second_norm) + complement)
    logits = F.conv2d(torch.cat(sums, dim=1), module.merge.weight, module.merge.bias, padding=1)
    share = torch.sigmoid(logits[:, :1] - logits[:, 1:])
    merged = share * sums[0] + (1 - share) * sums[1]
    for ours, expected in zip(
        module(rgb, thermal), ((rgb + merged) / 2, (thermal + merged) / 2, merged), strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_eaef_hands_over_what_one_modality_alone_has() -> None:
    module = EAEF(32).double().eval()
    for weigh, sign in zip(module.weigh, (1, -1), strict=True):
        nn.init.zeros_(weigh[-1].weight)
        nn.init.constant_(weigh[-1].bias, 8.0 * sign)
    seen, dark = maps(32), torch.zeros(2, 32, 6, 7, dtype=torch.float64)
    _, of_thermal, merged = module(seen, dark)
    torch.testing.assert_close(merged, seen, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(of_thermal, seen / 2, rtol=1e-6, atol=1e-6)


def test_location_gathers_from_the_other_modality() -> None:
    module = randomized(CollaborativeLocation(5, width=3))
    rgb, thermal = maps(5, 3, 4), maps(5, 3, 4)
    queries, keys = pointwise(rgb, module.project[0]), pointwise(thermal, module.project[1])
    gathered_thermal, gathered_rgb = torch.zeros_like(rgb), torch.zeros_like(rgb)
    cells = [(row, column) for row in range(3) for column in range(4)]
    for sample in range(2):
        for one in cells:
            of_one = [queries[sample, :, *one] @ keys[sample, :, *other] / math.sqrt(3) for other in cells]
            to_one = [queries[sample, :, *other] @ keys[sample, :, *one] / math.sqrt(3) for other in cells]
            for gathered, source, logits in (
                (gathered_thermal, thermal, of_one),
                (gathered_rgb, rgb, to_one),
            ):
                total = sum(logit.exp() for logit in logits)
                gathered[sample, :, *one] = sum(
                    logit.exp() / total * source[sample, :, *cell]
                    for logit, cell in zip(logits, cells, strict=True)
                )
    both = torch.cat([rgb + gathered_thermal, thermal + gathered_rgb], dim=1)
    fused = norm(pointwise(both, module.fuse[0]), module.fuse[1]).relu()
    expected = fused * (1 + torch.sigmoid(pointwise(fused, module.locate)))
    torch.testing.assert_close(module(rgb, thermal), expected)


def test_activation_raises_where_the_other_modality_looks() -> None:
    module = randomized(ComplementaryActivation(32))
    pair = maps(32), maps(32)
    excited, regions = [], []
    for features, (narrow, _, widen), activate in zip(pair, module.excite, module.activate, strict=True):
        mean = features.mean((2, 3), keepdim=True)
        weighted = features * torch.sigmoid(pointwise(pointwise(mean, narrow).relu(), widen))
        summary = torch.stack([weighted.mean(1), weighted.max(1).values], dim=1)
        excited.append(weighted)
        regions.append(torch.sigmoid(F.conv2d(summary, activate.weight, activate.bias, padding=3)))
    expected = excited[0] + excited[0] * regions[1] + excited[1] + excited[1] * regions[0]
    torch.testing.assert_close(module(*pair), expected)


def test_sharpening_raises_edges() -> None:
    module = randomized(EdgeSharpening(4))
    rgb, thermal = maps(4), maps(4)
    both = rgb + thermal
    contrast = torch.zeros_like(both)
    for row in range(6):
        for column in range(7):
            near = both[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            contrast[:, :, row, column] = both[:, :, row, column] - near.mean((2, 3))
    views = [
        norm(F.conv2d(contrast, view[0].weight, padding=rate, dilation=rate), view[1]).relu()
        for view, rate in zip(module.views, (1, 2, 4, 6), strict=True)
    ]
    edges = torch.sigmoid(pointwise(torch.cat(views, dim=1), module.edges))
    torch.testing.assert_close(module(rgb, thermal), both * (1 + edges))
