"""Further outputs of networks from other papers in training: what each is compared with, and its weight.

Their authors supervise foreground and boundaries besides classes. Edges belong to a whole label, as the
authors compute them once per file: `EdgeDataset` marks them in the label before it is scaled and cropped,
and `split_marks` takes the marks off again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from efnet.core.classes import IGNORE_INDEX
from efnet.core.errors import InputError
from efnet.data.dataset import PairDataset
from efnet.data.sample import Sample
from efnet.models.base import SegmentationModel
from efnet.models.baselines.base import HeadedBaseline
from efnet.models.baselines.sgfnet import THERMAL_CLASSES
from efnet.training.loss import Objective, mask_unscored, weighted_cross_entropy

REACH = 2
"""Cells on each side of the neighbourhood in which a second label makes an edge: 5x5."""

_MARK = 0x80  # bit of a label that says edge; 255 keeps its meaning


@dataclass(frozen=True)
class Head:
    """A term of the loss.

    The output `logits`, and any output that is the `main` one in a loss of its own, has the recipe's whole
    loss; another output has the recipe's cross-entropy, or that of two classes with fixed weights.
    """

    output: str  # of `score_all`
    weight: float = 1.0
    target: Literal["classes", "foreground", "edges"] = "classes"
    main: bool = False


_MAIN = Head("logits", main=True)
_BOTH = (Head("high", main=True), Head("low", main=True))

HEADS: dict[str, tuple[Head, ...]] = {
    "eaefnet": _BOTH,
    "eaefnet50": _BOTH,
    "lasnet": (
        _MAIN,
        Head("logits_aux"),
        Head("location", 0.5, "foreground"),
        Head("edge", target="edges"),
    ),
    "sgfnet": (_MAIN, Head("thermal_semantic", 0.5), Head("edge", 2.0, "edges")),
    # As the paper has it: the authors' script is that of another network of theirs.
    "egfnet": (
        _MAIN,
        Head("semantic"),
        *(Head(f"boundary{level}", target="edges") for level in (3, 2, 1)),
    ),
    # As the same group's script for another network with these outputs has it.
    "gmnet": (_MAIN, Head("binary", target="foreground"), Head("boundary", target="edges")),
    # Without the loss of the gates, whose targets are saliency maps made beforehand.
    "rsfnet": (_MAIN, Head("aux_8"), Head("aux_16")),
}
"""The terms of each network whose authors' losses are known, by architecture."""

TWO_CLASSES = {"foreground": (1.5121, 10.2388), "edges": (1.4459, 23.7228)}
"""Weights of no and yes in the authors' code, 1 / ln(1.02 + share) of MFNet's pixels."""


class Heads:
    """The terms of one network. Raises InputError if it has none, or if the classes do not fit them."""

    def __init__(self, network: SegmentationModel) -> None:
        terms = HEADS.get(network.architecture)
        if terms is None or not isinstance(network, HeadedBaseline):
            raise InputError(f"loss.heads is for {', '.join(HEADS)}, not for {network.name}; leave it out")
        least = THERMAL_CLASSES if network.architecture == "sgfnet" else _MARK - 1
        if network.num_classes > least:
            raise InputError(
                f"loss.heads of {network.name} takes at most {least} classes, the data set has "
                f"{network.num_classes}; leave it out"
            )
        self.terms = terms
        self.network = network
        network.train_heads()

    @staticmethod
    def need_edges(architecture: str) -> bool:
        """Return whether a network's terms need marked labels."""
        return any(term.target == "edges" for term in HEADS.get(architecture, ()))

    def loss(self, objective: Objective, label: Tensor, edges: Tensor | None) -> Tensor:
        """Return the loss of the outputs of the network's last pass.

        The label is int64 (B, H, W), 255 where ignored; `edges` is bool (B, H, W), None if no term has edges.
        """
        outputs = self.network.take_heads([term.output for term in self.terms], label.shape[1:])
        total = label.new_zeros((), dtype=torch.float32)
        for term in self.terms:
            output = outputs[term.output]
            if term.main:
                value = objective(output, label)
            elif term.target == "classes":
                value = objective.cross_entropy(output, label)
            else:
                known = mask_unscored(label, objective.unscored)
                found = edges if term.target == "edges" else label != 0
                assert found is not None
                target = found.long().masked_fill(known == IGNORE_INDEX, IGNORE_INDEX)
                weights = output.new_tensor(TWO_CLASSES[term.target])
                value = weighted_cross_entropy(output, target, weights)
            total = total + term.weight * value
        return total


def find_edges(label: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find the pixels of a label (H, W) whose 5x5 neighbourhood holds two or more classes.

    Beyond the border there is class 0, as in LASNet's code. 255 is not a class.
    """
    known = label != IGNORE_INDEX
    least = np.pad(label, REACH)  # the highest value stands where nothing is known
    most = np.pad(np.where(known, label, 0), REACH)
    for axis in (0, 1):
        steps = label.shape[axis]
        windows = [slice(offset, offset + steps) for offset in range(2 * REACH + 1)]
        places = [(window, slice(None)) if axis == 0 else (slice(None), window) for window in windows]
        least = np.minimum.reduce([least[place] for place in places])
        most = np.maximum.reduce([most[place] for place in places])
    edges: NDArray[np.bool_] = (least < most) & known
    return edges


class EdgeDataset(PairDataset):
    """`PairDataset` whose labels have the edges marked, so that these are scaled and cropped with them."""

    def read(self, index: int) -> Sample:
        """Return a pair with a marked label; an `InputError` if it cannot be read."""
        sample = super().read(index)
        if sample.label is None:
            return sample
        marked = sample.label | (_MARK * find_edges(sample.label)).astype(np.uint8)
        return replace(sample, label=marked)


def split_marks(label: Tensor) -> tuple[Tensor, Tensor]:
    """Return a label (B, H, W) without its marks, and the marks, bool (B, H, W)."""
    known = label != IGNORE_INDEX
    return torch.where(known, label & (_MARK - 1), label), known & (label >= _MARK)
