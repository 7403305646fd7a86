"""Exported files as a user hands them over: what is refused, and with which remedy."""

from __future__ import annotations

import sys

import pytest
import torch

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.inference.predictor import Predictor
from efnet.inference.runtime import choose_providers, engine_cache, load_exported


def test_no_such_file(tmp_path) -> None:
    with pytest.raises(InputError, match=r"street.onnx: no such file; write it with efnet export"):
        Predictor.from_pretrained(tmp_path / "street.onnx")


@pytest.mark.parametrize(
    ("name", "runtime", "message"),
    [
        ("a.onnx", "torch", r"runtime torch runs .pt2 files"),
        ("a.pt2", "onnx", r"runtime onnx runs .onnx files"),
        ("run", "openvino", r"runtime openvino runs .xml files"),
        ("a.zip", None, r"runs .onnx or .xml or .pt2 files"),
    ],
)
def test_file_and_runtime_do_not_fit(tmp_path, name: str, runtime, message: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=message):
        load_exported(tmp_path / name, runtime)


@pytest.mark.parametrize(
    ("name", "package"), [("a.onnx", "onnxruntime"), ("a.xml", "openvino"), ("a.pt2", "torch")]
)
def test_a_damaged_file(tmp_path, name: str, package: str) -> None:
    pytest.importorskip(package)
    (tmp_path / name).write_bytes(b"nothing that can be run")
    if name == "a.xml":
        (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot read it|not a program"):
        load_exported(tmp_path / name)


def test_openvino_without_its_weights(tmp_path) -> None:
    (tmp_path / "a.xml").write_text("<net/>")
    with pytest.raises(InputError, match=r"its weights a.bin are not beside it; copy both"):
        load_exported(tmp_path / "a.xml")


def test_a_program_of_somebody_else(tmp_path) -> None:
    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    torch.export.save(torch.export.export(Double(), (torch.ones(2),)), tmp_path / "other.pt2")
    with pytest.raises(InputError, match=r"other.pt2: was not written by efnet export"):
        load_exported(tmp_path / "other.pt2")


def test_an_onnx_file_of_somebody_else(tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Abs", ["x"], ["y"])], "g", [value("x", 1, [1])], [value("y", 1, [1])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"other.onnx: was not written by efnet export"):
        load_exported(tmp_path / "other.onnx")


def test_a_runtime_that_is_not_installed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"onnxruntime is not installed.*pip install 'efnet\[onnx\]'"):
        load_exported(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.pt2"], "--format onnx writes .onnx files; name it so (or choose --format torch)"),
        (["--out", "a.onnx", "--format", "tensorrt"], "--format"),
        (["--out", "a.onnx", "--precision", "4"], "--precision 4: --format onnx comes in 32, 16, int8"),
        (["--out", "a.pt2", "--format", "torch", "--precision", "16"], "--format torch comes in 32"),
        (["--out", "a.onnx", "--checkpoint", "b.onnx"], "is an exported file; give the run it came from"),
        (["--out", "a.xml", "--format", "openvino"], "--format openvino needs --size HxW"),
        (["--out", "a.onnx", "--size", "480"], "--size 480: give height x width"),
        (["--out", "a.onnx", "--size", "480x24"], "--size 480x24: give height x width, both at least 32"),
        (["--out", "a.onnx", "--check-pairs", "0"], "--check-pairs 0: give 1 or more"),
        (["--out", "a.onnx"], "neither a checkpoint folder here nor one on the hub"),
        (["--out", "file/a.onnx"], "is not a folder"),
    ],
)
def test_bad_export_options(tmp_path, monkeypatch, capsys, options: list[str], message: str) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["export", "--checkpoint", "nowhere/run", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("efnet: error: ")
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_extra_that_is_not_installed(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", "--checkpoint", "nowhere/run", "--out", str(tmp_path / "a.onnx")]) == 2
    assert "needs onnxscript, which is not installed; pip install 'efnet[onnx]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--runtime", "tensorrt"], "runtime 'tensorrt' is unknown; choose torch, onnx, openvino"),
        (["--runtime", "onnx"], "runtime onnx runs .onnx files"),
        (["--threads", "0"], "--threads 0: give 1 or more"),
    ],
)
def test_bad_predict_options(tmp_path, capsys, options: list[str], message: str) -> None:
    from PIL import Image

    Image.new("RGBA", (64, 64)).save(tmp_path / "a.png")
    words = ["--checkpoint", str(tmp_path), "--rgbt", str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert main(["predict", *words, *options]) == 2
    assert message in capsys.readouterr().err


CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))


def test_providers_of_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """By the lists that onnxruntime and onnxruntime-gpu report."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    everything = [TENSORRT, CUDA, CPU]
    assert choose_providers("cpu", everything) == [CPU]
    assert choose_providers("auto", ["AzureExecutionProvider", CPU]) == [CPU]
    assert choose_providers("auto", everything) == [(CUDA, {"device_id": 0}), CPU]
    assert choose_providers("cuda:1", [CUDA, CPU]) == [(CUDA, {"device_id": 1}), CPU]
    first, *others = choose_providers("cuda", everything)
    assert others == [(CUDA, {"device_id": 0}), CPU]
    assert first[0] == TENSORRT
    assert first[1]["device_id"] == 0
    assert first[1]["trt_engine_cache_path"] == str(engine_cache()) == str(tmp_path / "efnet" / "tensorrt")
    with pytest.raises(InputError, match=r"device 'cuda': .* runs on the CPU alone; install onnxruntime-gpu"):
        choose_providers("cuda", [CPU])


@pytest.mark.parametrize(
    ("name", "device", "precision", "message"),
    [
        ("a.onnx", "cuda", "32", r"install onnxruntime-gpu in place of onnxruntime, or use `device` cpu"),
        ("a.onnx", "gpu", "32", r"device 'gpu' is unknown"),
        ("a.onnx", "cpu", "bf16", r"precision 'bf16': that of a .onnx file was chosen when it was exported"),
        ("a.pt2", "cuda", "32", r".pt2 files run on the CPU here, .onnx files also by CUDA"),
        ("a.xml", "cuda:0", "32", r".xml files run on the CPU here"),
    ],
)
def test_a_device_or_precision_that_a_runtime_lacks(
    tmp_path, monkeypatch, name: str, device: str, precision: str, message: str
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(runtime, "get_available_providers", lambda: [CPU])
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(InputError, match=message):
        Predictor.from_pretrained(tmp_path / name, device, precision)


def test_a_cuda_provider_that_cannot_start_is_an_error(tmp_path, monkeypatch) -> None:
    """onnxruntime-gpu lists its provider without a driver too, and then falls back to the CPU."""
    runtime = pytest.importorskip("onnxruntime")
    asked: list[object] = []

    class Session:
        def __init__(self, path: str, options: object, providers: list[object]) -> None:
            asked.extend(providers)

        def get_providers(self) -> list[str]:
            return [CPU]

    monkeypatch.setattr(runtime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(runtime, "InferenceSession", Session)
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"ONNX Runtime cannot use its CUDA provider here"):
        load_exported(tmp_path / "a.onnx", device="cuda")
    assert asked == [(CUDA, {"device_id": 0}), CPU]
