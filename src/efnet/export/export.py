"""From a network to a checked file with its report."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from efnet.core.errors import InputError, one_of
from efnet.core.files import replacing, write_json
from efnet.export.agreement import Comparison, compare
from efnet.export.formats import OPSET, PRECISIONS, SUFFIX, Format, Precision, write_program
from efnet.export.program import Deployed, Inputs, Outputs, input_names, trace
from efnet.inference.preprocess import Prepared
from efnet.inference.runtime import SUFFIXES, load_exported
from efnet.models.base import MIN_SIZE, SegmentationModel

_PROBE = """
import sys
import torch
from efnet.inference.runtime import load_exported

model = load_exported(sys.argv[1])
size = model.fixed_size or (64, 96)
rgb, thermal = torch.zeros(1, 3, *size), torch.zeros(1, 1, *size)
model(None if model.modality == "thermal" else rgb, None if model.modality == "rgb" else thermal)
"""

LEAST_AGREEMENT = 0.99
"""Share of pixels whose class has to stay the same; a file with less is not written."""


def export_model(
    model: SegmentationModel,
    path: Path,
    format: Format,
    *,
    inputs: Inputs = "float",
    outputs: Outputs = "logits",
    precision: Precision = "32",
    size: tuple[int, int] | None = None,
    pairs: Sequence[Prepared] = (),
    tell: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Write a network to a file and compare the file with it.

    Args:
        model: the network; it is moved to the CPU and set to evaluation mode.
        path: the file, of the format's suffix. The report goes to the same name with `.json` added.
        format: `onnx`, `openvino` (`.xml` and `.bin`) or `torch`.
        inputs: what the program is given, see `Deployed`.
        outputs: what it hands back, see `Deployed`.
        precision: of the weights, see `PRECISIONS`.
        size: height and width of the one pair that the file takes; None: any batch, height and width.
        pairs: what it is compared on, of that size; empty: generated pairs.
        tell: told each step, in words.

    Returns:
        the report: what the file is, and what the comparison found.

    Raises:
        InputError: an unknown choice, a size too small, a file that cannot be written or that agrees with
            the network on too few pixels.
    """
    _check_choices(format, inputs, outputs, precision)
    check_path(path, format)
    _check_place(path)
    check_size(format, size)
    model = model.cpu().eval()
    about = describe(model, format, inputs, outputs, precision, size)
    tell("tracing the network")
    program = trace(Deployed(model, inputs, outputs), size)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        tell(f"writing {format}")
        write_program(program, made, format, precision, (input_names(model), outputs), about)
        if format == "openvino":
            _refuse_fatal(path, made)
        tell("comparing the file with the network")
        found = compare(model, load_exported(made), pairs)
        _refuse_poor(path, precision, found)
        # The description last: of a file that is there it is the right one.
        for file in sorted(Path(folder).iterdir()):
            with replacing(path.with_name(file.name)) as temporary:
                temporary.write_bytes(file.read_bytes())
    report = {**about, "file": path.name, "check": found.to_dict()}
    write_json(path.with_name(f"{path.name}.json"), report)
    return report


def describe(
    model: SegmentationModel,
    format: Format,
    inputs: Inputs,
    outputs: Outputs,
    precision: Precision,
    size: tuple[int, int] | None,
) -> dict[str, Any]:
    """What an exported file says of itself: the checkpoint's description, and how to use the file."""
    batch, area = ("B", "H, W") if size is None else ("1", f"{size[0]}, {size[1]}")
    layout = {
        "float": {
            "rgb": f"float32 ({batch}, 3, {area}), 0 to 1",
            "thermal": f"float32 ({batch}, 1, {area}), 0 to 1",
        },
        "uint8": {"rgb": f"uint8 ({batch}, {area}, 3)", "thermal": f"uint8 ({batch}, {area})"},
    }[inputs]
    about = model.describe()
    if size is not None:
        about["input"] = {**about["input"], "size": list(size)}
    return {
        **about,
        "fixed_size": None if size is None else list(size),
        "format": format,
        "precision": precision,
        "inputs": inputs,
        "outputs": outputs,
        "layout": {name: layout[name] for name in input_names(model)},
        "torch": torch.__version__,
        **({} if format == "torch" else {"opset": OPSET}),
    }


def check_path(path: Path, format: Format) -> None:
    """Refuse a name whose suffix is not the format's.

    Raises:
        InputError: with the suffix that is due.
    """
    if path.suffix.lower() != SUFFIX[format]:
        known = SUFFIXES.get(path.suffix.lower())
        other = f" (or choose --format {known})" if known else ""
        raise InputError(f"--out {path}: --format {format} writes {SUFFIX[format]} files; name it so{other}")


def check_size(format: Format, size: tuple[int, int] | None) -> None:
    """Refuse a file for any size where nothing could run it.

    Raises:
        InputError: OpenVINO without a size, or one below what networks take.
    """
    if size is not None and min(size) < MIN_SIZE:
        raise InputError(f"--size {size[0]}x{size[1]}: both sides are at least {MIN_SIZE} pixels")
    if format == "openvino" and size is None:
        raise InputError(
            "--format openvino needs --size HxW: OpenVINO does not run files for any size; "
            "give one, such as --size 480x640, or use --format onnx"
        )


def _check_choices(format: Format, inputs: Inputs, outputs: Outputs, precision: Precision) -> None:
    one_of(format, get_args(Format), f"format {format!r} is unknown; choose")
    one_of(inputs, get_args(Inputs), f"inputs {inputs!r} are unknown; choose")
    one_of(outputs, get_args(Outputs), f"outputs {outputs!r} are unknown; choose")
    one_of(precision, PRECISIONS[format], f"precision {precision!r} is none of {format}; choose")


def _check_place(path: Path) -> None:
    """Tracing takes long: what can never be written is refused before."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise InputError(f"{path}: {parent} is a file, not a folder; choose another place")


def _refuse_fatal(path: Path, made: Path) -> None:
    """Run a file in a process of its own first: where a runtime ends its process, no message would be left.

    Raises:
        InputError: the process ended badly.
    """
    done = subprocess.run([sys.executable, "-c", _PROBE, str(made)], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise InputError(f"{path}: not written: OpenVINO cannot run it ({reason}); use --format onnx")


def _refuse_poor(path: Path, precision: Precision, found: Comparison) -> None:
    if found.agreement < LEAST_AGREEMENT:
        remedy = "use --precision 32" if precision != "32" else "please report this with the checkpoint"
        raise InputError(
            f"{path}: not written: its classes agree with the network's on {found.agreement:.2%} of the "
            f"pixels, less than {LEAST_AGREEMENT:.0%}; {remedy}"
        )
