"""Export a network: the file is compared with the network before it is kept, and described in a report."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from efnet.core.errors import InputError, one_of
from efnet.core.files import write_bytes, write_json
from efnet.data.false_color import is_palette
from efnet.export.formats import (
    OPSET,
    PRECISIONS,
    SUFFIX,
    Deployed,
    Format,
    Inputs,
    Outputs,
    Precision,
    input_names,
    trace,
    write_program,
)
from efnet.export.quantize import check_calibration
from efnet.export.static import check_static, clustered_otherwise, tensorrt_operators
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import Prepared, as_tensors
from efnet.inference.runtime import SUFFIXES, ExportedModel, as_pixels, load_exported
from efnet.models.base import MIN_SIZE, SegmentationModel
from efnet.scenes import render

MIN_AGREEMENT = 0.99
"""Share of pixels whose class has to stay the same; a file with less is not written."""

_ODD = (101, 131)
"""Height and width that no stride of a network divides."""

_REPEATS = 3

_PROBE = """
import sys
import torch
from efnet.inference.runtime import load_exported

model = load_exported(sys.argv[1])
size = model.fixed_size or (64, 96)
rgb, thermal = torch.zeros(1, 3, *size), torch.zeros(1, 1, *size)
model(None if model.modality == "thermal" else rgb, None if model.modality == "rgb" else thermal)
"""


@dataclass(frozen=True)
class Comparison:
    """An exported file compared with its network."""

    pairs: int  # number of pairs compared
    source: str  # `given` or `generated`
    sizes: list[list[int]]  # [B, H, W] tried
    agreement: float  # share of all pixels whose class is the same
    worst: float  # the same for the worst size or pair
    largest_difference: float  # of a logit; 0 for other outputs
    seconds: dict[str, float]  # median for a pair of the first size, of the file (`exported`) and `network`
    threads: int  # used by both


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
    calibration: Sequence[Prepared] = (),
    static: bool = False,
    check: bool = True,
    on_step: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Write a network to a file and compare the file with it.

    Args:
        model: the network; it is moved to the CPU and set to evaluation mode.
        path: the file, with the format's suffix. The report goes to the same name with `.json` added.
        format: `onnx`, `openvino` (`.xml` and `.bin`) or `torch`.
        inputs: of the program, see `Deployed`.
        outputs: of the program, see `Deployed`.
        precision: of the weights, see `PRECISIONS`.
        size: height and width of the one pair that the file takes; None: any batch, height and width.
        pairs: pairs to compare on, of that size; empty: generated ones.
        calibration: pairs that measure the ranges of int8, of that size, see `efnet.export.quantize`.
        static: without loops and sizes that data decide, see `efnet.export.static`.
        check: compare the file with the network; else the report's `check` is None.
        on_step: called with the name of each step.

    Returns:
        the report: the file's description, and the `Comparison` as `check`, with the tokens that a static
        file clusters otherwise.

    Raises:
        InputError: an unknown choice, a size too small, int8 without calibration pairs, a file that cannot be
            written or that agrees with the network on too few pixels.
    """
    one_of(format, get_args(Format), f"format {format!r} is unknown; choose")
    one_of(inputs, get_args(Inputs), f"inputs {inputs!r} are unknown; choose")
    one_of(outputs, get_args(Outputs), f"outputs {outputs!r} are unknown; choose")
    check_options(path, format, precision, size, static, check, len(pairs))
    check_calibration(model, format, precision, len(calibration))
    model = model.cpu().eval()
    deployed = Deployed(model, inputs, outputs)
    about = _describe(deployed, format, precision, size)
    if static:
        about["static"] = {"tensorrt": tensorrt_operators()["version"]}
    if calibration:
        about["calibration_pairs"] = len(calibration)
    on_step("tracing the network")
    program = trace(deployed, size, static)
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / path.name
        on_step(f"writing {format}" + (f", ranges from {len(calibration)} pairs" if calibration else ""))
        feeds = [_feed(deployed, pair) for pair in calibration]
        names = (input_names(model), outputs)
        write_program(program, exported, format, precision, names, about, feeds, static)
        if static:
            check_static(exported, path)
        if format == "openvino":
            _check_runs(path, exported)
        checked = None
        if check:
            on_step("comparing the file with the network")
            comparison = compare(model, load_exported(exported), pairs)
            check_agreement(path, precision, comparison)
            checked = asdict(comparison)
            if static:
                images = [_tensors([pair], inputs) for pair in pairs or _generated(model, size)]
                otherwise, tokens = clustered_otherwise(model, images)
                if tokens:
                    checked |= {"tokens": tokens, "clustered_otherwise": otherwise}
        # OpenVINO's .bin comes first in this order: its .xml must never appear beside older weights.
        for file in sorted(Path(folder).iterdir()):
            write_bytes(path.with_name(file.name), file.read_bytes())
    report = {**about, "file": path.name, "check": checked}
    write_json(path.with_name(f"{path.name}.json"), report)
    return report


def _describe(
    deployed: Deployed, format: Format, precision: Precision, size: tuple[int, int] | None
) -> dict[str, Any]:
    """Return the description inside an exported file: the checkpoint's, and how to use the file."""
    batch, area = ("B", "H, W") if size is None else ("1", f"{size[0]}, {size[1]}")
    if deployed.inputs == "uint8":
        layout = {"rgb": f"uint8 ({batch}, {area}, 3)", "thermal": f"uint8 ({batch}, {area})"}
    else:
        counts = {"rgb": 3, "thermal": 1}
        layout = {name: f"float32 ({batch}, {count}, {area}), 0 to 1" for name, count in counts.items()}
    about = deployed.model.describe()
    if size is not None:
        about["input"] = {**about["input"], "size": list(size)}
    return {
        **about,
        "fixed_size": None if size is None else list(size),
        "format": format,
        "precision": precision,
        "inputs": deployed.inputs,
        "outputs": deployed.outputs,
        "layout": {name: layout[name] for name in input_names(deployed.model)},
        "torch": torch.__version__,
        **({} if format == "torch" else {"opset": OPSET}),
    }


def check_options(
    path: Path, format: Format, precision: str, size: tuple[int, int] | None,
    static: bool = False, check: bool = True, pairs: int = 0,
) -> None:  # fmt: skip
    """Refuse, before the long trace, a file that could never be written.

    Raises:
        InputError: the suffix is not the format's, the path is unusable, the format does not come in this
            precision, the size is too small or missing, the static form does not exist, or there are pairs
            for no comparison. The message names the remedy.
    """
    if path.suffix.lower() != SUFFIX[format]:
        known = SUFFIXES.get(path.suffix.lower())
        other = f" (or choose `format` {known})" if known else ""
        raise InputError(f"{path}: `format` {format} writes {SUFFIX[format]} files; name it so{other}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise InputError(f"{path}: {parent} is a file, not a folder; choose another place")
    if precision not in PRECISIONS[format]:
        choices = ", ".join(PRECISIONS[format])
        raise InputError(f"`precision` {precision}: `format` {format} comes in {choices}")
    sides = size if isinstance(size, tuple | list) else ()
    if size is not None and [type(side) for side in sides] != [int, int]:
        raise InputError(f"`size` {size!r}: give height and width, such as (480, 640)")
    if size is not None and min(size) < MIN_SIZE:
        raise InputError(f"`size` {size[0]}x{size[1]}: both sides are at least {MIN_SIZE} pixels")
    if static and (format != "onnx" or size is None or precision == "int8"):
        raise InputError(
            "`static` is a form of `format` onnx for one `size` HxW, such as 480x640, in `precision` 32 or 16"
        )
    if pairs and not check:
        raise InputError("pairs to compare on are of no use without a check; leave them out, or the check in")
    if format == "openvino" and size is None:
        raise InputError(
            "`format` openvino needs `size` HxW: OpenVINO does not run files for any size; "
            "give one, such as 480x640, or use `format` onnx"
        )


def _check_runs(path: Path, exported: Path) -> None:
    """Run a file in another process first: a runtime may crash its process without a message."""
    done = subprocess.run([sys.executable, "-c", _PROBE, str(exported)], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise InputError(f"{path}: not written: OpenVINO cannot run it ({reason}); use `format` onnx")


def check_agreement(path: Path, precision: Precision, comparison: Comparison) -> None:
    """Raise an `InputError` if fewer than `MIN_AGREEMENT` of the pixels keep their class."""
    if comparison.agreement < MIN_AGREEMENT:
        remedy = "use `precision` 32" if precision != "32" else "please report this with the checkpoint"
        raise InputError(
            f"{path}: not written: its classes agree with the network's on {comparison.agreement:.2%} of the "
            f"pixels, less than {MIN_AGREEMENT:.0%}; {remedy}"
        )


def compare(model: SegmentationModel, exported: ExportedModel, given: Sequence[Prepared]) -> Comparison:
    """Compare an exported file with its network, which is on the CPU and in evaluation mode.

    The pairs `given` have the file's size if that is fixed; without any, pairs are generated. A file for any
    size is also tried on an odd size and on a batch of two.
    """
    pairs = list(given) or _generated(model, exported.input.size)
    batches = [[pair] for pair in pairs]
    if exported.fixed_size is None:
        first, last = pairs[0], pairs[-1]
        height, width = map(min, _ODD, first.network_size, last.network_size)
        small = _corner(first, slice(height), slice(width))
        batches += [[small], [small, _corner(last, slice(-height, None), slice(-width, None))]]
    equal, largest = [], 0.0
    for batch in batches:
        images = _tensors(batch, exported.inputs)
        ours, theirs = _run(model, images), _run(exported, images)
        equal.append(ours.argmax(1) == theirs.argmax(1))
        if exported.outputs == "logits":
            largest = max(largest, float((ours - theirs).abs().max()))
    timed = _tensors(batches[0], exported.inputs)
    agreement, worst = shares(equal)
    return Comparison(
        pairs=len(pairs),
        source="given" if given else "generated",
        sizes=[list(size) for size in sorted({(len(batch), *batch[0].network_size) for batch in batches})],
        agreement=agreement,
        worst=worst,
        largest_difference=largest,
        seconds={"exported": _seconds(exported, timed), "network": _seconds(model, timed)},
        threads=torch.get_num_threads(),
    )


def shares(equal: Sequence[Tensor]) -> tuple[float, float]:
    """Return the share of equal pixels in one or more maps of bool of any shape, and in the worst of them."""
    counts = [(int(one.sum()), one.numel()) for one in equal]
    same, pixels = map(sum, zip(*counts, strict=True))
    return same / pixels, min(count / total for count, total in counts)


def _generated(model: SegmentationModel, size: tuple[int, int] | None) -> list[Prepared]:
    height, width = size or (240, 320)
    predictor = Predictor(model, device="cpu")
    predictor.size = size
    if is_palette(predictor.thermal_scale):
        predictor.thermal_scale = "auto"  # the scenes are grey, as what colours are read back to
    shape = max(height, 64), max(width, 64)
    scenes = [render(0, shape, "day"), render(1, shape, "night")]
    return [
        predictor.prepare(
            None if model.modality == "thermal" else scene.rgb,
            None if model.modality == "rgb" else scene.thermal,
        )
        for scene in scenes
    ]


def _corner(pair: Prepared, rows: slice, columns: slice) -> Prepared:
    return replace(
        pair,
        rgb=None if pair.rgb is None else pair.rgb[rows, columns],
        thermal=None if pair.thermal is None else pair.thermal[rows, columns],
    )


def _tensors(pairs: Sequence[Prepared], inputs: str) -> tuple[Tensor | None, Tensor | None]:
    """Return images as network input, rounded to 8 bits for a file with uint8 inputs."""
    rgb, thermal = as_tensors(pairs, torch.device("cpu"))
    if thermal is not None and inputs == "uint8":
        thermal = (thermal * 255).round() / 255
    return rgb, thermal


def _feed(deployed: Deployed, pair: Prepared) -> dict[str, NDArray[np.generic]]:
    """Return the images of a pair as the file's inputs by name."""
    images = [image for image in _tensors([pair], deployed.inputs) if image is not None]
    if deployed.inputs == "uint8":
        images = [as_pixels(image) for image in images]
    return {name: image.numpy() for name, image in zip(input_names(deployed.model), images, strict=True)}


@torch.inference_mode()
def _run(network: torch.nn.Module, images: tuple[Tensor | None, Tensor | None]) -> Tensor:
    logits: Tensor = network(*images)
    return logits


def _seconds(network: torch.nn.Module, images: tuple[Tensor | None, Tensor | None]) -> float:
    spent = []  # the comparison ran both before
    for _ in range(_REPEATS):
        start = time.perf_counter()
        _run(network, images)
        spent.append(time.perf_counter() - start)
    return sorted(spent)[_REPEATS // 2]
