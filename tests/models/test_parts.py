"""Decoders, fusion, positions and clustering against the equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from efnet.models.dbtc import DBTC, halve
from efnet.models.decoders import MFAD
from efnet.models.fusion import MIF, ChannelAttention, WindowCrossAttention
from efnet.models.layers import DropPath, Tokens
from efnet.models.position import PixelCoordinateEncoding, grid_coordinates, pitch
from efnet.models.stages import AveragePooling
from efnet.ops.tokens import TokenGrid

WIDTHS = (4, 6, 8, 10)


def stages(size: tuple[int, int] = (6, 8), batch: int = 2) -> list[Tokens]:
    """Four stages of tokens, each a random grouping of the one before."""
    grid = TokenGrid.whole(batch, size, torch.device("cpu"))
    made = [Tokens(torch.randn(batch, grid.num_tokens, WIDTHS[0]), grid, size)]
    for width in WIDTHS[1:]:
        count = math.ceil(grid.num_tokens / 4)
        clusters = torch.stack([torch.randperm(grid.num_tokens).remainder(count) for _ in range(batch)])
        grid = grid.merged(clusters, count)
        made.append(Tokens(torch.randn(batch, count, width), grid, halve(made[-1].map_size)))
    return made


def literal_mfad(parts: list[Tokens], class_tokens: Tensor) -> Tensor:
    """Equations 6 and 7 as written: concatenate at every cell, then the distance to every class token."""
    cells = torch.cat(
        [
            part.features.gather(1, part.assignment[..., None].expand(-1, -1, part.features.shape[-1]))
            for part in parts
        ],
        dim=-1,
    )
    distance = (cells[:, :, None] - class_tokens).square().sum(-1).sqrt()
    return -distance.transpose(1, 2).unflatten(2, parts[0].grid.size)


def test_mfad_equals_the_literal_formula() -> None:
    parts = stages()
    decoder = MFAD(WIDTHS, num_classes=5)
    torch.testing.assert_close(
        decoder(parts), literal_mfad(parts, decoder.class_tokens), rtol=1e-4, atol=1e-4
    )


def test_mfad_gradients_equal_the_literal_formula() -> None:
    parts = stages()
    decoder = MFAD(WIDTHS, num_classes=5)
    weights = torch.randn(2, 5, 6, 8)
    (ours,) = torch.autograd.grad((decoder(parts) * weights).sum(), decoder.class_tokens)
    literal = (literal_mfad(parts, decoder.class_tokens) * weights).sum()
    (expected,) = torch.autograd.grad(literal, decoder.class_tokens)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_mfad_at_a_class_token() -> None:
    """A feature that is a class token is nearest to it, and the slope there is finite."""
    parts = stages()
    decoder = MFAD(WIDTHS, num_classes=3)
    same = [
        part.with_features(token.expand_as(part.features).clone().requires_grad_())
        for part, token in zip(
            parts, torch.split(decoder.class_tokens.detach()[1], list(WIDTHS)), strict=True
        )
    ]
    logits = decoder(same)
    assert (logits.argmax(1) == 1).all()
    logits.sum().backward()
    assert all(part.features.grad.isfinite().all() for part in same)


def test_mfad_distances_are_float32_under_autocast() -> None:
    parts = stages()
    decoder = MFAD(WIDTHS, num_classes=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = decoder(parts)
    assert torch.equal(inside, decoder(parts))


def naive_window_attention(attention: WindowCrossAttention, queries: Tensor, source: Tensor) -> Tensor:
    """One window, one head at a time, over real cells only."""
    _, height, width, channels = queries.shape
    q, (k, v) = attention.q(queries), attention.kv(source).chunk(2, dim=-1)
    head = channels // attention.heads
    out = torch.zeros_like(queries)
    for top in range(0, height, attention.window):
        for left in range(0, width, attention.window):
            here = (slice(None), slice(top, top + attention.window), slice(left, left + attention.window))
            for start in range(0, channels, head):
                part = slice(start, start + head)
                qs, ks, vs = (x[here][..., part].flatten(1, 2) for x in (q, k, v))
                weights = (qs @ ks.transpose(1, 2) / math.sqrt(head)).softmax(-1)
                shape = out[here][..., part].shape
                out[here][..., part] = (weights @ vs).view(shape)
    return attention.proj(out)


@pytest.mark.parametrize("size", [(8, 16), (7, 13), (3, 3)])
def test_window_attention_sees_its_window_alone(size: tuple[int, int]) -> None:
    attention = WindowCrossAttention(64)
    queries, source = torch.randn(2, *size, 64), torch.randn(2, *size, 64)
    with torch.no_grad():
        expected = naive_window_attention(attention, queries, source)
        torch.testing.assert_close(attention(queries, source), expected, rtol=1e-4, atol=1e-5)


def test_channel_attention_uses_mean_maximum_and_variance() -> None:
    scores = ChannelAttention(4)
    features = torch.randn(2, 3, 5, 4)
    cells = features.flatten(1, 2)
    statistics = torch.cat([cells.mean(1), cells.max(1).values, cells.var(1, correction=0)], dim=-1)
    torch.testing.assert_close(scores(features).squeeze(), scores.mlp(statistics).sigmoid())


def test_mif_is_the_sum_of_both_reweighted_residuals() -> None:
    mif = MIF(32)
    rgb, thermal = torch.randn(2, 8, 8, 32), torch.randn(2, 8, 8, 32)
    to_rgb, to_thermal = mif.rgb_from_thermal(rgb, thermal), mif.thermal_from_rgb(thermal, rgb)
    expected = (
        rgb + mif.rgb_channels(to_rgb) * to_rgb + thermal + mif.thermal_channels(to_thermal) * to_thermal
    )
    torch.testing.assert_close(mif(rgb, thermal), expected)


def test_pce_starts_as_distance_in_cluster_pitches() -> None:
    grid = TokenGrid.whole(1, (12, 16), torch.device("cpu"))
    positions = PixelCoordinateEncoding()(grid, num_clusters=48)
    assert pitch((12, 16), 48) == 2
    # Cells (0, 0) and (3, 4) are five cells, so 2.5 pitches apart.
    distance = (positions[0, 0] - positions[0, 3 * 16 + 4]).norm()
    assert float(distance.detach()) == pytest.approx(2.5)
    torch.testing.assert_close(positions.mean(1), torch.zeros(1, 2))


def test_pce_of_merged_tokens_is_the_mean_of_their_cells() -> None:
    grid = TokenGrid(torch.tensor([[0, 0, 1, 1, 1, 0]]), 2, (2, 3))
    cells = grid_coordinates((2, 3), torch.device("cpu")).flatten(2)[0].T
    positions = PixelCoordinateEncoding()(grid, num_clusters=6)
    torch.testing.assert_close(positions[0, 0], cells[[0, 1, 5]].mean(0))
    torch.testing.assert_close(positions[0, 1], cells[[2, 3, 4]].mean(0))


def grid_tokens(size: tuple[int, int] = (8, 8), batch: int = 1) -> Tokens:
    grid = TokenGrid.whole(batch, size, torch.device("cpu"))
    return Tokens(torch.randn(batch, grid.num_tokens, 8), grid, size)


def cluster_radius(tau: float) -> float:
    """Mean distance of cells from the middle of their cluster, in cells."""
    torch.manual_seed(0)
    dbtc = DBTC(8, 8, neighbors=5, keep=0.25, position="pce", tau=tau)
    merged, _, _ = dbtc(grid_tokens((16, 16)))
    cells = grid_coordinates((16, 16), torch.device("cpu")).flatten(2)[0].T
    groups = [cells[merged.assignment[0] == token] for token in range(64)]
    return float(torch.cat([(group - group.mean(0)).norm(dim=1) for group in groups]).mean())


def test_tau_decides_between_meaning_and_place() -> None:
    """The more the place counts (small tau), the tighter are the clusters."""
    radii = [cluster_radius(tau) for tau in (0.0, 0.5, 1.0)]
    assert radii[0] < radii[1] < radii[2]
    assert radii[0] < 0.5 * radii[2]


def test_position_learns_through_the_importance() -> None:
    dbtc = DBTC(8, 12, neighbors=5, keep=0.25, position="pce", tau=0.5)
    dbtc.reset_position_score()
    assert torch.equal(dbtc.score_position.weight, torch.zeros(1, 2))
    merged, source, _ = dbtc(grid_tokens())
    merged.features.square().sum().backward()
    assert dbtc.score_position.weight.grad.abs().sum() > 0
    with torch.no_grad():
        dbtc.score_position.weight.fill_(0.5)
    merged, source, importance = dbtc(grid_tokens())
    (merged.features.square().sum() + importance.sum() + source.features.sum()).backward()
    assert dbtc.position.map.weight.grad.abs().sum() > 0


def test_importance_biases_attention() -> None:
    """Equation 5: keys of high importance win, whatever the features say."""
    from efnet.models.layers import Attention

    attention = Attention(8, heads=2, reduction=1)
    queries, source = grid_tokens((2, 2)), grid_tokens((4, 4))
    importance = torch.full((1, 16, 1), -50.0)
    importance[0, 7] = 50.0
    with torch.no_grad():
        _, value = attention.kv(source.features[:, 7]).chunk(2, dim=-1)
        expected = attention.proj(value).expand(1, 4, 8)
        torch.testing.assert_close(attention(queries, source, importance), expected, rtol=1e-4, atol=1e-5)


def test_attention_equals_plain_softmax() -> None:
    from efnet.models.layers import Attention

    attention = Attention(8, heads=2, reduction=2)
    tokens = grid_tokens((4, 6), batch=2)
    importance = torch.randn(2, 24, 1)
    with torch.no_grad():
        maps = tokens.to_map()
        keys = attention.norm(attention.sr(maps).flatten(2).transpose(1, 2))
        bias = F.avg_pool2d(importance.transpose(1, 2).unflatten(2, (4, 6)), 2).flatten(2)[:, None]
        q = attention.q(tokens.features).unflatten(-1, (2, 4)).transpose(1, 2)
        k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in attention.kv(keys).chunk(2, dim=-1))
        weights = (q @ k.transpose(-2, -1) / 2 + bias).softmax(-1)
        expected = attention.proj((weights @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(attention(tokens, tokens, importance), expected, rtol=1e-4, atol=1e-5)


def test_drop_path_keeps_the_mean() -> None:
    drop = DropPath(0.25).train()
    kept = drop(torch.ones(4000, 1, 1))
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 4 / 3]))
    assert float(kept.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(torch.ones(3, 1, 1)), torch.ones(3, 1, 1))


@pytest.mark.parametrize("regular", [True, False], ids=["grid", "tokens"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunks_of_a_hidden_layer_add_up_to_it(
    regular: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inference computes the feed-forward part by chunks, training as a whole."""
    from efnet.models import layers

    monkeypatch.setattr(layers, "CHUNK", 12)  # does not divide the hidden width
    part = stages(batch=2)[0 if regular else 1]
    mlp = layers.MLP(part.features.shape[2], ratio=8, skip=not regular).to(dtype)
    part = part.with_features(part.features.to(dtype))
    with torch.no_grad():
        chunked = mlp(part)
    torch.testing.assert_close(chunked, mlp(part).detach(), rtol=1e-5, atol=1e-6)


def test_chunks_in_half_precision_add_up_to_the_hidden_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are larger there; parts are summed in float32."""
    from efnet.models import layers

    part = stages(batch=2)[1]
    mlp = layers.MLP(part.features.shape[2], ratio=8, skip=True).bfloat16()
    expected = mlp.float()(part.with_features(part.features.bfloat16().float())).detach()
    mlp.bfloat16()
    for chunk in (12, 512):
        monkeypatch.setattr(layers, "HALF_CHUNK", chunk)
        with torch.no_grad():
            found = mlp(part.with_features(part.features.bfloat16()))
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02 * float(expected.std()))


def test_a_map_of_the_grid_has_a_layout_that_convolutions_know() -> None:
    """Of one sample too: else a convolution copies the map before and after."""
    for batch in (1, 2):
        grid = TokenGrid.whole(batch, (6, 8), torch.device("cpu"))
        features = Tokens(torch.randn(batch, 48, 16), grid, (6, 8)).to_map()
        convolved = F.conv2d(features, torch.randn(16, 1, 3, 3), padding=1, groups=16)
        assert features.stride() == convolved.stride() == (768, 1, 128, 16)


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 4)])
def test_pooling_is_the_mean_of_blocks(size: tuple[int, int]) -> None:
    """As average pooling that leaves out what lies beyond the border; twice, so that merged tokens merge."""
    pooling, again = AveragePooling(4, 6), AveragePooling(6, 8)
    grid = TokenGrid.whole(2, size, torch.device("cpu"))
    tokens = Tokens(torch.randn(2, grid.num_tokens, 4), grid, size)
    merged, source, importance = pooling(tokens)
    assert importance is None
    cells = source.features.transpose(1, 2).unflatten(2, size)
    expected = F.avg_pool2d(cells, 2, ceil_mode=True, count_include_pad=False)
    assert merged.map_size == expected.shape[2:]
    torch.testing.assert_close(merged.features.transpose(1, 2).unflatten(2, merged.map_size), expected)
    torch.testing.assert_close(merged.to_map(), expected)
    twice, source, _ = again(merged)
    cells = source.features.transpose(1, 2).unflatten(2, merged.map_size)
    expected = F.avg_pool2d(cells, 2, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(twice.features.transpose(1, 2).unflatten(2, twice.map_size), expected)
