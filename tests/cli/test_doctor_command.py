"""`efnet doctor`: what it finds and what it advises."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import efnet
from efnet.cli import doctor
from efnet.cli.main import main


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split("  ")[0]: line for line in lines}
    assert efnet.__version__ in shown["efnet"]
    assert torch.__version__.partition("+")[0] in shown["torch"]
    for name in ("python", "numpy", "CPU", "threads", "allocator", "GOMP_SPINCOUNT", "folder"):
        assert name in shown
    for name in doctor.OPTIONAL:
        assert name in shown


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--json", "found.json"]) == 0
    found = json.loads(Path("found.json").read_text())
    assert found.keys() == {"versions", "optional", "machine", "devices", "folder", "advice"}
    assert found["folder"]["path"] == str(tmp_path)
    assert found["folder"]["writable"] is True
    assert found["folder"]["free"] > 0
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert found["optional"]["onnx"]["remedy"].startswith("pip install")


def test_json_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "."]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("efnet: error: --json .: is a folder")
    assert captured.out == ""


def test_a_package_that_is_missing_comes_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(doctor.OPTIONAL, "no-such-package", ("nothing", "pip install it"))
    assert main(["doctor"]) == 0
    assert "not installed (pip install it), for nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("needs", "warned"),
    [
        (["numpy", "torch==2.1.0"], True),
        (["torch (==2.1.0)"], False),  # not a form that is written today
        (["torch==9.9.9+cpu; python_version > '3'"], False),
        (None, False),
    ],
)
def test_torchvision_of_another_torch(
    needs: list[str] | None, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = SimpleNamespace(
        requires=lambda name: needs,
        version=lambda name: "0.1",
        PackageNotFoundError=importlib.metadata.PackageNotFoundError,
    )
    monkeypatch.setattr(doctor.importlib, "metadata", stand_in)
    line = doctor._torchvision("9.9.9+cu130")
    assert (line is not None) is warned
    assert line is None or "pip uninstall torchvision" in line


def test_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.examine()
    found["machine"] |= {"threads": 8, "cores": 2, "bf16_instructions": False}
    found["folder"] = {"path": "here", "writable": False, "free": 1e6}
    found["machine"]["process"] = {"allocator": "system", "reason": "LD_PRELOAD=x"}
    text = "\n".join(doctor._advice(found))
    for part in ("OMP_NUM_THREADS=2", "here cannot be written", "0.0 GB free", "LD_PRELOAD=x", "no bfloat16"):
        assert part in text
    found["machine"] |= {"threads": 2, "bf16_instructions": True}
    found["machine"]["process"] = {"allocator": "kept", "reason": ""}
    text = "\n".join(doctor._advice(found))
    assert "efnet.tune_process()" in text
    assert "OMP_NUM_THREADS" not in text
    assert "--precision bf16" in text


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = SimpleNamespace(name="Card", total_memory=80_000_000_000)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: facts)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    card, apple = doctor._devices()
    assert card["device"] == "cuda:0"
    assert doctor._device(card) == "Card, 80.0 GB, bf16"
    assert "float64" in doctor._device(apple)
