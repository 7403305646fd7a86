"""Tiles: weights, seams, and what a network that looks at single pixels gives through them."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prediction_helpers import make_model, make_pair, write_pair
from torch import Tensor

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import Prepared
from efnet.inference.stream import run_in_memory
from efnet.inference.tiles import Axis, Tiling, tiled_logits


def pair_of(seed: int, height: int, width: int) -> Prepared:
    rgb, thermal = make_pair(seed, height, width)
    return Prepared(rgb, thermal.astype(np.float32) / 255, (height, width), rgb)


def pixelwise(pairs) -> Tensor:
    """A network that knows nothing of a pixel's surroundings: three classes out of four channels."""
    rgb = torch.from_numpy(np.stack([pair.rgb for pair in pairs])).permute(0, 3, 1, 2).float() / 255
    heat = torch.from_numpy(np.stack([pair.thermal for pair in pairs]))[:, None]
    both = torch.cat([rgb, heat], dim=1)
    return torch.stack([both.sin().sum(1), both.square().sum(1), both.prod(1) * 7], dim=1)


@given(st.integers(1, 400), st.integers(32, 130), st.integers(0, 65))
def test_weights_sum_to_one_and_tiles_cover_the_axis(length, tile, overlap):
    overlap = min(overlap, tile // 2)
    axis = Axis.cut(length, tile, overlap)
    total = np.zeros(length)
    for start, weight in zip(axis.starts, axis.weights, strict=True):
        assert start >= 0
        assert start + axis.tile <= length
        total[start : start + axis.tile] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert axis.length == length
    assert axis.tile == min(length, tile)
    assert (axis.weights >= 0).all()
    assert all(
        before + tile - after >= overlap for before, after in zip(axis.starts, axis.starts[1:], strict=False)
    )


@given(st.integers(64, 200), st.integers(2, 32))
def test_weights_fade_towards_seams(length, overlap):
    axis = Axis.cut(length, 64, overlap)
    if len(axis.starts) > 1:
        assert axis.weights[0, 0] == 1
        assert axis.weights[-1, -1] == 1
        assert axis.weights[0, -1] <= 1 / overlap + 1e-6, "where a tile ends it counts least"
        assert axis.weights[1, 0] <= 1 / overlap + 1e-6


@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [((150, 201), (64, 64), 16), ((97, 64), (32, 50), 0), ((40, 300), (96, 96), 48), ((33, 33), (64, 64), 8)],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_pixelwise_network_gives_the_same_bits(size, tile, overlap, batch_size):
    pair = pair_of(1, *size)
    parts = list(tiled_logits(pair, Tiling(tile, overlap), pixelwise, batch_size))
    assert torch.equal(torch.cat(parts, dim=1), pixelwise([pair])[0])


def test_every_tile_has_one_size_and_batches_are_bounded():
    seen = []

    def network(pairs):
        seen.append([pair.network_size for pair in pairs])
        return pixelwise(pairs)

    list(tiled_logits(pair_of(1, 100, 180), Tiling((48, 64), 16), network, 2))
    assert {size for sizes in seen for size in sizes} == {(48, 64)}
    assert max(map(len, seen)) == 2


def test_seams_are_continuous():
    """The worst case, a level for each tile: nowhere may the result jump by more than the ramp's steps."""
    level = iter(range(100))

    def network(pairs):
        return torch.stack([torch.full((1, *pair.network_size), float(next(level) % 2)) for pair in pairs])

    tiling = Tiling((64, 64), 32)
    result = torch.cat(list(tiled_logits(pair_of(1, 160, 200), tiling, network, 1)), dim=1)[0]
    steps = max(result.diff(dim=0).abs().max().item(), result.diff(dim=1).abs().max().item())
    assert 0 < steps <= 2 / 32
    assert result.min() >= 0
    assert result.max() <= 1


class TestPredictor:
    @pytest.fixture
    def tiled(self):
        predictor = Predictor(make_model(), device="cpu")
        predictor.tiling = Tiling((64, 64), 32)
        return predictor

    def test_an_image_that_fits_one_tile_is_as_without(self, tiled, predictor):
        rgb, thermal = make_pair(3)
        np.testing.assert_array_equal(tiled(rgb, thermal).index, predictor(rgb, thermal).index)

    def test_sizes_and_probabilities(self, tiled):
        rgb, thermal = make_pair(3, 100, 150)
        prediction = tiled(rgb, thermal, probabilities=True)
        assert prediction.index.shape == (100, 150)
        assert prediction.probabilities.shape == (9, 100, 150)
        np.testing.assert_allclose(prediction.probabilities.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_array_equal(prediction.probabilities.argmax(axis=0), prediction.index)

    def test_a_model_with_a_size_sees_the_image_at_its_own(self):
        model = make_model()
        model.input = type(model.input)(size=(32, 48))
        predictor = Predictor(model, device="cpu")
        rgb, thermal = make_pair(3, 96, 144)
        assert predictor.prepare(rgb, thermal).network_size == (32, 48)
        predictor.tiling = Tiling((64, 64), 0)
        assert predictor.prepare(rgb, thermal).network_size == (96, 144)

    def test_lack_of_memory_suggests_tiles(self, predictor, monkeypatch):
        """What PyTorch raises on the CPU, raised by PyTorch: by asking it for more than there is."""
        rgb, thermal = make_pair(3)
        prepared = predictor.prepare(rgb, thermal)
        monkeypatch.setattr(predictor, "model", lambda rgb, thermal: torch.empty(1 << 50))
        with pytest.raises(InputError, match=r"64x48 exceeds the memory of cpu; cut it into tiles: `tile`"):
            run_in_memory(predictor, [prepared], False)
        with pytest.raises(InputError, match=r"2 images at once exceed.* smaller `batch_size`"):
            run_in_memory(predictor, [prepared, prepared], False)


class TestCommand:
    @pytest.fixture
    def command(self, checkpoint, tmp_path):
        write_pair(tmp_path, "big", 4, height=96, width=130)

        def run(*more: str) -> int:
            images = [f"--rgb={tmp_path}/rgb", f"--thermal={tmp_path}/thermal", f"--out={tmp_path}/out"]
            return main(["predict", f"--checkpoint={checkpoint}", "--device=cpu", *images, *more])

        return run

    def test_says_that_tiles_were_used(self, command, tmp_path, capsys):
        assert command("--tile=64x64", "--overlap=16") == 0
        assert "in tiles of 64x64 that share 16 pixels" in capsys.readouterr().out
        head = json.loads((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[0])
        assert head["settings"]["tile"] == [64, 64, 16]
        assert command() == 2, "results of tiles and of whole images are not mixed"
        assert "other settings" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--tile=64"], "--tile 64: give height x width"),
            (["--tile=16x64"], "--tile 16x64: .* at least 32"),
            (["--tile=64x64", "--overlap=33"], "overlap 33: give 0 to 32"),
            (["--overlap=8"], "give --tile too"),
        ],
    )
    def test_bad_options(self, command, options, message, capsys):
        assert command(*options) == 2
        assert re.search(message, capsys.readouterr().err)
