"""The file of an edge preset holds operators that any runtime has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import efnet
from efnet.export.export import export_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

DIFFICULT = {"Loop", "If", "Scan", "NonZero", "TopK", "Unique"}
"""With everything that scatters: operators that accelerators lack or run slowly."""


def test_no_operator_is_difficult(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = efnet.create_model("efnet_edge", 4).eval()
    export_model(model, tmp_path / "edge.onnx", "onnx", size=(64, 96))
    graph = onnx.load(tmp_path / "edge.onnx").graph
    used = {node.op_type for node in graph.node}
    assert {"Conv", "MatMul", "Resize"} <= used
    assert not used & DIFFICULT
    assert not any("Scatter" in name for name in used)
