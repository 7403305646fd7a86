"""Writing a program in each format, with what it is inside the file.

Making an ONNX graph smaller: what is known already, what is there twice, what nobody reads.

Operators whose translation to ONNX PyTorch lacks.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import onnx_ir
import onnx_ir.passes.common as common
import onnxscript
import torch
from onnxscript import optimizer
from torch.export import ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from efnet.core.errors import InputError
from efnet.core.files import replacing
from efnet.inference.runtime import METADATA, import_silenced


def simplify(model: onnx_ir.Model) -> None:
    """Fold constants and take out repetitions, in place.

    What `onnxscript.optimizer.optimize` does but for its rewriting rules, whose matching walks the whole
    graph at every node; ONNX Runtime and OpenVINO have their own.
    """
    common.InlinePass()(model)
    optimizer.fold_constants(model)
    for step in (
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        step(model)


op: Any = onnxscript.opset20


def _sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """A stable sort: ONNX's TopK lets the lower index win where values are equal."""
    count = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]), axis=0)
    return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The table for `torch.onnx.export`."""
    return {torch.ops.aten.sort.stable: _sort}


Format = Literal["onnx", "openvino", "torch"]
Precision = Literal["32", "16", "int8"]

SUFFIX: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}

PRECISIONS: dict[Format, tuple[Precision, ...]] = {
    "onnx": ("32", "16", "int8"),
    "openvino": ("32", "16"),
    "torch": ("32",),
}
"""What there is of each format: 16: weights kept in half precision, int8: linear layers in whole numbers."""

OPSET = 20
"""Of ONNX: the newest one that ONNX Runtime and OpenVINO both know all operators of."""


def check_installed(format: Format) -> None:
    """Refuse a format whose packages are missing, before anything is computed.

    Raises:
        InputError: with the command that installs them.
    """
    needed = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": ()}
    needed["openvino"] = (*needed["onnx"], "openvino")
    for package in needed[format]:
        try:
            import_silenced(package)
        except ImportError as error:
            extras = "onnx" if format == "onnx" else "onnx,openvino"
            raise InputError(
                f"--format {format} needs {package}, which is not installed; pip install 'efnet[{extras}]'"
            ) from error


def write_program(
    program: ExportedProgram,
    path: Path,
    format: Format,
    precision: Precision,
    names: tuple[list[str], str],
    about: dict[str, Any],
) -> None:
    """Write one file (OpenVINO: two, `.xml` and `.bin`), whole or not at all.

    Args:
        program: from `trace`.
        path: with the suffix of the format.
        format: what is written.
        precision: one of the format's.
        names: of the inputs and of the output.
        about: plain values that go into the file.
    """
    text = json.dumps(about, ensure_ascii=False)
    if format == "torch":
        with replacing(path) as temporary:
            torch.export.save(program, temporary, extra_files={METADATA: text})
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        _save_onnx(program, plain, names, text)
        if format == "openvino":
            _write_openvino(plain, path, precision, text)
            return
        if precision == "16":
            _halve_weights(plain)
        elif precision == "int8":
            _quantize(plain)
        with replacing(path) as temporary:
            temporary.write_bytes(plain.read_bytes())


def _save_onnx(program: ExportedProgram, path: Path, names: tuple[list[str], str], text: str) -> None:

    inputs, output = names
    # The layout that a fused kernel's result has would be taken for granted.
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
            custom_translation_table=translations(),
            verbose=False,
            # Its search for patterns takes longer than all the rest.
            optimize=False,
        )
    assert made is not None
    simplify(made.model)
    made.model.metadata_props[METADATA] = text
    made.save(str(path))


def _halve_weights(path: Path) -> None:
    """Keep large weights in half precision, widened again when the file is loaded."""
    import numpy as np
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


def _quantize(path: Path) -> None:
    quantization: Any = importlib.import_module("onnxruntime.quantization")
    quantization.quantize_dynamic(
        path,
        path,
        op_types_to_quantize=["MatMul", "Gemm"],
        weight_type=quantization.QuantType.QInt8,
    )


def _write_openvino(plain: Path, path: Path, precision: Precision, text: str) -> None:
    openvino = import_silenced("openvino")
    model = openvino.convert_model(plain)
    model.set_rt_info(text, METADATA)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.xml"
        openvino.save_model(model, made, compress_to_fp16=precision == "16")
        # The weights first: a file without its partner would be the new one with the old weights.
        for suffix in (".bin", ".xml"):
            with replacing(path.with_suffix(suffix)) as temporary:
                temporary.write_bytes(made.with_suffix(suffix).read_bytes())
