"""Static int8: what is quantised, by which ranges, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import efnet
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.export.formats import Deployed, trace, write_program
from efnet.export.quantize import check_calibration, quantize
from efnet.inference.runtime import load_exported
from efnet.models.registry import create_model
from efnet.scenes import render

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
from onnx import numpy_helper  # noqa: E402 - only where onnx is installed

SIZE = (64, 96)


def feeds(count: int) -> list[dict[str, np.ndarray]]:
    scenes = [render(seed, SIZE, "day") for seed in range(count)]
    return [
        {
            "rgb": scene.rgb.transpose(2, 0, 1)[None].astype(np.float32) / 255,
            "thermal": scene.thermal[None, None].astype(np.float32),
        }
        for scene in scenes
    ]


@pytest.fixture(scope="module")
def network() -> efnet.models.base.SegmentationModel:
    return efnet.Predictor.from_pretrained(device="cpu").model


@pytest.fixture(scope="module")
def files(tmp_path_factory, network) -> tuple[Path, Path]:
    """The weights of the package in float32 and in int8, for one size."""
    folder = tmp_path_factory.mktemp("int8")
    program = trace(Deployed(network, "float", "logits"), SIZE)
    names = (["rgb", "thermal"], "logits")
    about = {
        **network.describe(),
        "fixed_size": list(SIZE),
        "inputs": "float",
        "outputs": "logits",
    }
    write_program(program, folder / "float.onnx", "onnx", "32", names, about)
    shutil.copy(folder / "float.onnx", folder / "int8.onnx")
    quantize(folder / "int8.onnx", feeds(3))
    return folder / "float.onnx", folder / "int8.onnx"


def test_no_operator_of_the_edge_presets_is_difficult(files) -> None:
    """Their file holds operators that any runtime has."""
    used = {node.op_type for node in onnx.load(files[0]).graph.node}
    assert {"Conv", "MatMul", "Resize"} <= used
    # Accelerators lack these or run them slowly, with everything that scatters.
    assert not used & {"Loop", "If", "Scan", "NonZero", "TopK", "Unique"}
    assert not any("Scatter" in name for name in used)


def test_every_convolution_and_linear_layer_is_in_integers(files) -> None:
    before, after = (onnx.load(path).graph for path in files)
    dequantized = {node.output[0]: node for node in after.node if node.op_type == "DequantizeLinear"}
    stored = {weight.name: weight for weight in after.initializer}
    quantized = {node.output[0] for node in after.node if node.op_type == "QuantizeLinear"}
    convolutions = [node for node in after.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in before.node)
    for node in convolutions:
        assert dequantized[node.input[0]].input[0] in quantized
        weight, scale, zero = (
            numpy_helper.to_array(stored[name]) for name in dequantized[node.input[1]].input
        )
        assert weight.dtype == np.int8
        assert scale.shape == (len(weight),), "a scale for each channel"
        assert not zero.any()
        # Symmetric: the largest weight of a channel is the end of its range, except in a few dead channels.
        largest = np.abs(weight.astype(int)).reshape(len(weight), -1).max(1)
        assert (largest == 127).mean() > 0.8
    kinds = {node.op_type for node in after.node}
    assert "BatchNormalization" not in kinds
    assert not any(node.domain for node in after.node), "operators of ONNX alone"
    softmax = [node for node in after.node if node.op_type == "Softmax"]
    assert softmax
    assert not any(node.input[0] in dequantized for node in softmax)


def test_the_range_of_the_first_activation_is_that_of_the_images(files, network) -> None:
    """Smallest to largest normalised value over the feeds, with zero inside, in 255 steps."""
    graph = onnx.load(files[1]).graph
    stored = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    producer = {node.output[0]: node for node in graph.node}
    mean, std = (np.float64(value.flatten()[0]) for value in (network.mean, network.std))
    values = {name: np.stack([feed[name] for feed in feeds(3)]) for name in ("rgb", "thermal")}
    found = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and producer[node.input[0]].op_type == "Div":
            found.append((float(stored[node.input[1]]), int(stored[node.input[2]])))
    expected = []
    for images in values.values():
        low, high = min(0.0, (images.min() - mean) / std), max(0.0, (images.max() - mean) / std)
        expected.append(((high - low) / 255, round(-low / ((high - low) / 255))))
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-5)


def test_classes_stay(files) -> None:
    exact, integer = map(load_exported, files)
    assert files[1].stat().st_size < 0.5 * files[0].stat().st_size
    same = []
    for feed in feeds(3):
        images = [torch.from_numpy(image) for image in feed.values()]
        same.append(float((exact(*images).argmax(1) == integer(*images).argmax(1)).float().mean()))
    assert np.mean(same) > 0.97, "generated scenes are not what the weights know"


def test_the_same_feeds_give_the_same_file_and_keep_the_description(files, network, tmp_path) -> None:
    again = shutil.copy(files[0], tmp_path / "again.onnx")
    quantize(again, feeds(3))
    assert again.read_bytes() == files[1].read_bytes()
    before, after = (onnx.load(path) for path in files)
    assert after.metadata_props == before.metadata_props
    assert after.opset_import == before.opset_import


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_real_pairs_agree_and_every_command_takes_the_file(samples, tmp_path, capsys, form: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[form])
    root = samples / "mfnet"
    names = (root / "test.txt").read_text().split()[::10]
    (tmp_path / "pairs").mkdir()
    for name in names:
        (tmp_path / "pairs" / f"{name}.png").symlink_to(root / "images" / f"{name}.png")
    out = tmp_path / f"edge{'.onnx' if form == 'onnx' else '.xml'}"
    words = ["--format", form, "--precision", "int8", "--size", "480x640", "--out", str(out)]
    calibrate = ["--calibrate-dataset", "mfnet", "--calibrate-root", str(root), "--calibrate-pairs", "8"]
    assert main(["export", *words, *calibrate, "--check-rgbt", str(tmp_path / "pairs")]) == 0
    report = json.loads(Path(f"{out}.json").read_text())
    assert report["calibration_pairs"] == 8
    assert report["check"]["pairs"] == 4
    assert report["check"]["agreement"] >= 0.99
    evaluated = tmp_path / "report.json"
    words = ["--checkpoint", str(out), "--runtime", form, "--dataset", "mfnet", "--root", str(root)]
    assert main(["evaluate", *words, "--split", "val", "--json", str(evaluated)]) == 0
    assert json.loads(evaluated.read_text())["miou"] > 0.5
    words = ["--checkpoint", str(out), "--runtime", form, "--rgbt", str(tmp_path / "pairs")]
    assert main(["predict", *words, "--out", str(tmp_path / "maps"), "--save", "index"]) == 0
    assert len(list((tmp_path / "maps" / "index").iterdir())) == 4


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    create_model("mfnet", num_classes=4).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--precision int8 needs pairs like those that the file will see, to measure ranges: give"),
        (["--calibrate-dataset", "mfnet"], "--calibrate-dataset and --calibrate-root belong together"),
        (["--calibrate-rgb", "a"], "--calibrate-rgb a: no such file"),
        (["--calibrate-rgbt", "a", "--calibrate-pairs", "0"], "--calibrate-pairs 0: give 1 or more"),
        (["--calibrate-dataset", "mfnet", "--calibrate-root", "void"], "void"),
        (["--calibrate-dataset", "nothing", "--calibrate-root", "void"], "unknown dataset 'nothing'"),
        (["--precision", "32", "--calibrate-rgbt", "pair"], "calibration pairs belong to --precision int8"),
        (["--calibrate-rgbt", "broken"], "broken"),
    ],
)
def test_refused(run, tmp_path, monkeypatch, capsys, options: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pair", "broken"):
        (tmp_path / name).mkdir()
    Image.new("RGBA", (96, 64)).save(tmp_path / "pair" / "0.png")
    (tmp_path / "broken" / "0.png").write_bytes(b"not an image")
    words = ["--checkpoint", str(run), "--out", "a.onnx", "--precision", "int8", *options]
    assert main(["export", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("efnet: error: ")
    assert message in error
    assert not (tmp_path / "a.onnx").exists()


def test_networks_that_cluster() -> None:
    network = create_model("efnet_tiny", num_classes=4)
    check_calibration(network, "onnx", "int8", 0)
    with pytest.raises(InputError, match=r"clusters tokens: int8 is for its linear layers alone"):
        check_calibration(network, "onnx", "int8", 2)
    with pytest.raises(InputError, match=r"clusters tokens by differences .* use `precision` 16"):
        check_calibration(network, "openvino", "int8", 0)
