"""Trace a network to a program of plain operators, and write it in each format with its description inside.

The program is for any size or for one. Only `torch` is needed to import this module: the packages of the
other formats are extras.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.nn.attention import SDPBackend, sdpa_kernel

from efnet.core.compat import tracing_any_size
from efnet.core.errors import InputError
from efnet.core.files import replacing, write_bytes
from efnet.export.quantize import Feed, quantize, quantize_dynamically
from efnet.export.static import sorts_in_parts, static_form
from efnet.inference.runtime import METADATA, import_silenced
from efnet.models.base import SegmentationModel

Inputs = Literal["float", "uint8"]
Outputs = Literal["logits", "probabilities", "classes"]

_TRACED = (2, 100, 132)
"""Batch, height and width of the trace: no other size of the network equals one of them."""

_ORIGINS = ("stack_trace", "from_node", "source_fn_stack", "torch_fn")

_ASSERTIONS = (torch.ops.aten._assert_scalar.default, torch.ops.aten._assert_tensor_metadata.default)

Format = Literal["onnx", "openvino", "torch"]
Precision = Literal["32", "16", "int8"]

SUFFIX: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}

PRECISIONS: dict[Format, tuple[Precision, ...]] = {
    "onnx": ("32", "16", "int8"),
    "openvino": ("32", "16", "int8"),
    "torch": ("32",),
}
"""Precisions of each format. 16: weights stored in half precision; int8: products in integers."""

OPSET = 20
"""The newest operator set of ONNX that both ONNX Runtime and OpenVINO implement fully."""


class Deployed(nn.Module):
    """A network with the conversion of its inputs and outputs, as a program runs it.

    Inputs `float` are rgb (B, 3, H, W) and thermal (B, 1, H, W) in [0, 1]; `uint8` are rgb (B, H, W, 3) and
    thermal (B, H, W), 0 to 255. Outputs are `logits` or `probabilities` (B, K, H, W), float32, or `classes`
    (B, H, W), uint8. Probabilities are at the checkpoint's temperature; logits are as the network gives them.
    """

    def __init__(self, model: SegmentationModel, inputs: Inputs, outputs: Outputs) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.outputs = outputs

    def forward(self, *images: Tensor) -> Tensor:
        """Run the network on the images that it takes, RGB first."""
        if self.inputs == "uint8":
            images = tuple(self._from_pixels(image) for image in images)
        rgb = None if self.model.modality == "thermal" else images[0]
        thermal = None if self.model.modality == "rgb" else images[-1]
        logits: Tensor = self.model(rgb, thermal)
        if self.outputs == "classes":
            return logits.argmax(1).to(torch.uint8)
        if self.outputs == "probabilities":
            calibrated = logits if self.model.temperature == 1.0 else logits / self.model.temperature
            return calibrated.softmax(1)
        return logits

    def example(self, size: tuple[int, int, int] = _TRACED) -> tuple[Tensor, ...]:
        """Return images of this batch, height and width, as the program takes them."""
        batch, height, width = size
        channels = {"rgb": (3,), "thermal": (1,), "rgbt": (3, 1)}[self.model.modality]
        generator = torch.Generator().manual_seed(0)
        images = [torch.rand(batch, count, height, width, generator=generator) for count in channels]
        if self.inputs == "float":
            return tuple(images)
        pixels = [(image * 255).to(torch.uint8).permute(0, 2, 3, 1) for image in images]
        return tuple(image if image.shape[3] == 3 else image[..., 0] for image in pixels)

    @staticmethod
    def _from_pixels(image: Tensor) -> Tensor:
        image = image.permute(0, 3, 1, 2) if image.ndim == 4 else image[:, None]
        return image.float() / 255


def input_names(model: SegmentationModel) -> list[str]:
    """Return those of `rgb` and `thermal` that the network takes."""
    return {"rgb": ["rgb"], "thermal": ["thermal"], "rgbt": ["rgb", "thermal"]}[model.modality]


def trace(deployed: Deployed, size: tuple[int, int] | None = None, static: bool = False) -> ExportedProgram:
    """Trace a network in evaluation mode on the CPU, in float32.

    The program is for one pair of `size` (H, W). Without it, its batch, height and width are free (height and
    width from 32). `static`: in the form of `efnet.export.static`, for one size.
    """
    images = deployed.example() if size is None else deployed.example((1, *size))
    free = [_free_axes(image) if size is None else {} for image in images]
    # Loops that ran before stay compiled, and PyTorch 2.13 may fail to compare new ones with them.
    torch.compiler.reset()
    with (
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        # A fused kernel would fix the memory layout of its result in the program.
        sdpa_kernel(SDPBackend.MATH),
        tracing_any_size(),
        static_form() if static else contextlib.nullcontext(),
    ):
        program = torch.export.export(
            deployed,
            images,
            # The arguments of a *images are one tuple.
            dynamic_shapes=(tuple(free),),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    _free_layouts(program)
    _forget_origins(program)
    return program


def _free_axes(image: Tensor) -> dict[int, object]:
    """Return the axes of batch, height and width; channels come second in float images, last in uint8."""
    return dict.fromkeys((0, 2, 3) if image.is_floating_point() else (0, 1, 2), Dim.DYNAMIC)


def _forget_origins(program: ExportedProgram) -> None:
    """Remove the source line of each node: it would name folders of this machine."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            for kind in _ORIGINS:
                node.meta.pop(kind, None)


def _free_layouts(program: ExportedProgram) -> None:
    """Remove what holds only for the memory layouts of the traced size: assertions, and views."""
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
        elif node.target in _ASSERTIONS:
            program.graph.erase_node(node)
    for size, found in list(program.range_constraints.items()):
        program.range_constraints[size] = type(found)(1, found.upper)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def check_installed(format: Format) -> None:
    """Raise an `InputError` with the install command if packages of a format are missing."""
    onnx = ("onnx", "onnxscript", "onnxruntime")
    needed = {"torch": (), "onnx": onnx, "openvino": (*onnx, "openvino")}
    for package in needed[format]:
        try:
            import_silenced(package)
        except ImportError as error:
            extras = "onnx" if format == "onnx" else "onnx,openvino"
            raise InputError(
                f"`format` {format} needs {package}, which is not installed; pip install 'efnet[{extras}]'"
            ) from error


def write_program(
    program: ExportedProgram,
    path: Path,
    format: Format,
    precision: Precision,
    names: tuple[list[str], str],
    about: dict[str, Any],
    calibration: Sequence[Feed] = (),
    static: bool = False,
) -> None:
    """Write a program of `trace` to one file (OpenVINO: two, `.xml` and `.bin`), whole or not at all.

    `names` are those of the inputs and of the output; `about` is the description inside the file.
    `calibration` gives int8 its ranges; without any, only linear layers of ONNX files become integer ones.
    `static`: the program was traced in that form, ONNX alone.
    """
    text = json.dumps(about, ensure_ascii=False)
    if format == "torch":
        with replacing(path) as temporary:
            torch.export.save(program, temporary, extra_files={METADATA: text})
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        _save_onnx(program, plain, names, text, static)
        if precision == "int8":
            quantize(plain, calibration) if calibration else quantize_dynamically(plain)
        if format == "openvino":
            _write_openvino(plain, path, precision, text)
            return
        if precision == "16":
            _halve_weights(plain)
        write_bytes(path, plain.read_bytes())


def _save_onnx(
    program: ExportedProgram, path: Path, names: tuple[list[str], str], text: str, static: bool
) -> None:
    inputs, output = names
    # A fused kernel would fix the memory layout of its result in the program.
    with sdpa_kernel(SDPBackend.MATH):
        made = torch.onnx.export(
            program,
            (),
            None,
            input_names=inputs,
            output_names=[output],
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            custom_translation_table=sorts_in_parts() if static else translations(),
            verbose=False,
            # Its search for patterns takes longer than the rest; `_simplify` leaves it out.
            optimize=False,
        )
    assert made is not None
    _simplify(made.model)
    made.model.metadata_props[METADATA] = text
    made.save(str(path))


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return operators whose translation to ONNX PyTorch lacks, for `torch.onnx.export`."""
    op: Any = importlib.import_module("onnxscript").opset20

    def sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        """A stable sort: ONNX's TopK returns the lower index first where values are equal."""
        count = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]), axis=0)
        return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)

    return {torch.ops.aten.sort.stable: sort}


def _simplify(model: Any) -> None:
    """Fold constants and remove repetitions in an `onnx_ir.Model`, in place.

    These are the steps of `onnxscript.optimizer.optimize` without its rewriting rules, whose matching walks
    the whole graph at every node; ONNX Runtime and OpenVINO have their own.
    """
    passes: Any = importlib.import_module("onnx_ir.passes.common")
    passes.InlinePass()(model)
    importlib.import_module("onnxscript.optimizer").fold_constants(model)
    for step in (
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.LiftSubgraphInitializersToMainGraphPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        step(model)


def _halve_weights(path: Path) -> None:
    """Keep large weights in half precision, widened again when the file is loaded."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < 256:
            continue
        values, name = numpy_helper.to_array(weight), weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    onnx.save(model, path)


def _write_openvino(plain: Path, path: Path, precision: Precision, text: str) -> None:
    openvino = import_silenced("openvino")
    model = openvino.convert_model(plain)
    model.set_rt_info(text, METADATA)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.xml"
        openvino.save_model(model, made, compress_to_fp16=precision == "16")
        # The weights first: a new graph must never lie beside old weights.
        for suffix in (".bin", ".xml"):
            write_bytes(path.with_suffix(suffix), made.with_suffix(suffix).read_bytes())
