"""The notebooks run from the first cell to the last, in a kernel of their own, as in Jupyter and Colab."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = ("train_own_pairs", "compare_networks", "checkpoint_to_video")


def cells(name: str) -> list[str]:
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code), "holds results"
    return ["".join(cell["source"]) for cell in code]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_are_code_of_python_and_the_first_installs(name: str) -> None:
    first, *others = cells(name)
    assert len(others) > 3
    assert "pip" in first
    assert 'find_spec("efnet") is None' in first
    for cell in (first, *others):
        lines = [
            "pass" if line.startswith("!") else line for line in cell.splitlines()
        ]  # commands of a shell
        ast.parse("\n".join(lines))


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_run(name: str, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    if name == "checkpoint_to_video":
        pytest.importorskip("av")
        pytest.importorskip("onnxruntime")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    _check(name, tmp_path, outputs)


def _check(name: str, folder: Path, outputs: list[Any]) -> None:
    """Check what a reader sees, and the files that stay."""
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    shown = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    pictures = sum("image/png" in data for data in shown)
    bars = [data["text/html"] for data in shown if "<progress" in data.get("text/html", "")]
    if name == "train_own_pairs":
        assert (folder / "runs" / "own" / "best" / "model.safetensors").is_file()
        assert "epoch 4/4: loss" in printed
        assert pictures == 2
        assert any('value="16" max="16"' in bar for bar in bars)  # four epochs of four batches
    elif name == "compare_networks":
        assert "95 % interval" in printed
        assert len(bars) >= 4  # two runs, two evaluations
    else:
        assert (folder / "seg.mp4").stat().st_size > 0
        assert (folder / "streets.onnx").is_file()
        assert "classes agree on" in printed
        assert pictures == 1
