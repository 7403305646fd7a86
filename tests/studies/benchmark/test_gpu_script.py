"""`benchmarks/gpu.py`, as far as it goes without a GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from jsonargparse import ArgumentParser

from efnet.cli import benchmark

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_says_that_there_is_no_device(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert script.main() == 2
    captured = capsys.readouterr()
    assert "no CUDA device" in captured.err
    assert captured.out == ""


def test_its_questions_are_options_of_the_benchmark(script: ModuleType) -> None:
    parser = ArgumentParser(exit_on_error=False)
    benchmark.add_arguments(parser)
    questions = script.questions("efnet_tiny", "64x96", 3)
    for options in questions.values():
        benchmark.check_options(parser.parse_args(options))
    batches = {words[words.index("--batch") + 1] for words in questions.values() if "--batch" in words}
    assert {"1", "16"} <= batches


def test_answers_are_kept_and_refusals_named(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses = {"good": 0, "bad": 2}

    def stand_in(words: list[str]) -> int:
        print("a table")
        return statuses[Path(words[-1]).stem]

    monkeypatch.setattr(script, "efnet", stand_in)
    assert script.ask("good", ["--batch", "1"], tmp_path, "cuda")
    assert not script.ask("bad", ["--batch", "1"], tmp_path, "cuda")
    assert (tmp_path / "good.md").read_text() == "a table\n"
    assert not (tmp_path / "bad.md").exists()
    assert "$ efnet benchmark --batch 1 --device cuda --json" in capsys.readouterr().out
