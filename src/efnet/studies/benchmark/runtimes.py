"""Networks as files of `efnet export`, so that other runtimes take their turn beside PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from efnet.core.errors import one_of
from efnet.export.formats import PRECISIONS, SUFFIX, Precision
from efnet.inference.runtime import SUFFIXES, Runtime, check_runtime, is_exported
from efnet.models.base import SegmentationModel
from efnet.studies.benchmark.measure import package_path
from efnet.studies.benchmark.subject import open_model

Target = tuple[Runtime, Precision]
"""What runs a model (torch: the checkpoint itself), and the precision of its weights."""


def parse_target(word: str) -> Target:
    """Read a value of `--runtime`, such as `onnx` or `onnx-int8`.

    Raises:
        InputError: an unknown runtime, or a precision that its files do not come in.
    """
    name, _, bits = word.partition("-")
    runtime = check_runtime(name)
    known = PRECISIONS[runtime]
    return runtime, one_of(bits or "32", known, f"--runtime {word}: {runtime} comes in")


def variant_for(target: Target) -> str:
    """What `Subject` calls a contestant that is exported for this."""
    runtime, precision = target
    return runtime if precision == "32" else f"{runtime}-{precision}"


def variant_of(path: str) -> str:
    """What runs an exported file, as a `Subject` names it."""
    runtime = SUFFIXES[Path(path).suffix.lower()]
    return "program" if runtime == "torch" else runtime


def export_for(
    model: str, target: Target, size: tuple[int, int], folder: Path, checks: Sequence[str] = ()
) -> tuple[Path, str | None]:
    """Export a model for one pair of a size, as `efnet export --size` does.

    In a process of its own: what tracing leaves in memory would weigh on whatever is measured here.

    Args:
        model: preset, which gets the weights that it is measured with, or checkpoint.
        target: onnx or openvino, and the precision.
        size: (H, W).
        folder: of the file, which gets a folder of its own in it.
        checks: options of `efnet export` that name the pairs to check the file on; empty: generated ones.

    Returns:
        the file, and why there is none (None: it is there).

    Raises:
        InputError: the model is not there.
    """
    runtime, precision = target
    # Checkpoints of two runs may have one name.
    folder = Path(tempfile.mkdtemp(dir=folder))
    name = f"{Path(model).name}_{size[0]}x{size[1]}"
    path = folder / f"{name}{SUFFIX[runtime]}"
    network = open_model(model)
    assert isinstance(network, SegmentationModel)
    network.write(folder / name)
    options = ["--checkpoint", str(folder / name), "--format", runtime, "--precision", precision]
    options += ["--size", f"{size[0]}x{size[1]}", "--out", str(path), *checks]
    return path, _run([sys.executable, "-m", "efnet", "export", *options])


def _run(command: Sequence[str]) -> str | None:
    """Why a command failed; None: it did not."""
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": package_path()}
    )
    if ran.returncode == 0:
        return None
    lines = ran.stderr.strip().splitlines() or [f"it ended with status {ran.returncode}"]
    return lines[-1].removeprefix("efnet: error: ")


__all__ = ["Target", "export_for", "is_exported", "parse_target", "variant_for", "variant_of"]
