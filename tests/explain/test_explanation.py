"""What is seen inside a network equals what its modules compute, and seeing changes nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from explain_helpers import as_tensors, make_network, make_pair

import efnet
from efnet.core.errors import InputError
from efnet.explain import Clustering, explain
from efnet.explain.explanation import recorded_calls
from efnet.models import EFNetConfig, InputSpec, SegmentationModel
from efnet.models.config import BACKBONES
from efnet.ops.clustering.dpc_knn import dpc_knn
from efnet.ops.tokens import merge_windows, split_windows

ABLATIONS = [
    {},
    {"fusion": "add"},
    {"fusion": "cat"},
    {"position": "none"},
    {"position": "pe"},
    {"tau": (1.0, 0.7, 0.3)},
    {"decoder": "mlp"},
    {"decoder": "deeplab"},
    {"modality": "rgb"},
    {"modality": "thermal"},
]


def hooks_of(network: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


@pytest.mark.parametrize("options", ABLATIONS, ids=lambda options: str(options))
def test_every_ablation_predicts_the_same_bits_and_shows_what_it_has(options):
    network = make_network(**options)
    predictor = efnet.Predictor(network, device="cpu")
    rgb, thermal = make_pair(50, 71)
    modality = network.modality
    given = (None if modality == "thermal" else rgb, None if modality == "rgb" else thermal)
    seen = explain(predictor, *given)
    expected = predictor(*given)
    np.testing.assert_array_equal(seen.prediction.index, expected.index)
    assert hooks_of(network) == 0
    assert (seen.interaction is not None) == (modality == "rgbt" and network.config.fusion == "mif")
    assert (seen.distances is not None) == (network.config.decoder == "mfad")
    missing = [seen.interaction is None, seen.distances is None, network.config.position == "none"]
    assert len(seen.absent()) == sum(missing)
    assert (seen.thermal is None) == (modality == "rgb")
    assert seen.image.shape == (50, 71, 3)
    assert seen.logits.shape == (5, 13, 18)
    for level in seen.clusterings:
        assert level.clusters.shape == level.importance.shape == (13, 18)
        assert sorted(np.unique(level.clusters)) == list(range(level.num_clusters))


@pytest.mark.parametrize("size", [(64, 96), (33, 47), (97, 130)])
def test_logits_are_those_of_the_plain_network(size):
    network = make_network()
    rgb, thermal = make_pair(*size)
    with torch.inference_mode():
        expected = network(*as_tensors(rgb, thermal))
    logits = torch.from_numpy(explain(network, rgb, thermal).logits)[None]
    resized = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    # The memory layout of an input decides which kernel runs, and so the last bits.
    torch.testing.assert_close(resized, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("position", ["none", "pe", "pce"])
def test_clusters_and_importance_equal_a_walk_through_the_stages(position):
    network = make_network(position=position)
    rgb, thermal = make_pair(61, 94)
    seen = explain(network, rgb, thermal)
    with torch.inference_mode():
        stages = [network._first_stage(*network.normalize(*as_tensors(rgb, thermal)))]
        size = stages[0].map_size
        owner = torch.arange(size[0] * size[1])  # the token of each cell, composed level by level
        rows, columns = torch.meshgrid(*(torch.arange(cells).float() for cells in size), indexing="ij")
        for place, stage in enumerate(network.token_stages):
            dbtc, level = stage.dbtc, seen.clusterings[place]
            tokens = stages[-1] if place == 0 else network.down[place - 1](stages[-2], stages[-1])
            features = dbtc.norm(dbtc.conv(tokens))
            count = -(-features.shape[1] // 4)
            importance, positions = dbtc.score(features), None
            if position != "none":
                positions = dbtc.position(tokens.grid, count)
                unit = dbtc.position.image_unit(size, count)
                importance = importance + (positions * unit) @ dbtc.score_position.weight.T
            weight = 0.0 if positions is None else 1 - network.config.tau[place]
            found = dpc_knn(features, count, positions=positions, spatial_weight=weight)
            of_cells = importance[0, owner, 0].reshape(size)
            np.testing.assert_allclose(level.importance, of_cells, rtol=1e-5, atol=1e-6)
            for center, token in zip(level.centers, found.centers[0], strict=True):
                middle = rows.flatten()[owner == token].mean(), columns.flatten()[owner == token].mean()
                np.testing.assert_allclose(center, middle, atol=1e-4)
            owner = found.assignment[0][owner]
            np.testing.assert_array_equal(level.clusters, owner.reshape(size))
            assert (level.num_tokens, level.num_clusters) == (features.shape[1], count)
            assert level.spatial_weight == pytest.approx(weight)
            stages.append(stage(tokens))


def test_fusion_equals_the_formula():
    """F' = F + s * I with I and s from the modules' own weights, written out."""
    network = make_network()
    rgb, thermal = make_pair(61, 94)
    seen = explain(network, rgb, thermal)
    mif = network.fusion
    with torch.inference_mode():
        images = network.normalize(*as_tensors(rgb, thermal))
        own = [stage(image) for stage, image in zip((network.rgb, network.thermal), images, strict=True)]
        maps = [tokens.to_map().permute(0, 2, 3, 1) for tokens in own]
        for queries, source, attention, channels, exchange in (
            (maps[0], maps[1], mif.rgb_from_thermal, mif.rgb_channels, seen.interaction.rgb),
            (maps[1], maps[0], mif.thermal_from_rgb, mif.thermal_channels, seen.interaction.thermal),
        ):
            brought = attend(attention, queries, source)
            cells = brought.flatten(1, 2)
            statistics = torch.cat([cells.mean(1), cells.amax(1), cells.var(1, correction=0)], dim=-1)
            scores = channels.mlp(statistics).sigmoid()
            np.testing.assert_allclose(exchange.weights, scores[0], rtol=1e-4)
            expected = (scores * brought).norm(dim=-1)[0]
            np.testing.assert_allclose(exchange.contribution, expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(exchange.features, queries.norm(dim=-1)[0], rtol=1e-4)


def attend(attention, queries, source):
    """Window cross-attention window by window, padded keys left out."""
    size, window = queries.shape[1:3], attention.window
    real = split_windows(torch.ones(1, *size, 1), window)[0, :, :, 0] > 0
    q = split_windows(attention.q(queries), window)[0]
    k, v = (split_windows(part, window)[0] for part in attention.kv(source).chunk(2, dim=-1))
    width = q.shape[-1] // attention.heads
    rows = []
    for number in range(len(q)):
        heads = []
        for head in range(attention.heads):
            part = slice(head * width, (head + 1) * width)
            keys, values = k[number][real[number], part], v[number][real[number], part]
            heads.append((q[number][:, part] @ keys.T / width**0.5).softmax(-1) @ values)
        rows.append(torch.cat(heads, dim=-1))
    return attention.proj(merge_windows(torch.stack(rows)[None], window, tuple(size)))


def test_distances_equal_those_of_the_concatenated_map():
    """Equations 6 and 7 as they stand: the concatenation that MFAD never builds."""
    network = make_network()
    rgb, thermal = make_pair(61, 94)
    seen = explain(network, rgb, thermal)
    with torch.inference_mode():
        images = network.normalize(*as_tensors(rgb, thermal))
        stages = network.stages(*images)
        concatenated = torch.cat([stage.features[0][stage.assignment[0]] for stage in stages], dim=-1)
        distances = torch.cdist(concatenated.double(), network.decoder.class_tokens.double())
    expected = distances.T.reshape(5, *stages[0].grid.size)
    np.testing.assert_allclose(seen.distances, expected, rtol=1e-5)
    np.testing.assert_array_equal(seen.cell_classes, expected.argmin(0))
    np.testing.assert_allclose(seen.probabilities, (-expected).softmax(0), rtol=1e-3, atol=1e-6)
    best, second = np.sort(seen.probabilities, axis=0)[[-1, -2]]
    np.testing.assert_array_equal(seen.confidence, best)
    np.testing.assert_array_equal(seen.margin, best - second)


@pytest.mark.parametrize("name", ["efnet_light", "efnet_base"])
def test_larger_presets(name):
    seen = explain(make_network(name), *make_pair(48, 64))
    assert seen.interaction.rgb.weights.shape == (64,)
    assert [level.num_clusters for level in seen.clusterings] == [48, 12, 3]


def test_the_size_of_the_network_and_the_smallest_image():
    network = make_network()
    network.input = InputSpec(size=(40, 56))
    seen = explain(network, *make_pair(64, 90))
    assert seen.network_size == (40, 56)
    assert seen.logits.shape[1:] == (10, 14)
    assert seen.prediction.index.shape == seen.image.shape[:2] == (64, 90)
    network.input = InputSpec()
    assert explain(network, *make_pair(32, 32)).clusterings[2].num_clusters == 1


def test_real_pairs(samples):
    """A night of MFNet at full size: on the regular grid, where clustering takes its fast ways."""
    name = (samples / "mfnet" / "test_night.txt").read_text().split()[0]
    predictor = efnet.Predictor(make_network(num_classes=9), device="cpu")
    file = samples / "mfnet" / "images" / f"{name}.png"
    seen = explain(predictor, file)
    np.testing.assert_array_equal(seen.prediction.index, predictor(file).index)
    assert [level.num_clusters for level in seen.clusterings] == [4800, 1200, 300]
    for level in seen.clusterings:
        assert len(np.unique(level.clusters)) == level.num_clusters
        # A centre belongs to its own cluster; only a scattered token's mean may lie in another one.
        rows, columns = np.rint(level.centers).astype(int).T
        own = level.clusters[rows, columns] == np.arange(level.num_clusters)
        assert own.mean() > 0.7
    assert (
        seen.clusterings[0].clusters[tuple(np.rint(seen.clusterings[0].centers).astype(int).T)]
        == np.arange(4800)
    ).all()


def test_bfloat16_sees_what_bfloat16_predicts():
    predictor = efnet.Predictor(make_network(), device="cpu", precision="bf16")
    pair = make_pair()
    seen = explain(predictor, *pair)
    np.testing.assert_array_equal(seen.prediction.index, predictor(*pair).index)
    assert seen.interaction.rgb.weights.dtype == np.float32


def test_hooks_go_away_when_the_pass_fails():
    network = make_network()
    rgb, thermal = as_tensors(*make_pair())
    with pytest.raises(ValueError, match="differ"), recorded_calls({"decoder": network.decoder}):
        network(rgb, thermal[..., 1:])
    assert hooks_of(network) == 0


def test_a_network_of_another_kind_is_refused():
    class Flat(SegmentationModel):
        """Every pixel alike."""

        architecture = "flat"

        def __init__(self) -> None:
            super().__init__(EFNetConfig(BACKBONES["tiny"], num_classes=2))
            self.scores = torch.nn.Parameter(torch.zeros(2))

        def score_cells(self, rgb, thermal):
            return self.scores[None, :, None, None].expand(len(rgb), 2, 8, 8)

    with pytest.raises(InputError, match="Flat: not an EFNet"):
        explain(Flat(), *make_pair())


def test_tokens_per_class_share_out_each_token():
    clusters = np.array([[0, 0, 1], [2, 2, 2]])
    level = Clustering(clusters, np.zeros((3, 2), np.float32), np.zeros((2, 3), np.float32), 6, 1.0, 0.0)
    classes = np.array([[0, 3, 3], [1, 1, 0]])
    tokens = level.tokens_per_class(classes, 5)
    np.testing.assert_allclose(tokens, [0.5 + 1 / 3, 2 / 3, 0, 0.5 + 1, 0])
    assert tokens.sum() == pytest.approx(level.num_clusters)
    alone = dataclasses.replace(level, clusters=np.zeros((2, 3), np.int64), centers=np.zeros((1, 2)))
    np.testing.assert_allclose(
        alone.tokens_per_class(classes, 5), np.bincount(classes.ravel(), minlength=5) / 6
    )
