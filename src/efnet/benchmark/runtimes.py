"""Networks as files of `efnet export`, so that other runtimes take their turn beside PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from efnet.benchmark.memory import package_path
from efnet.benchmark.subject import open_model
from efnet.export.formats import SUFFIX
from efnet.models.base import SegmentationModel
from efnet.prediction.runtime import SUFFIXES, Runtime, is_exported


def variant_of(path: str) -> str:
    """What runs an exported file, as a `Subject` names it."""
    runtime = SUFFIXES[Path(path).suffix.lower()]
    return "program" if runtime == "torch" else runtime


def export_for(model: str, runtime: Runtime, size: tuple[int, int], folder: Path) -> tuple[Path, str | None]:
    """Export a model for one pair of a size, as `efnet export --size` does.

    In a process of its own: what tracing leaves in memory would weigh on whatever is measured here.

    Args:
        model: preset, which gets the weights that it is measured with, or checkpoint.
        runtime: onnx or openvino.
        size: (H, W).
        folder: of the file.

    Returns:
        the file, and why there is none (None: it is there).

    Raises:
        InputError: the model is not there.
    """
    name = f"{Path(model).name}_{size[0]}x{size[1]}"
    path = folder / f"{name}{SUFFIX[runtime]}"
    network = open_model(model)
    assert isinstance(network, SegmentationModel)
    network.write(folder / name)
    options = ["--checkpoint", str(folder / name), "--format", runtime, "--size", f"{size[0]}x{size[1]}"]
    return path, _run([sys.executable, "-m", "efnet", "export", *options, "--out", str(path)])


def _run(command: Sequence[str]) -> str | None:
    """Why a command failed; None: it did not."""
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": package_path()}
    )
    if ran.returncode == 0:
        return None
    lines = ran.stderr.strip().splitlines() or [f"it ended with status {ran.returncode}"]
    return lines[-1].removeprefix("efnet: error: ")


__all__ = ["export_for", "is_exported", "variant_of"]
