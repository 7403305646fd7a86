"""Comparing an exported file with the network that it was made from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import Prepared
from efnet.inference.runtime import ExportedModel
from efnet.models.base import SegmentationModel
from efnet.scenes import render

_ODD = (101, 131)
"""Height and width that are multiples of nothing."""

_TURNS = 3


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        pairs: number of pairs compared.
        source: `given` or `generated`.
        sizes: [B, H, W] tried.
        agreement: share of all pixels whose class is the same.
        worst: the same of the worst size or pair.
        largest_difference: of a logit (of an output that is none: of what stands for it).
        seconds: median time of one pair of the first size, and the network's own.
        threads: that both had.
    """

    pairs: int
    source: str
    sizes: list[list[int]]
    agreement: float
    worst: float
    largest_difference: float
    seconds: dict[str, float]
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def compare(model: SegmentationModel, exported: ExportedModel, given: Sequence[Prepared]) -> Comparison:
    """Compare an exported file with its network, on the user's pairs or on generated ones.

    Of a file for any size, an odd one and a batch of two are tried in any case.

    Args:
        model: on the CPU, in evaluation mode.
        exported: the file, loaded.
        given: prepared pairs, of the file's size if that is fixed; empty: generated ones.
    """
    pairs = list(given) or _generated(model, exported.input.size)
    batches = [[pair] for pair in pairs]
    if exported.fixed_size is None:
        first, last = pairs[0], pairs[-1]
        height, width = map(min, _ODD, first.network_size, last.network_size)
        small = _cut(first, (height, width))
        batches += [[small], [small, _cut(last, (height, width), last=True)]]
    equal, largest = [], 0.0
    for batch in batches:
        images = _tensors(batch, exported.inputs)
        ours, theirs = _logits(model, images), _logits(exported, images)
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
    """The share of all pixels that are equal, and that of the map which has the fewest.

    Args:
        equal: at least one map of bool, each of any shape.
    """
    each = [(int(one.sum()), one.numel()) for one in equal]
    same, pixels = (sum(counts) for counts in zip(*each, strict=True))
    return same / pixels, min(count / total for count, total in each)


def _generated(model: SegmentationModel, size: tuple[int, int] | None) -> list[Prepared]:
    height, width = size or (240, 320)
    predictor = Predictor(model, device="cpu")
    predictor.size = size
    pairs = []
    for seed, condition in ((0, "day"), (1, "night")):
        sample = render(seed, (max(height, 64), max(width, 64)), condition)  # type: ignore[arg-type]
        image = sample.rgb if model.modality != "thermal" else None
        pairs.append(predictor.prepare(image, None if model.modality == "rgb" else sample.thermal))
    return pairs


def _cut(pair: Prepared, size: tuple[int, int], last: bool = False) -> Prepared:
    """A corner of a pair, or the opposite one."""
    height, width = size
    rows, columns = (slice(-height, None), slice(-width, None)) if last else (slice(height), slice(width))
    return Prepared(
        rgb=None if pair.rgb is None else pair.rgb[rows, columns],
        thermal=None if pair.thermal is None else pair.thermal[rows, columns],
        size=(height, width),
        original=pair.original,
    )


def _tensors(pairs: Sequence[Prepared], inputs: str) -> tuple[Tensor | None, Tensor | None]:
    """Images as a network takes them; of a file for whole numbers, what those can say."""
    rgb = [pair.rgb for pair in pairs if pair.rgb is not None]
    thermal = [pair.thermal for pair in pairs if pair.thermal is not None]
    heat = torch.from_numpy(np.stack(thermal))[:, None] if thermal else None
    if heat is not None and inputs == "uint8":
        heat = (heat * 255).round() / 255
    return torch.from_numpy(np.stack(rgb)).permute(0, 3, 1, 2).float().div(255.0) if rgb else None, heat


@torch.inference_mode()
def _logits(network: torch.nn.Module, images: tuple[Tensor | None, Tensor | None]) -> Tensor:
    logits: Tensor = network(*images)
    return logits


def _seconds(network: torch.nn.Module, images: tuple[Tensor | None, Tensor | None]) -> float:
    _logits(network, images)
    spent = []
    for _ in range(_TURNS):
        start = time.perf_counter()
        _logits(network, images)
        spent.append(time.perf_counter() - start)
    return sorted(spent)[_TURNS // 2]
