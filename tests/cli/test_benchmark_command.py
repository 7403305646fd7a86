"""`efnet benchmark` as a user types it, on a network and images as small as they go."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from efnet.cli.main import main
from efnet.studies.benchmark import measure

SMALL = ("--device", "cpu", "--size", "64x96", "--runs", "1", "--warmup", "1")
TINY = ("--model", "efnet_tiny")


@pytest.fixture(autouse=True)
def _small_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measure.GEMM_SIZES, "cpu", 64)


def measured(path: Path, *words: str) -> dict[str, Any]:
    """The JSON that a command line writes."""
    assert main(["benchmark", *SMALL, *words, "--json", str(path)]) == 0
    values = json.loads(path.read_text())
    assert isinstance(values, dict)
    return values


def test_forward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    words = ("--model", "efnet_tiny", "efnet_light", "--threads", "1", "--precision", "bf16", "--no-memory")
    values = measured(tmp_path / "x.json", *words, "--dense")
    assert torch.get_num_threads() == threads
    assert values["mode"] == "forward"
    (report,) = values["reports"]
    assert report["gemm"].keys() == {"float32", "bfloat16"}
    assert report["machine"]["threads"] == 1
    labels = [row["label"] for row in report["rows"]]
    assert labels == [
        "efnet_tiny",
        "efnet_tiny, dense clustering",
        "efnet_light",
        "efnet_light, dense clustering",
    ]
    row = report["rows"][0]
    assert row["size"] == [64, 96]
    assert row["pairs_per_second"] == pytest.approx(1 / row["seconds"]["median"])
    products = 2 * row["multiply_adds"] / report["gemm"]["bfloat16"]
    memory = row["bytes_moved"] / report["bandwidth"]
    assert row["limits"] == pytest.approx({"products": products, "memory": memory})
    limit = row["limits"][row["limited_by"]]
    assert limit == max(products, memory)
    assert row["times_limit"] == pytest.approx(row["seconds"]["median"] / limit)
    assert ["breakdown" in row for row in report["rows"]] == [True, False, True, False]
    captured = capsys.readouterr()
    assert captured.out.startswith("forward pass, 64x96, batch 1, precision bf16\n")
    assert "| efnet_tiny, dense clustering " in captured.out
    assert "| clustering 2 " in captured.out
    assert "not measured" in captured.out


def test_memory_of_processes_of_their_own(tmp_path: Path) -> None:
    (report,) = measured(tmp_path / "x.json", *TINY)["reports"]
    memory = report["rows"][0]["memory"]
    if sys.platform.startswith("linux"):
        assert memory["peak"] > memory["added"] > 0
        assert memory["peak"] < 2e9
    else:
        assert memory is None


def test_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--mode", "train", "--batch", "2", "--no-memory")
    (report,) = measured(tmp_path / "x.json", *TINY, *words)["reports"]
    (row,) = report["rows"]
    assert row["training"]
    assert row["batch"] == 2
    products = 2 * 3 * 2 * row["multiply_adds"] / report["gemm"]["float32"]
    limit = max(products, row["bytes_moved"] / report["bandwidth"])
    assert row["times_limit"] == pytest.approx(row["seconds"]["median"] / limit)
    parts = [part["name"] for part in row["breakdown"]["parts"]]
    assert set(parts) >= {"forward without clustering", "clustering", "loss", "backward", "optimizer"}
    assert "step of training" in capsys.readouterr().out


def test_clustering(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = measured(tmp_path / "x.json", "--mode", "clustering", "--no-memory")
    assert [row["tokens"] for row in values["rows"]] == [384, 384, 96, 24]
    for row in values["rows"]:
        assert row["seconds"].keys() == {"ours", "dense"}
        assert row["agreement"]["centers"] > 0.97
        assert row["agreement"]["assignments"] > 0.97
    assert "| stage 3, 64x96 " in capsys.readouterr().out


def test_growth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--mode", "growth", "--size", "32x32", "64x64", "--no-memory")
    values = measured(tmp_path / "x.json", *TINY, *words)
    assert [row["pixels"] for row in values["rows"]] == [1024, 4096]
    assert values["slopes"]["ours"]["time"] is not None
    assert values["slopes"]["ours"]["memory"] is None
    assert "exponent against pixels, ours: time" in capsys.readouterr().out


def test_a_variant_that_does_not_work_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(torch, "compile", refuse)
    (report,) = measured(tmp_path / "x.json", *TINY, "--compile", "--no-memory")["reports"]
    plain, compiled = report["rows"]
    assert "error" not in plain
    assert compiled["error"] == "RuntimeError: no compiler"
    assert "efnet_tiny, compile: does not work here (RuntimeError: no compiler)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode", "fast"], "--mode fast: choose forward, train, clustering, growth"),
        (["--size", "10x10"], "--size 10x10: give height x width, both at least 32"),
        (["--batch", "0"], "--batch 0: give 1 or more"),
        (["--runs", "0"], "--runs 0: give 1 or more"),
        (["--warmup", "-1"], "--warmup -1: give 0 or more"),
        (["--threads", "0"], "--threads 0: give 1 or more"),
        (["--precision", "16"], "precision '16' is unknown"),
        (["--device", "tpu"], "device 'tpu' is unknown"),
        (["--model", "efnet_huge"], "--model efnet_huge: no preset (efnet_tiny, efnet_light,"),
        (["--json", "."], "--json .: is a folder"),
        (["--mode", "train", "--plot", "x.svg"], "--plot belongs to --mode forward or growth, not train"),
        (["--mode", "train", "--runtime", "onnx"], "--runtime belongs to --mode forward, not train"),
        (["--runtime", "tensorrt"], "runtime 'tensorrt' is unknown; choose torch, onnx"),
        (["--runtime", "onnx", "--precision", "bf16"], "--precision bf16 is PyTorch's alone; measure onnx"),
        (["--model", ","], "--model: give at least one"),
        (["--mode", "growth", "--model", "x.onnx"], "--model x.onnx: an exported file belongs to --mode fo"),
        (["--model", "nowhere.onnx", "--device", "cpu"], "nowhere.onnx: no such file"),
        (["--accuracy", "nowhere.json"], "--accuracy nowhere.json: cannot be read"),
        (["--mode", "growth", "--plot", "x.gif"], "--plot x.gif: give a file name that ends in .svg or .png"),
        (["--mode", "growth", "--compile"], "--compile belongs to --mode forward or train, not growth"),
        (["--checkpoint-activations"], "--checkpoint-activations belongs to --mode train, not forward"),
        (["--mode", "growth", "--model", "efnet_tiny", "efnet_light"], "--mode growth takes one --model"),
        (["--mode", "clustering", "--precision", "bf16"], "--mode clustering is float32 and float64"),
        (["--device", "cpu", "--cuda-graph"], "--cuda-graph needs a CUDA device"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.lstrip().startswith(f"efnet: error: {message}")
    assert captured.out == ""


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["benchmark", "--mode", "growth", "--plot", "x.svg"]) == 2
    assert "pip install 'efnet[plot]'" in capsys.readouterr().err


def test_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measure, "seconds_of", lambda work, device: signal.raise_signal(signal.SIGINT))
    path = tmp_path / "x.json"
    assert main(["benchmark", *SMALL, *TINY, "--no-memory", "--json", str(path)]) == 130
    captured = capsys.readouterr()
    assert captured.err.endswith("efnet: interrupted\n")
    assert captured.out == ""
    assert not path.exists()


def test_only_networks_without_clustering_get_calibration_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command compares both kinds; the int8 of networks that cluster takes no pairs."""
    given: dict[str, list[str]] = {}

    def record(model: str, target: Any, size: Any, folder: Path, words: list[str]) -> tuple[Path, str]:
        given[model] = words
        return folder / f"{model}.onnx", "not written"

    monkeypatch.setattr("efnet.studies.benchmark.networks.export_for", record)
    models = ["--models", "efnet_tiny,efnet_edge", "--runtime", "onnx-int8", "--size", "64x96"]
    shared = ["--device", "cpu", "--threads", "1", "--runs", "1"]
    main(["benchmark", *models, *shared, "--calibrate-rgbt", str(tmp_path)])
    assert given["efnet_tiny"] == []
    assert "--calibrate-rgbt" in given["efnet_edge"]
