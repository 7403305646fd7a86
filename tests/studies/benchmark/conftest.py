"""What tests of exported files beside PyTorch begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from efnet.studies.benchmark.networks import export_for

SIZE = (32, 48)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MFNet for one pair, by ONNX Runtime."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path, fault = export_for("mfnet", ("onnx", "32"), SIZE, tmp_path_factory.mktemp("exported"))
    assert fault is None
    return path
