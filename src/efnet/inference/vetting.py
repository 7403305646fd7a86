"""Checks of a program of `torch.export` before PyTorch reads it, because that can run code.

`torch.export.load` unpickles tensors that say so and falls back to unpickling everything, evaluates sizes as
Python, loads compiled libraries, and calls any function below `torch` that the graph names, `torch.os.system`
included. What `efnet export` writes needs none of it: tensors as bytes, operators, arithmetic of sizes.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from efnet.core import compat
from efnet.core.errors import InputError

_ENTRIES = re.compile(
    r"data/(weights/(weight_\d+|model_weights_config\.json)"
    r"|constants/(tensor_\d+|model_constants_config\.json)|sample_inputs/model\.pt)"
    r"|models/model\.json|extra/\w+|archive_format|archive_version|byteorder|\.data/\w+|\.format_version"
)
"""Files in an archive of one program whose tensors are plain bytes."""

_OPERATOR = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
_REFUSED_OPERATORS = ("from_file", "set_", "set_data")
"""ATen operators that open files or point a tensor at other memory."""
_FUNCTIONS = frozenset(
    [f"torch.ops.higher_order.{name}" for name in ("while_loop", "cond", "wrap_with_set_grad_enabled")]
    + [f"torch.sym_{name}" for name in ("max", "min", "int", "float", "not", "ite", "sum")]
    + [f"_operator.{name}" for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem")]
    + [f"_operator.{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "pos")]
    + [f"math.{name}" for name in ("ceil", "floor", "trunc")]
)
"""Functions that a graph may call besides operators of ATen."""

_SIZES = frozenset((
    "Add", "Mul", "Integer", "Rational", "Float", "Symbol", "Max", "Min", "FloorDiv", "Mod", "PythonMod",
    "ModularIndexing", "CleanDiv", "CeilDiv", "CeilToInt", "FloorToInt", "TruncToInt", "IntTrueDiv",
    "FloatTrueDiv", "Where", "Eq", "Ne", "Le", "Lt", "Ge", "Gt", "And", "Or", "Not",
))  # fmt: skip
"""Functions in expressions of sizes."""
_PARTS = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.UnaryOp, ast.USub,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod,
    ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip
_NAME = re.compile(r"[\w.]*", re.ASCII)
_SYMBOL = re.compile(r"[a-z]{1,3}\d+")


def load_program(path: Path, held: dict[str, str]) -> ExportedProgram:
    """Read a `.pt2` file of operators on tensors, its texts into `held`; raises InputError for others."""
    try:
        open_archive, load_archive = compat.program_archive()
    except ImportError as error:
        raise InputError(f"{path}: .pt2 files need PyTorch 2.8 or later; update it or use .onnx") from error
    # Read once: what is looked at is what is loaded.
    content = path.read_bytes()
    finding = next(_findings(open_archive(io.BytesIO(content))), None)
    if finding is not None:
        raise InputError(
            f"{path}: {finding}, which efnet export does not write and which could run code; it was not "
            "loaded: export the checkpoint again"
        )
    contents = load_archive(io.BytesIO(content))
    held.update(contents.extra_files)
    program: ExportedProgram = contents.exported_programs["model"]
    return program


def _findings(reader: Any) -> Iterator[str]:
    """Describe what is not plain in an archive."""
    names = reader.get_file_names()
    for name in names:
        if not _ENTRIES.fullmatch(name) or names.count(name) > 1:
            yield f"holds the file {name[:80]!r}"
    for kind in ("weights", "constants"):
        config = json.loads(reader.read_bytes(f"data/{kind}/model_{kind}_config.json"))
        for name, payload in config["config"].items():
            if payload["use_pickle"] is not False or not re.fullmatch(
                r"(weight|tensor)_\d+", payload["path_name"]
            ):
                yield f"holds {name[:80]!r} as a pickle"
    try:
        torch.load(io.BytesIO(reader.read_bytes("data/sample_inputs/model.pt")), weights_only=True)
    except Exception:
        yield "holds sample inputs that are not plain tensors"
    yield from _findings_in(json.loads(reader.read_bytes("models/model.json")))


def _findings_in(value: Any) -> Iterator[str]:
    """Describe what is not plain in the description of a graph and in all below it."""
    if isinstance(value, list):
        for item in value:
            yield from _findings_in(item)
    elif isinstance(value, dict):
        if "target" in value and "inputs" in value and not _is_plain_call(value["target"]):
            yield f"calls {str(value['target'])[:80]!r}"
        if "expr_str" in value and not _is_plain_size(value["expr_str"]):
            yield f"computes a size as {str(value['expr_str'])[:80]!r}"
        for key in ("name", "as_name"):  # they become part of the source that PyTorch makes of a graph
            if isinstance(value.get(key), str) and not _NAME.fullmatch(value[key]):
                yield f"names something {value[key][:80]!r}"
        for key in ("custom_obj_values", "guards_code", "treespec_namedtuple_fields"):
            if value.get(key):
                yield f"holds {key}"
        for item in value.values():
            yield from _findings_in(item)


def _is_plain_call(target: object) -> bool:
    if target in _FUNCTIONS:
        return True
    found = _OPERATOR.fullmatch(target) if isinstance(target, str) else None
    if found is None or found[1] in _REFUSED_OPERATORS:
        return False
    named = getattr(getattr(torch.ops.aten, found[1], None), found[2], None)
    return isinstance(named, type(torch.ops.aten.add.Tensor))


def _is_plain_size(text: object) -> bool:
    """Whether an expression is arithmetic of symbols and numbers: PyTorch hands it to Python's eval."""
    if not isinstance(text, str) or len(text) > 100_000:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for part in ast.walk(tree):
        if not isinstance(part, _PARTS):
            return False
        if isinstance(part, ast.Call) and not (isinstance(part.func, ast.Name) and part.func.id in _SIZES):
            return False
        if isinstance(part, ast.Name) and part.id not in _SIZES and not _SYMBOL.fullmatch(part.id):
            return False
        if isinstance(part, ast.Constant):
            value = part.value  # numbers, truth values, and names of symbols
            is_symbol = isinstance(value, str) and _SYMBOL.fullmatch(value)
            if not is_symbol and not isinstance(value, int | float):
                return False
    return True
