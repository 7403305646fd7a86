"""CMX and SegFormer: their sizes, and their parts against the equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import efnet
from efnet.core.errors import InputError
from efnet.models.baselines.cmx import ChannelEmbedding, CrossAttention, FeatureRectification
from efnet.models.baselines.segformer import SegFormerDecoder
from efnet.models.complexity import measure


@pytest.mark.parametrize("size", ["b0", "b2"])
def test_a_fourth_channel_costs_one_filter_plane(size: str) -> None:
    both, rgb = (measure(f"segformer_{size}", 9, (480, 640), modality=kind) for kind in ("rgbt", "rgb"))
    width = {"b0": 32, "b2": 64}[size]
    assert both.parameters - rgb.parameters == 49 * width
    assert both.layers - rgb.layers == 49 * width * 120 * 160


@pytest.mark.parametrize("name", ["cmx_b0", "cmnext_b2", "mfnet", "tuni_t"])
def test_one_camera_is_refused_where_the_authors_have_two(name: str) -> None:
    with pytest.raises(InputError, match=f"`modality` thermal: {name} exists for rgbt;.*segformer"):
        efnet.create_model(name, 9, modality="thermal")


def test_cmxs_slip_of_stochastic_depth() -> None:
    """In stage 2 each branch has one chance for all blocks: of the first block, and of the second."""
    with torch.device("meta"):
        model = efnet.create_model("cmx_b2", 9)
    chances = {
        side: [block.drop_path.chance for stage in encoder.stages for block in stage.blocks]
        for side, encoder in (("rgb", model.rgb), ("thermal", model.thermal))
    }
    line = [0.1 * index / 15 for index in range(16)]
    for side, index in (("rgb", 3), ("thermal", 4)):
        assert chances[side] == pytest.approx([*line[:3], *4 * [line[index]], *line[7:]])


def test_epsilons_that_rounding_hides() -> None:
    with torch.device("meta"):
        cmx, cmnext = (efnet.create_model(name, 9) for name in ("cmx_b2", "cmnext_b2"))
    for mit, inner in ((cmx.rgb, 1e-6), (cmx.thermal, 1e-6), (cmnext.rgb, 1e-5)):
        for stage in mit.stages:
            assert stage.patch_embed.norm.eps == 1e-5
            assert stage.norm.eps == inner
            for block in stage.blocks:
                assert {block.norm1.eps, block.norm2.eps} == {inner}
                assert block.attn.reduction == 1 or block.attn.norm.eps == 1e-5


def test_rectification_is_the_papers() -> None:
    """Section III-B, channel by channel and cell by cell."""
    module = FeatureRectification(6).double()
    rgb, thermal = torch.randn(2, 2, 6, 3, 5, dtype=torch.float64)
    statistics = torch.stack([rgb.mean((2, 3)), thermal.mean((2, 3)), rgb.amax((2, 3)), thermal.amax((2, 3))])
    hidden, _, last = module.channel_weights["mlp"]
    by_channel = torch.sigmoid(last(torch.relu(hidden(torch.cat(tuple(statistics), 1)))))
    first, _, second = module.spatial_weights["mlp"]
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
    """Section III-C, one head at a time: U = X_inter softmax(K^T V) of the other modality.

    The embedding passes a ReLU, which is in the code alone.
    """
    width, heads = 8, 2
    module = CrossAttention(width, heads).double()
    features = torch.randn(2, 2, 7, width, dtype=torch.float64)
    residual, interactive, context = [], [], []
    for index, part in enumerate(features, 1):
        embedded = module.get_submodule(f"channel_proj{index}")(part).relu()
        kv = module.cross_attn.get_submodule(f"kv{index}")
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
        joined = module.get_submodule(f"end_proj{own + 1}")(torch.cat([residual[own], read], -1))
        layer = module.get_submodule(f"norm{own + 1}")
        expected = F.layer_norm(features[own] + joined, (width,), layer.weight, layer.bias)
        torch.testing.assert_close(module(*features)[own], expected)


def test_mixing_looks_one_cell_around_and_skips() -> None:
    module = ChannelEmbedding(16).double().eval()
    both = torch.randn(1, 32, 5, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(both)[0, :, 2, 2].square().sum(), both)
    seen = gradient[0].abs().sum(0) > 0
    assert seen.nonzero().tolist() == [[row, column] for row in (1, 2, 3) for column in (1, 2, 3)]
    with torch.no_grad():
        module.channel_embed[-1].weight.zero_()
        left = module(both)
        skipped = torch.einsum("oc,bchw->bohw", module.residual.weight[:, :, 0, 0], both)
    torch.testing.assert_close(left, skipped / (1 + module.norm.eps) ** 0.5)


def test_decoder_is_equation_4_coarsest_first() -> None:
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
    fused = torch.einsum("oc,bchw->bohw", convolution.weight[:, :, 0, 0], torch.cat(parts[::-1], 1))
    fused = torch.relu(fused / (1 + norm.eps) ** 0.5)
    expected = torch.einsum("oc,bchw->bohw", decoder.classify.weight[:, :, 0, 0], fused)
    torch.testing.assert_close(decoder(maps), expected + decoder.classify.bias[:, None, None])
