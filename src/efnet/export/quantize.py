"""Static int8: products in integers, with the ranges of activations measured on pairs of the user.

The file is in ONNX's QDQ form, which ONNX Runtime and OpenVINO fuse into integer kernels. Weights are int8,
symmetric, with a scale for each output channel; activations are uint8 with one scale each, so that a ReLU is
the range itself and costs nothing.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError
from efnet.models.base import SegmentationModel
from efnet.models.dbtc import DBTC

Feed = Mapping[str, NDArray[np.generic]]
"""Images of a calibration pair by the names of the file's inputs."""

QUANTIZED = ("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "Concat")
"""Operators in integers. All others stay float: normalisations, the softmax of an attention and its products
(integer kernels of these are slower than float), and the enlargement of the logits."""


def clusters_tokens(model: SegmentationModel) -> bool:
    """Return whether a network clusters tokens, by differences that 8 bits do not keep."""
    return any(isinstance(part, DBTC) for part in model.modules())


def check_calibration(model: SegmentationModel, format: str, precision: str, pairs: int) -> None:
    """Refuse calibration pairs where none are used, and int8 without them.

    Raises:
        InputError: the message names the remedy.
    """
    if precision != "int8":
        if pairs:
            raise InputError(f"calibration pairs belong to `precision` int8, not {precision}; leave them out")
        return
    if clusters_tokens(model):
        if format == "openvino":
            raise InputError(
                f"`precision` int8: {model.name} clusters tokens by differences that 8 bits do not keep; use "
                "`precision` 16, or an edge preset"
            )
        if pairs:
            raise InputError(
                f"{model.name} clusters tokens: int8 is for its linear layers alone, whose ranges are "
                "measured while the file runs; leave the calibration pairs out"
            )
    elif not pairs:
        raise InputError(
            "`precision` int8 needs pairs like those that the file will see, to measure ranges: give "
            "`calibrate_rgb` and `calibrate_thermal`, `calibrate_rgbt`, or `calibrate_dataset`"
        )


def quantize_dynamically(path: Path) -> None:
    """Replace the linear layers of an ONNX file with integer ones that measure their inputs as they run."""
    quantization: Any = importlib.import_module("onnxruntime.quantization")
    integers = quantization.QuantType.QInt8
    quantization.quantize_dynamic(path, path, op_types_to_quantize=["MatMul", "Gemm"], weight_type=integers)


def quantize(path: Path, feeds: Sequence[Feed]) -> None:
    """Quantise an ONNX file in place, with ranges from the smallest to the largest value over all feeds.

    The same file and feeds give the same bits on one machine.
    """
    import onnx

    quantization: Any = importlib.import_module("onnxruntime.quantization")
    kinds = quantization.QuantType
    with tempfile.TemporaryDirectory() as folder:
        folded, made = Path(folder) / "folded.onnx", Path(folder) / "made.onnx"
        _fold(path, folded)
        quantization.quantize_static(
            folded,
            made,
            _Reader(feeds),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=kinds.QUInt8,
            weight_type=kinds.QInt8,
            nodes_to_exclude=_of_attention(onnx.load(folded)),
            calibration_providers=["CPUExecutionProvider"],
        )
        model = onnx.load(made)
    source = onnx.load(path)
    # Neither step keeps both: what the file is, and only the operator sets that it uses.
    for held, kept in (
        (model.metadata_props, source.metadata_props),
        (model.opset_import, source.opset_import),
    ):
        del held[:]
        held.extend(kept)
    model.producer_name, model.producer_version = source.producer_name, source.producer_version
    onnx.save(model, path)


class _Reader:
    """The feeds, one after another, as the calibration of ONNX Runtime asks for them."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        """Return the next feed; None: that was the last."""
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def _fold(path: Path, folded: Path) -> None:
    """Fold batch normalisation into convolutions, by ONNX Runtime: a scale for each layer needs its sum."""
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    options.log_severity_level = 3
    runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _of_attention(model: Any) -> list[str]:
    """Return the names of an attention's nodes: products without weights, and what is added before a softmax.

    A mask adds -10000 there: of a range with that in it, 8 bits would leave nothing to the scores.
    """
    weights = {weight.name for weight in model.graph.initializer}
    scores = {node.input[0] for node in model.graph.node if node.op_type == "Softmax"}
    return [
        node.name
        for node in model.graph.node
        if (node.op_type == "MatMul" and not weights.intersection(node.input))
        or (node.op_type == "Add" and node.output[0] in scores)
    ]
