"""A plain convolutional network through `efnet export`, which takes seconds, and the page about it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import efnet
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.export.export import Comparison, check_agreement, compare, export_model
from efnet.inference.runtime import load_exported
from efnet.inference.tiles import Tiling
from efnet.models.base import InputSpec, SegmentationModel
from efnet.models.registry import create_model
from efnet.scenes import render

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint, a pair, and files for any size and for one."""
    folder = tmp_path_factory.mktemp("plain")
    torch.manual_seed(0)
    network = create_model("mfnet", num_classes=4)
    network.input = InputSpec(size=(96, 128))
    network.save_pretrained(folder / "run")
    scene = render(0, (96, 128))
    Image.fromarray(scene.rgb).save(folder / "street.png")
    Image.fromarray(np.uint8(255 * scene.thermal)).save(folder / "street_th.png")
    checks = ["--check-rgb", str(folder / "street.png"), "--check-thermal", str(folder / "street_th.png")]
    words = ["export", "--checkpoint", str(folder / "run"), *checks]
    assert main([*words, "--out", str(folder / "street.onnx")]) == 0
    fixed = ["--size", "64x96", "--inputs", "uint8", "--outputs", "classes"]
    assert main([*words, "--out", str(folder / "fixed.onnx"), *fixed]) == 0
    return folder


def report(path: Path) -> dict:
    return json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))


def read(folder: Path) -> SegmentationModel:
    return efnet.Predictor.from_pretrained(folder / "run", "cpu").model


@pytest.mark.slow
def test_for_any_size(folder) -> None:
    check = report(folder / "street.onnx")["check"]
    assert check["agreement"] == 1
    assert check["source"] == "given"
    assert check["sizes"] == [[1, 96, 128], [2, 96, 128]]
    exported = load_exported(folder / "street.onnx")
    assert exported.architecture == "mfnet"
    assert exported.config == read(folder).config
    images = torch.rand(3, 3, 37, 51), torch.rand(3, 1, 37, 51)
    with torch.no_grad():
        torch.testing.assert_close(exported(*images), read(folder)(*images), atol=1e-4, rtol=1e-4)


def test_for_one_size(folder) -> None:
    about = report(folder / "fixed.onnx")
    assert about["fixed_size"] == [64, 96]
    assert about["input"]["size"] == [64, 96]
    assert about["layout"] == {"rgb": "uint8 (1, 64, 96, 3)", "thermal": "uint8 (1, 64, 96)"}
    assert about["check"]["sizes"] == [[1, 64, 96]]
    session = runtime.InferenceSession(folder / "fixed.onnx", providers=["CPUExecutionProvider"])
    assert [given.shape for given in session.get_inputs()] == [[1, 64, 96, 3], [1, 64, 96]]
    rgb, thermal = np.random.default_rng(0).integers(256, size=(2, 1, 64, 96, 3), dtype=np.uint8)
    (classes,) = session.run(None, {"rgb": rgb, "thermal": thermal[..., 0]})
    assert classes.dtype == np.uint8
    images = torch.from_numpy(rgb).permute(0, 3, 1, 2) / 255, torch.from_numpy(thermal[..., 0])[:, None] / 255
    with torch.no_grad():
        expected = read(folder)(*images).argmax(1).numpy()
    assert (classes == expected).mean() > 0.999


def test_pairs_of_a_batch_go_one_by_one_where_the_size_is_fixed(folder) -> None:
    predictor = efnet.Predictor.from_pretrained(folder / "fixed.onnx")
    pair = (folder / "street.png", folder / "street_th.png")
    both = predictor.batch([pair, pair])
    assert len(both) == 2
    for found in both:
        assert found.index.shape == (96, 128)
        assert np.array_equal(found.index, predictor(*pair).index)


def test_another_size_than_the_fixed_one_is_refused(folder) -> None:
    predictor = efnet.Predictor.from_pretrained(folder / "fixed.onnx")
    predictor.tiling = Tiling((64, 64), 16)
    with pytest.raises(
        InputError, match=r"exported for 64x96 alone, not 64x64; export it again for any size"
    ):
        predictor(folder / "street.png", folder / "street_th.png")


def test_a_file_of_another_network_does_not_pass(folder) -> None:
    torch.manual_seed(1)
    found = compare(create_model("mfnet", num_classes=4).eval(), load_exported(folder / "street.onnx"), [])
    assert isinstance(found, Comparison)
    assert found.source == "generated"
    with pytest.raises(
        InputError, match=r"street.onnx: not written: its classes agree .* use `precision` 32"
    ):
        check_agreement(folder / "street.onnx", "int8", found)


def test_blocks_of_the_page_run(folder, monkeypatch) -> None:
    """Those of docs/deploy.md, as they stand."""
    monkeypatch.chdir(folder)
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    found = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert found
    for number, block in enumerate(found, 1):
        names: dict = {}
        exec(compile(block, f"deploy.md, block {number}", "exec"), names)
        assert names["classes"].shape == (96, 128)


CONVOLUTIONAL = [
    *("eaefnet", "eaefnet50", "eaefnet_pst900", "egfnet", "feanet", "gmnet", "lasnet", "mdrnet", "pstnet"),
    *("rsfnet", "rtfnet50", "rtfnet152", "sfafma", "sgfnet"),
]
"""Networks from other papers without attention over tokens. `mfnet` is tested above."""


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_onnx_of_every_convolutional_network_agrees(name: str, tmp_path: Path) -> None:
    """On a size that needs no padding, in float32."""
    torch.manual_seed(0)
    network = create_model(name, num_classes=4).eval()
    network.input = InputSpec(size=(64, 96))
    export_model(network, tmp_path / "network.onnx", "onnx", size=(64, 96))
    exported = load_exported(tmp_path / "network.onnx")
    images = torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96)
    with torch.no_grad():
        ours, theirs = network(*images), exported(*images)
    difference = (ours - theirs).abs().max() / ours.abs().max()
    assert float(difference) < 1e-3


def test_a_network_of_false_colours_is_compared_on_grey_scenes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = create_model("mfnet")
    model.input = InputSpec((64, 96), "palette:iron")
    report = export_model(model, tmp_path / "iron.onnx", "onnx", size=(64, 96))
    assert report["check"]["source"] == "generated"
    assert load_exported(tmp_path / "iron.onnx").input.thermal_scale == "palette:iron"
