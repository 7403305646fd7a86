"""Making an ONNX graph smaller: what is known already, what is there twice, what nobody reads."""

from __future__ import annotations

import onnx_ir
import onnx_ir.passes.common as common
from onnxscript import optimizer


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
