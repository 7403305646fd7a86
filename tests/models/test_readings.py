"""Readings of the paper that are off by default, against literal formulas; and the DeepLab head."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import random_pair
from torch import Tensor
from torch.nn import functional as F

import efnet
from efnet.core.errors import InputError
from efnet.export.formats import Deployed, trace
from efnet.models.checkpoint import load_checkpoint
from efnet.models.dbtc import DBTC
from efnet.models.decoders import MFAD
from efnet.models.layers import Tokens
from efnet.models.position import PixelCoordinateEncoding, grid_coordinates
from efnet.ops.tokens import TokenGrid

READINGS = {"distance": "balanced", "density": "others", "unit": "image", "enlargement": "bilinear"}


def grid_tokens(size: tuple[int, int], channels: int = 6) -> Tokens:
    """One sample of the grid's cells."""
    grid = TokenGrid.whole(1, size, torch.device("cpu"))
    return Tokens(torch.randn(1, grid.num_tokens, channels), grid, size)


def literal(
    features: Tensor, places: Tensor, tau: float, k: int, count: int, balanced: bool, others: bool
) -> tuple[Tensor, Tensor]:
    """Equations 1 to 3 of one sample in float64: scores (N,) and assignment (N,) to the centres."""
    features, places = features.double(), places.double()
    semantic = torch.cdist(features, features) / math.sqrt(features.shape[1])
    spatial = torch.cdist(places, places)
    distance = (tau if balanced else 1) * semantic + (1 - tau) * spatial
    tokens = len(features)
    if others:
        apart = distance.clone().fill_diagonal_(torch.inf)
        k = min(k, tokens - 1)
    else:
        apart, k = distance, min(k, tokens)
    square = apart.topk(k, largest=False).values.square().mean(1)
    density = (-square).exp()
    separation = torch.stack(
        [
            distance[i, square < square[i]].min() if (square < square[i]).any() else distance[i].max()
            for i in range(tokens)
        ]
    )
    score = density * separation
    score[square.argmin()] = torch.inf
    centers = score.topk(count).indices.sort().values
    return centers, distance[:, centers].argmin(1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    tau=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    balanced=st.booleans(),
    others=st.booleans(),
    size=st.sampled_from([(8, 8), (5, 9), (3, 2), (2, 2)]),
)
def test_clusters_are_those_of_the_literal_equations(
    seed: int, tau: float, balanced: bool, others: bool, size: tuple[int, int]
) -> None:
    torch.manual_seed(seed)
    tokens = grid_tokens(size)
    dbtc = DBTC(
        6, 6, 5, 0.25, "pce", tau,
        distance="balanced" if balanced else "additive", density="others" if others else "itself",
    )  # fmt: skip
    count = math.ceil(size[0] * size[1] / 4)
    with torch.no_grad():
        assert dbtc.position is not None
        places = dbtc.position(tokens.grid, count)
        found = dbtc.clusters(tokens)
    centers, assignment = literal(tokens.features[0], places[0], tau, 5, count, balanced, others)
    if tau == 0:  # distances of a regular grid tie: which of equal ones is taken is not in the equations
        assert len(found.centers[0]) == count
        return
    assert found.centers[0].tolist() == centers.tolist()
    assert found.assignment[0].tolist() == assignment.tolist()


def test_density_without_the_token_itself_is_another_one() -> None:
    """So the test above can fail: on some scenes the two readings differ."""
    differing = 0
    for seed in range(5):
        torch.manual_seed(seed)
        tokens, found = grid_tokens((8, 8)), []
        for density in ("itself", "others"):
            dbtc = DBTC(6, 6, 5, 0.25, "pce", 0.5, density=density)
            found.append(dbtc.clusters(tokens).centers)
        differing += not torch.equal(*found)
    assert differing


@pytest.mark.parametrize("size", [(6, 10), (9, 4)])
def test_positions_in_units_of_the_image(size: tuple[int, int]) -> None:
    tokens = grid_tokens(size)
    encoding = PixelCoordinateEncoding("image")
    places = encoding(tokens.grid, num_clusters=7)
    cells = grid_coordinates(size, torch.device("cpu")).flatten(2)[0].T
    torch.testing.assert_close(places[0], cells / max(size))
    assert encoding.image_unit(size, 7) == 1
    pitched = PixelCoordinateEncoding()
    factor = pitched.image_unit(size, 7)
    torch.testing.assert_close(places, pitched(tokens.grid, 7) * factor)


def test_bilinear_enlargement_in_equation_6() -> None:
    """Each stage's map, enlarged, concatenated, then the distance to every class token."""
    first = grid_tokens((8, 12), 4)
    merged = first.grid.merged(torch.randint(0, 24, (1, 96)), 24)
    stages = [first, Tokens(torch.randn(1, 24, 6), merged, (4, 6))]
    decoder = MFAD((4, 6), 5, "bilinear")
    maps = [F.interpolate(stage.to_map(), (8, 12), mode="bilinear", align_corners=False) for stage in stages]
    cells = torch.cat(maps, 1).flatten(2).transpose(1, 2)
    distance = (cells[:, :, None] - decoder.class_tokens).square().sum(-1).sqrt()
    expected = -distance.transpose(1, 2).reshape(1, 5, 8, 12)
    torch.testing.assert_close(decoder(stages), expected, rtol=1e-4, atol=1e-4)
    plain = MFAD((4, 6), 5)
    plain.load_state_dict(decoder.state_dict())
    assert not torch.allclose(plain(stages), expected, atol=1e-2)


def test_readings_are_off_and_recorded(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = efnet.create_model("efnet_tiny", 4).eval()
    other = efnet.create_model("efnet_tiny", 4, **READINGS).eval()
    other.load_state_dict(model.state_dict())
    pair = random_pair(64, 96)
    with torch.inference_mode():
        assert not torch.equal(model(*pair), other(*pair))
    other.save_pretrained(tmp_path)
    again = load_checkpoint(tmp_path)
    assert again.config == other.config
    with torch.inference_mode():
        assert torch.equal(again(*pair), other(*pair))
    # Checkpoints from before these options came load with the paper's readings.
    values = json.loads((tmp_path / "config.json").read_text())
    for name in READINGS:
        del values["config"][name]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert load_checkpoint(tmp_path).config == model.config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"enlargement": "bilinear", "decoder": "mlp"},
            "enlargement bilinear needs decoder mfad, got decoder mlp",
        ),
        ({"unit": "image", "position": "pe"}, "unit image needs position pce, got position pe"),
        (
            {"distance": "balanced", "merging": "pool"},
            "distance balanced needs merging dbtc, got",
        ),
        ({"density": "both"}, "density must be one of itself, others"),
    ],
)
def test_readings_without_effect_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        efnet.create_model("efnet_tiny", **options)


@pytest.mark.slow
def test_an_exported_program_of_the_readings_serves_every_size() -> None:
    model = efnet.create_model("efnet_tiny", 3, **READINGS).eval()
    program = trace(Deployed(model, "float", "logits")).module(check_guards=False)
    for pair in (random_pair(64, 96, 2), random_pair(50, 70)):
        with torch.inference_mode():
            torch.testing.assert_close(program(*pair), model(*pair), rtol=1e-3, atol=1e-3)


def test_deeplab_checkpoints_of_earlier_versions_are_refused(tmp_path: Path) -> None:
    model = efnet.create_model("efnet_tiny", 3, decoder="deeplab").eval()
    model.save_pretrained(tmp_path)
    pair = random_pair(32, 64)
    with torch.inference_mode():
        assert torch.equal(load_checkpoint(tmp_path)(*pair), model(*pair))
    values = json.loads((tmp_path / "config.json").read_text())
    del values["head"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"dense DeepLab head of earlier versions.*train it again"):
        load_checkpoint(tmp_path)


def test_the_deeplab_head_trains_on_a_single_pair() -> None:
    """Its image pooling has one value per channel, of which a batch normalisation has no variance."""
    model = efnet.create_model("efnet_tiny", 3, decoder="deeplab").train()
    logits = model(*random_pair(64, 64))
    logits.sum().backward()
    assert model.decoder.context[0].weight.grad.isfinite().all()
