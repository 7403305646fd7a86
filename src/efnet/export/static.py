"""The static form of a network that clusters, for runtimes without loops: TensorRT.

Every size in it is known, so that no `Loop`, `If` or `NonZero` is left. `TopK` stays within TensorRT's bound:
longer rows are sorted in parts, which are then merged. `tensorrt.yaml` lists the operators that it reads.

A search of the clustering compares as many open tokens as are usual with all others
(`efnet.ops.clustering.traceable`). If more are open, the rest take the nearest of their windows:
`clustered_otherwise` counts what that changes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from efnet.core import compat
from efnet.core.errors import InputError
from efnet.models.dbtc import DBTC
from efnet.ops.segments import Shares
from efnet.ops.tokens import Size, TokenGrid, cell_index

TOP_K = 3839
"""Largest K of a `TopK` that TensorRT takes."""

_LARGEST = float(np.finfo(np.float32).max)


def static_form() -> AbstractContextManager[None]:
    """Trace, or run, clusterings and means between tokens and maps in the static form."""
    return compat.static_form(_exchange)


class _Places(NamedTuple):
    """Means of tokens in the cells of a map; as of `efnet.ops.segments.Shares`."""

    rows: Tensor  # (groups, R) tokens of a map cell
    weights: Tensor  # (groups, 1, R) sum to one; zero for what fills a row

    def mean(self, features: Tensor) -> Tensor:
        """Features (tokens, C) as means (groups, C)."""
        taken = features.index_select(0, self.rows.flatten())
        return (self.weights @ taken.view(*self.rows.shape, features.shape[1])).squeeze(1)


class _Exchange(NamedTuple):
    """Both ways between tokens and a map; as of `efnet.ops.segments.Exchange`."""

    to_token: Shares
    to_map: _Places


def _exchange(grid: TokenGrid, map_size: Size) -> _Exchange:
    """Means between the tokens of one sample and a map.

    A map cell has the same cells of the grid in every image; a token's are sorted once for all maps.
    """
    token, parts = grid.assignment.flatten(), grid.cells.segments
    assert parts is not None
    (row, tall), (column, wide) = map(_parts, grid.size, map_size)
    places = (row[:, None, :, None] * grid.size[1] + column[:, None, :]).flatten(0, 1).flatten(1)
    weights = (tall[:, None, :, None] * wide[:, None, :]).flatten(0, 1).flatten(1)
    to_map = _Places(token[places], weights[:, None])
    ends = torch.cat([parts.start[1:], torch.full_like(parts.start[:1], token.shape[0])])
    order = grid.cells.order
    share = (1 / (ends - parts.start).float())[token[order]]
    return _Exchange(
        Shares(cell_index(grid.size, map_size, token.device)[order], parts.weighted(share)), to_map
    )


def _parts(cells: int, parts: int) -> tuple[Tensor, Tensor]:
    """(parts, R) which cells of an axis fall into each of its parts, and their weights, zero for filling."""
    held = [[cell for cell in range(cells) if cell * parts // cells == part] for part in range(parts)]
    most = max(map(len, held))
    filled = [own + own[:1] * (most - len(own)) for own in held]
    weights = [[1 / len(own)] * len(own) + [0.0] * (most - len(own)) for own in held]
    return torch.tensor(filled), torch.tensor(weights)


@torch.no_grad()
def clustered_otherwise(
    model: nn.Module, pairs: Sequence[tuple[Tensor | None, Tensor | None]]
) -> tuple[int, int]:
    """Count the tokens that the static form puts into another cluster than `efnet.ops.dpc_knn` does.

    Both cluster the features of the network in PyTorch. Clusters are the same if their centres are.

    Args:
        model: the network, in evaluation mode.
        pairs: images (B, 3, H, W) and (B, 1, H, W), as the network takes them.

    Returns:
        Such tokens, and all tokens, of all clusterings and pairs.
    """
    counts = [0, 0]

    def look(module: nn.Module, given: object, made: Any) -> None:
        assert isinstance(module, DBTC)
        exact = module.clusters(made[1])
        with static_form():
            found = module.clusters(made[1])
        other = exact.centers.gather(1, exact.assignment) != found.centers.gather(1, found.assignment)
        counts[0] += int(other.sum())
        counts[1] += other.numel()

    handles = [part.register_forward_hook(look) for part in model.modules() if isinstance(part, DBTC)]
    try:
        for images in pairs if handles else ():
            model(*images)
    finally:
        for handle in handles:
            handle.remove()
    return counts[0], counts[1]


def sorts_in_parts() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return translations to ONNX of the two sorts of PyTorch, for rows of any known length."""

    def stable(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        return sort(values, dim, descending)

    def plain(values: Any, dim: int = -1, descending: bool = False) -> Any:
        return sort(values, dim, descending)

    def sort(values: Any, dim: int, descending: bool) -> Any:
        op: Any = importlib.import_module("onnxscript").opset20
        shape = [int(side) for side in values.shape]
        length = shape[dim]
        if length <= TOP_K:
            count = op.Constant(value_ints=[length])
            return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)
        assert length == np.prod(shape), "long rows are those of one sample"
        row = op.Reshape(values, op.Constant(value_ints=[length]))
        order = order_in_parts(op, op.Neg(row) if descending else row, length)
        ordered, whole = op.Gather(row, order, axis=0), op.Constant(value_ints=shape)
        return op.Reshape(ordered, whole), op.Reshape(order, whole)

    return {torch.ops.aten.sort.stable: stable, torch.ops.aten.sort.default: plain}


def order_in_parts(op: Any, row: Any, length: int) -> Any:
    """Return the ascending, stable order (length,) of a row of float32 or int64, by operators of ONNX `op`.

    Each part is sorted by `TopK`. The place of an element is its place in its part, plus the number of
    elements of each other part that come before it, found by bisection.
    """
    parts = -(-length // TOP_K)
    width = -(-length // parts)
    steps = [1 << bit for bit in reversed(range(width.bit_length()))]

    def constant(values: Any) -> Any:
        return op.Constant(value=_tensor(values))

    row = op.Cast(row, to=1)  # whole numbers below 2^24, or float32 already
    filled = op.Pad(row, constant(np.array([0, parts * width - length])), constant(np.float32(_LARGEST)))
    table = op.Reshape(filled, constant(np.array([parts, width])))
    ordered, index = op.TopK(table, constant(np.array([width])), axis=1, largest=0, sorted=1)
    columns = op.Pad(
        ordered, constant(np.array([0, 0, 0, sum(steps) - width])), constant(np.float32(_LARGEST))
    )
    values = op.Reshape(ordered, constant(np.array([1, parts * width])))
    owner = np.arange(parts * width) // width
    other = np.arange(parts)[:, None]
    earlier = constant(other < owner)  # parts whose elements come first where they are equal
    place = constant(np.zeros((parts, parts * width), np.int64))
    for step in steps:
        seen = op.GatherElements(columns, op.Add(place, constant(np.int64(step - 1))), axis=1)
        before = op.Or(op.Less(seen, values), op.And(op.Equal(seen, values), earlier))
        place = op.Add(place, op.Mul(op.Cast(before, to=7), constant(np.int64(step))))
    place = op.Mul(place, constant((other != owner).astype(np.int64)))
    rank = op.Add(
        op.ReduceSum(place, constant(np.array([0])), keepdims=0), constant(np.arange(parts * width) % width)
    )
    token = op.Add(index, constant(np.arange(parts)[:, None] * width))
    first = (constant(np.array([0])), constant(np.array([length])))
    rank, token = (op.Slice(each, *first) for each in (rank, op.Reshape(token, constant(np.array([-1])))))
    return op.ScatterElements(constant(np.zeros(length, np.int64)), rank, token, axis=0)


def _tensor(values: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.asarray(values))


@cache
def tensorrt_operators() -> dict[str, Any]:
    """Return the facts of `tensorrt.yaml`: version, source, date, operators, and the bound of `TopK`."""
    text = resources.files(__package__).joinpath("tensorrt.yaml").read_text(encoding="utf-8")
    facts: dict[str, Any] = yaml.safe_load(text)
    return facts


def check_static(path: Path, named: Path) -> int:
    """Return the number of nodes of an ONNX file that TensorRT's published list covers.

    Args:
        path: the file.
        named: the path in the message.

    Raises:
        InputError: operators that are not on the list or depend on data, or a `TopK` beyond the bound.
    """
    import onnx

    facts = tensorrt_operators()
    graph = onnx.load(path).graph
    numbers = {
        weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer if weight.dims == [1]
    }
    bad = {node.op_type for node in graph.node} - set(facts["operators"]) | {
        node.op_type for node in graph.node if node.op_type in facts["data_dependent"]
    }
    for node in graph.node:
        if node.op_type == "TopK":
            count = numbers.get(node.input[1])
            if count is None or int(count[0]) >= facts["top_k_below"]:
                bad.add(f"TopK of {'a number that data decide' if count is None else int(count[0])}")
    if bad:
        raise InputError(
            f"{named}: not written: `static` is a form that TensorRT reads, but the network needs "
            f"{', '.join(sorted(bad))}; leave `static` out"
        )
    return len(graph.node)
