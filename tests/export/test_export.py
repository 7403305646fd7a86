"""A checkpoint through every format, as a user types it. Exporting takes half a minute or more each."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.inference.predictor import Predictor
from efnet.models.config import BackboneConfig, EFNetConfig
from efnet.models.efnet import EFNet
from efnet.scenes import render

pytestmark = pytest.mark.slow

BARE = """
import sys, torch
program = torch.export.load(sys.argv[1]).module(check_guards=False)
given = torch.load(sys.argv[2], weights_only=True)
assert not any(name.partition(".")[0] == "efnet" for name in sys.modules)
torch.save(program(*given), sys.argv[3])
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(3)
    backbone = BackboneConfig((1, 1, 1, 1), (16, 32, 48, 64), (1, 2, 3, 4), (2, 2, 2, 2))
    model = EFNet(EFNetConfig(backbone, num_classes=4), "small", ClassSet.generic(4))
    folder = tmp_path_factory.mktemp("run")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for seed, size in ((0, (96, 128)), (1, (101, 75))):
        sample = render(seed, size, "day")
        thermal = (sample.thermal * 255).round().astype(np.uint8)
        Image.fromarray(np.dstack([sample.rgb, thermal]), "RGBA").save(folder / f"{seed}.png")
    return folder


def export(checkpoint: Path, out: Path, *options: str) -> dict:
    assert main(["export", "--checkpoint", str(checkpoint), "--out", str(out), *options]) == 0
    return json.loads(Path(f"{out}.json").read_text())


def assert_predicts_alike(
    checkpoint: Path, pairs: Path, out: Path, least: float = 0.999, size: tuple[int, int] | None = None
) -> None:
    ours, theirs = Predictor.from_pretrained(checkpoint, "cpu"), Predictor.from_pretrained(out)
    assert theirs.classes == ours.classes
    assert theirs.size == size
    ours.size = size
    for path in sorted(pairs.iterdir()):
        assert (ours(path).index == theirs(path).index).mean() >= least


def test_onnx(checkpoint, pairs, tmp_path, capsys) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    out = tmp_path / "small.onnx"
    report = export(checkpoint, out, "--check-rgbt", str(pairs))
    assert report["check"]["source"] == "given"
    assert report["check"]["agreement"] >= 0.999
    assert [2, 96, 75] in report["check"]["sizes"]
    assert "classes agree on" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.onnx", "small.onnx.json"]
    held = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert json.loads(held["efnet"])["classes"] == report["classes"]
    assert_predicts_alike(checkpoint, pairs, out)
    # Without our package, and at the smallest size.
    session = runtime.InferenceSession(out, providers=["CPUExecutionProvider"])
    images = {"rgb": np.ones((3, 3, 32, 40), np.float32), "thermal": np.zeros((3, 1, 32, 40), np.float32)}
    (logits,) = session.run(None, images)
    expected = EFNet.read(checkpoint)(*(torch.from_numpy(image) for image in images.values()))
    np.testing.assert_allclose(logits, expected.detach(), atol=1e-3)
    words = [
        "--checkpoint",
        str(out),
        "--rgbt",
        str(pairs),
        "--out",
        str(tmp_path / "maps"),
        "--save",
        "index",
    ]
    assert main(["predict", *words, "--runtime", "onnx", "--threads", "1"]) == 0
    index = np.asarray(Image.open(tmp_path / "maps" / "index" / "0.png"))
    expected_index = Predictor.from_pretrained(checkpoint, "cpu")(pairs / "0.png").index
    assert (index == expected_index).mean() >= 0.999


def test_onnx_with_pixels_in_and_classes_out(checkpoint, pairs, tmp_path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    out = tmp_path / "small.onnx"
    report = export(checkpoint, out, "--inputs", "uint8", "--outputs", "classes", "--size", "101x75")
    assert report["check"]["agreement"] >= 0.999
    image = np.asarray(Image.open(pairs / "1.png"))
    session = runtime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (classes,) = session.run(None, {"rgb": image[None, ..., :3], "thermal": image[None, ..., 3]})
    assert classes.dtype == np.uint8
    expected = Predictor.from_pretrained(checkpoint, "cpu")(pairs / "1.png").index
    assert (classes[0] == expected).mean() >= 0.999


@pytest.mark.parametrize(("form", "precision"), [("onnx", "16"), ("onnx", "int8"), ("openvino", "16")])
def test_fewer_bits(checkpoint, pairs, tmp_path, capsys, form: str, precision: str) -> None:
    """A file that agrees with fresh weights, which tell classes hardly apart, or none and the reason."""
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[form])
    out = tmp_path / {"onnx": "small.onnx", "openvino": "small.xml"}[form]
    words = ["--format", form, "--precision", precision, "--size", "96x128", "--check-rgbt", str(pairs)]
    if main(["export", "--checkpoint", str(checkpoint), "--out", str(out), *words]) == 2:
        assert re.search(r"agree .* on 9\d\.\d\d% of the pixels, less than 99%", capsys.readouterr().err)
        assert not list(tmp_path.iterdir())
        return
    assert json.loads(Path(f"{out}.json").read_text())["check"]["agreement"] >= 0.99
    assert_predicts_alike(checkpoint, pairs, out, 0.9, (96, 128))


def test_openvino(checkpoint, pairs, tmp_path) -> None:
    pytest.importorskip("openvino")
    out = tmp_path / "small.xml"
    words = ["--format", "openvino", "--size", "96x128", "--check-rgbt", str(pairs)]
    report = export(checkpoint, out, *words)
    assert report["check"]["agreement"] >= 0.999
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.bin", "small.xml", "small.xml.json"]
    assert_predicts_alike(checkpoint, pairs, out, size=(96, 128))


def test_torch_program_loads_without_this_package(checkpoint, pairs, tmp_path) -> None:
    out = tmp_path / "small.pt2"
    export(checkpoint, out, "--format", "torch", "--outputs", "probabilities", "--check-rgbt", str(pairs))
    assert_predicts_alike(checkpoint, pairs, out)
    images = torch.rand(1, 3, 75, 90), torch.rand(1, 1, 75, 90)
    torch.save(images, tmp_path / "images.pt")
    # The package is installed in place: without the site's startup files it cannot be found.
    paths = [path for path in sys.path if path.endswith("site-packages")]
    script = f"import sys; sys.path += {paths!r}\n{BARE}"
    words = [str(out), str(tmp_path / "images.pt"), str(tmp_path / "found.pt")]
    done = subprocess.run(
        [sys.executable, "-S", "-c", script, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    expected = EFNet.read(checkpoint)(*images).softmax(1)
    torch.testing.assert_close(torch.load(tmp_path / "found.pt"), expected.detach(), atol=1e-3, rtol=1e-3)
