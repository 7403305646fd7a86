"""CMX and SegFormer: their sizes, and their parts against the equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import efnet
from efnet.models.baselines.cmx import ChannelMixing, CrossAttention, FeatureRectification
from efnet.models.baselines.segformer import SegFormerDecoder
from efnet.models.complexity import measure
from efnet.models.config import Modality

MODALITIES: tuple[Modality, ...] = ("rgbt", "rgb", "thermal")


@pytest.mark.parametrize(
    ("name", "modality", "parameters", "operations", "official"),
    [
        ("cmx_b0", "rgbt", 11_194_321, 15.182, (11.19, 15.2)),
        ("cmx_b2", "rgbt", 66_568_081, 77.897, (66.57, 77.9)),
        ("segformer_b0", "rgb", 3_716_457, 9.346, (3.72, 9.3)),
        ("segformer_b2", "rgb", 27_353_545, 71.757, (27.35, 71.8)),
    ],
)
def test_sizes_are_those_of_the_official_code(
    name: str, modality: Modality, parameters: int, operations: float, official: tuple[float, float]
) -> None:
    counted = measure(name, 9, (480, 640), modality=modality)
    billions = (counted.layers + counted.attention) / 1e9
    assert counted.parameters == parameters
    assert billions == pytest.approx(operations, abs=1e-3)
    assert (parameters / 1e6, billions) == (
        pytest.approx(official[0], rel=0.002),
        pytest.approx(official[1], rel=0.006),
    )


@pytest.mark.parametrize("size", ["b0", "b2"])
def test_a_fourth_channel_costs_one_filter_plane(size: str) -> None:
    both, rgb = (measure(f"segformer_{size}", 9, (480, 640), modality=kind) for kind in ("rgbt", "rgb"))
    width = {"b0": 32, "b2": 64}[size]
    assert both.parameters - rgb.parameters == 49 * width
    assert both.layers - rgb.layers == 49 * width * 120 * 160


@pytest.mark.parametrize("size", ["b0", "b2"])
def test_one_modality_leaves_one_branch_and_no_fusion(size: str) -> None:
    with torch.device("meta"):
        models = {kind: efnet.create_model(f"cmx_{size}", 9, modality=kind) for kind in MODALITIES}
    parts = {
        kind: {name.split(".")[0] for name, _ in model.named_parameters()} for kind, model in models.items()
    }
    assert parts == {
        "rgbt": {"rgb", "thermal", "rectify", "fuse", "decoder"},
        "rgb": {"rgb", "decoder"},
        "thermal": {"thermal", "decoder"},
    }


def test_rectification_is_the_papers() -> None:
    """Section III-B, channel by channel and cell by cell."""
    module = FeatureRectification(6).double()
    rgb, thermal = torch.randn(2, 2, 6, 3, 5, dtype=torch.float64)
    statistics = torch.stack([rgb.mean((2, 3)), thermal.mean((2, 3)), rgb.amax((2, 3)), thermal.amax((2, 3))])
    hidden, _, last = module.channels
    by_channel = torch.sigmoid(last(torch.relu(hidden(torch.cat(tuple(statistics), 1)))))
    first, _, second = module.cells
    both = torch.cat([rgb, thermal], 1).permute(0, 2, 3, 1)
    embedded = torch.relu(both @ first.weight[:, :, 0, 0].T + first.bias)
    by_cell = torch.sigmoid(embedded @ second.weight[:, :, 0, 0].T + second.bias)
    expected = [rgb.clone(), thermal.clone()]
    for channel in range(6):
        for own, other, image in ((0, 1, thermal), (1, 0, rgb)):
            weight = by_channel[:, 6 * other + channel, None, None] + by_cell[..., other]
            expected[own][:, channel] += 0.5 * weight * image[:, channel]
    for ours, theirs in zip(module(rgb, thermal), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_exchange_is_the_papers() -> None:
    """Section III-C, one head at a time: U = X_inter softmax(K^T V) of the other modality."""
    width, heads = 8, 2
    module = CrossAttention(width, heads).double()
    features = torch.randn(2, 2, 7, width, dtype=torch.float64)
    residual, interactive, context = [], [], []
    for part, embed, kv in zip(features, module.embed, module.kv, strict=True):
        embedded = embed(part)
        residual.append(embedded[..., :width])
        interactive.append(embedded[..., width:])
        both = kv(interactive[-1])
        contexts = []
        for head in range(heads):
            channels = slice(4 * head, 4 * head + 4)
            keys, values = both[..., :width][..., channels], both[..., width:][..., channels]
            product = torch.einsum("bnc,bnd->bcd", keys, values) / 2
            contexts.append(product.exp() / product.exp().sum(1, keepdim=True))
        context.append(contexts)
    for own, other in ((0, 1), (1, 0)):
        read = torch.cat(
            [interactive[own][..., 4 * head : 4 * head + 4] @ context[other][head] for head in range(heads)],
            dim=-1,
        )
        joined = module.proj[own](torch.cat([residual[own], read], -1))
        expected = F.layer_norm(
            features[own] + joined, (width,), module.norm[own].weight, module.norm[own].bias
        )
        torch.testing.assert_close(module(*features)[own], expected)


def test_mixing_looks_one_cell_around_and_skips() -> None:
    module = ChannelMixing(16).double().eval()
    both = torch.randn(1, 32, 5, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(both)[0, :, 2, 2].square().sum(), both)
    seen = gradient[0].abs().sum(0) > 0
    assert seen.nonzero().tolist() == [[row, column] for row in (1, 2, 3) for column in (1, 2, 3)]
    with torch.no_grad():
        module.mix[-2].weight.zero_()
        left = module(both)
        skipped = torch.einsum("oc,bchw->bohw", module.skip.weight[:, :, 0, 0], both)
    torch.testing.assert_close(left, skipped / (1 + module.norm.eps) ** 0.5)


def test_decoder_is_equation_4() -> None:
    widths, size = (3, 4, 5, 6), (6, 8)
    decoder = SegFormerDecoder(widths, 2, 7).double().eval()
    maps = [
        torch.randn(2, width, size[0] >> index, size[1] >> index, dtype=torch.float64)
        for index, width in enumerate(widths[:3])
    ]
    maps.append(torch.randn(2, 6, 1, 1, dtype=torch.float64))
    parts: list[Tensor] = []
    for linear, features in zip(decoder.linears, maps, strict=True):
        projected = torch.einsum("oc,bchw->bohw", linear.weight, features) + linear.bias[:, None, None]
        parts.append(F.interpolate(projected, size, mode="bilinear"))
    convolution, norm, _ = decoder.fuse
    fused = torch.einsum("oc,bchw->bohw", convolution.weight[:, :, 0, 0], torch.cat(parts, 1))
    fused = torch.relu(fused / (1 + norm.eps) ** 0.5)
    expected = torch.einsum("oc,bchw->bohw", decoder.classify.weight[:, :, 0, 0], fused)
    torch.testing.assert_close(decoder(maps), expected + decoder.classify.bias[:, None, None])
