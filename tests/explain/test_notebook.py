"""The notebook runs as it stands."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "explain.ipynb"


def test_cells_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile(cell, str(NOTEBOOK), "exec"), names)
        last = ast.parse(cell).body[-1]
        if isinstance(last, ast.Expr):  # what a notebook would show
            assert eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names) is not None
    assert (tmp_path / "explained" / "explain.html").is_file()
    assert "DBTC 3: 300 tokens to 75, tau 1.0" in capsys.readouterr().out


def test_holds_no_results() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
