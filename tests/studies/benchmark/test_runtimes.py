"""Exported files beside PyTorch, accuracy beside latency, and the plot of both."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import efnet
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.inference.runtime import load_exported
from efnet.reporting.plots import figure_class
from efnet.studies.benchmark import markdown, measure
from efnet.studies.benchmark import subject as subject_module
from efnet.studies.benchmark.networks import (
    Plan,
    compare,
    parse_target,
    read_accuracy,
    variant_for,
    variant_of,
)
from efnet.studies.benchmark.subject import Subject, images, make_work, open_model

SIZE = (32, 48)


@pytest.fixture(autouse=True)
def _small_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measure.GEMM_SIZES, "cpu", 64)


def row(model: str, variant: str = "plain", **values: Any) -> dict[str, Any]:
    """Of a report, as far as a plot needs it."""
    seconds = {"median": 0.02, "low": 0.019, "high": 0.022, "p10": 0.018, "p90": 0.03, "runs": 5}
    rest = {"size": [32, 48], "batch": 1, "seconds": seconds, "parameters": 7e5}
    return {"model": model, "variant": variant, **rest, **values}


def test_a_file_takes_the_network_s_place(exported: Path) -> None:
    """It has the weights that the preset is measured with, and sees the same images."""
    subject = Subject("mfnet", SIZE, variant="onnx", file=str(exported))
    assert subject.label == "mfnet, onnx"
    found = make_work(subject, open_model(subject.source))()
    plain = make_work(Subject("mfnet", SIZE), open_model("mfnet"))()
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-4)


def test_a_file_runs_on_the_device_and_keeps_its_images_on_the_cpu(exported: Path, monkeypatch) -> None:
    """As `efnet predict` runs it; `meta` stands for a GPU, whose tensors ONNX Runtime could not read."""
    asked: list[str] = []

    def load(name: str, device: str) -> Any:
        asked.append(device)
        return load_exported(name)

    monkeypatch.setattr(subject_module, "load_exported", load)
    subject = Subject("mfnet", SIZE, variant="onnx", file=str(exported), device="meta")
    found = make_work(subject, open_model(subject.source, subject.device))()
    assert isinstance(found, torch.Tensor)
    assert found.device.type == "cpu"
    assert asked == ["meta"]


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["--runtime", "onnx,openvino"], "openvino runs on the CPU here, on cuda"),
        (["--model", "street.pt2"], "street.pt2 runs on the CPU here, on cuda"),
        (["--model", "street.onnx"], "street.onnx: no such file"),
    ],
)
def test_files_that_a_gpu_does_not_run(monkeypatch, capsys, words: list[str], refused: str) -> None:
    monkeypatch.setattr("efnet.core.devices.pick_device", lambda device: torch.device("cuda"))
    assert main(["benchmark", *words, "--device", "cuda", "--size", "32x48", "--no-memory"]) == 2
    assert refused in capsys.readouterr().err


def test_a_file_is_counted_as_its_network(exported: Path) -> None:
    subjects = [Subject("mfnet", SIZE), Subject("mfnet", SIZE, variant="onnx", file=str(exported))]
    ours, theirs = compare(subjects, Plan(runs=1, warmup=0, parts=False, memory=False))["rows"]
    assert theirs["file"] == exported.name
    for key in ("parameters", "multiply_adds"):
        assert theirs[key] == ours[key]
    assert ours["parameters"] == sum(p.numel() for p in efnet.create_model("mfnet").parameters())
    assert ours["share_of_limit"] == pytest.approx(1 / ours["times_limit"])


def test_a_file_of_another_size_is_named(exported: Path) -> None:
    subjects = [Subject("mfnet", (64, 64)), Subject("mfnet", (64, 64), variant="onnx", file=str(exported))]
    plain, other = compare(subjects, Plan(runs=1, warmup=0, parts=False, memory=False))["rows"]
    assert "error" not in plain
    assert "this file was exported for 32x48 alone" in other["error"]


def test_what_cannot_be_exported_is_named() -> None:
    subjects = [Subject("mfnet", SIZE), Subject("mfnet", SIZE, variant="onnx", file="gone.onnx")]
    plan = Plan(runs=1, warmup=0, parts=False, memory=False)
    plain, other = compare(subjects, plan, failed={"mfnet, onnx": "not written"})["rows"]
    assert (other["error"], "error" in plain) == ("not written", False)


def test_command(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A given file between presets, with accuracy, as Markdown, JSON and a picture."""
    pytest.importorskip("matplotlib")
    known = tmp_path / "accuracy.json"
    known.write_text('{"mfnet": 0.25, "efnet_tiny": 0.5}')
    out = {name: tmp_path / f"out.{name}" for name in ("json", "markdown", "svg")}
    words = ["benchmark", "--models", f"mfnet,{exported}", "efnet_tiny", "--runtime", "torch"]
    words += ["--size", "32x48", "--runs", "2", "--warmup", "0", "--device", "cpu", "--no-memory"]
    words += ["--accuracy", str(known), "--json", str(out["json"]), "--markdown", str(out["markdown"])]
    assert main([*words, "--plot", str(out["svg"])]) == 0
    (report,) = json.loads(out["json"].read_text())["reports"]
    assert [(row["variant"], row["miou"]) for row in report["rows"]] == [
        ("plain", 0.25),
        ("onnx", None),
        ("plain", 0.5),
    ]
    assert not any("breakdown" in row for row in report["rows"])
    text = out["markdown"].read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    assert all(part in text for part in (" p90 |", " mIoU |", " 25.00 |"))
    assert "<svg" in out["svg"].read_text()


def test_variants_of_files() -> None:
    assert [variant_of(f"a/b{suffix}") for suffix in (".onnx", ".xml", ".PT2")] == [
        "onnx",
        "openvino",
        "program",
    ]


@pytest.mark.parametrize("word", ["onnx", "onnx-16", "onnx-int8", "openvino", "openvino-16", "torch"])
def test_runtimes_with_a_precision(word: str) -> None:
    assert variant_for(parse_target(word)) == word
    assert parse_target("onnx-32") == parse_target("onnx") == ("onnx", "32")


def test_images_do_not_depend_on_what_runs_them() -> None:
    one, other = (images(Subject("mfnet", SIZE, variant=v), torch.device("cpu")) for v in ("plain", "onnx"))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"mfnet": 0.25}, {"mfnet": 0.25}),
        ({"protocol": {"model": "mfnet"}, "miou": 0.5, "iou": {}}, {"mfnet": 0.5}),
        (
            {
                "rows": [
                    {"model": "mfnet", "modality": "rgbt", "miou": {"mean": 0.3, "deviation": None}},
                    {"model": "mfnet", "modality": "rgb", "miou": {"mean": 0.1, "deviation": None}},
                    {"model": None, "modality": None, "miou": None},
                ]
            },
            {"mfnet": 0.3},
        ),
    ],
    ids=["plain", "evaluate", "experiment"],
)
def test_accuracy_of_reports(values: dict[str, Any], expected: dict[str, float], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(values))
    assert read_accuracy(str(path)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
        ("{}", "has the mIoU of no model"),
        ('{"mfnet": 25}', "mfnet has 25; give fractions"),
        ('{"rows": [{"label": "x"}]}', "cannot be read"),
    ],
)
def test_wrong_accuracy(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_accuracy(str(path))


def test_plot_has_a_panel_per_size_and_says_its_axes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    machine = {"threads": 1}
    plain = {"machine": machine, "rows": [row("mfnet"), row("mfnet", "onnx"), row("x", "onnx", error="no")]}
    scored = {"machine": machine, "rows": [row("mfnet", miou=0.3), row("efnet_tiny")]}
    for name, report, axis in (("a", plain, "parameters (M)"), ("b", scored, "mIoU (%)")):
        drawn: list[str] = []
        figure = figure_class()()
        panel = figure.subplots()
        markdown.draw_latency(panel, report)
        drawn += [text.get_text() for text in panel.texts]
        assert panel.get_ylabel() == axis
        assert drawn == {"a": ["mfnet", "mfnet"], "b": ["mfnet"]}[name]
    markdown.plot_latency(tmp_path / "both.svg", [plain, scored])
    assert [path.name for path in tmp_path.iterdir()] == ["both.svg"]


@pytest.mark.slow
def test_every_runtime_of_an_efnet(tmp_path: Path) -> None:
    for package in ("onnxruntime", "onnxscript", "openvino"):
        pytest.importorskip(package)
    path = tmp_path / "out.json"
    words = ["benchmark", "--model", "efnet_tiny", "--runtime", "torch,onnx,openvino", "--size", "64x96"]
    assert main([*words, "--runs", "2", "--device", "cpu", "--json", str(path)]) == 0
    (report,) = json.loads(path.read_text())["reports"]
    assert [row["variant"] for row in report["rows"]] == ["plain", "onnx", "openvino"]
    assert not any("error" in row for row in report["rows"])
    if sys.platform.startswith("linux"):
        assert all(row["memory"]["peak"] > 0 for row in report["rows"])
