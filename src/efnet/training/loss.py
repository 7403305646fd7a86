"""The training loss: a weighted sum of terms. B batch, K classes, H W pixels.

Terms of a segmentation loss beside plain cross-entropy. B batch, K classes, H W pixels.

In every label 255 is a pixel that does not count; where none counts a term is zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.core.classes import IGNORE_INDEX
from efnet.core.errors import InputError
from efnet.data.frequency import ClassWeighting


def weighted_cross_entropy(
    logits: Tensor,
    label: Tensor,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    counted: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy in which a pixel has the weight of its true class, as PyTorch defines it.

    Args:
        logits: (B, K, H, W).
        label: (B, H, W) int64.
        weights: (K,); None: all 1.
        smoothing: share of the target that is spread over all classes (arXiv 1512.00567, section 7), each
            with its weight.
        counted: (B, H, W) bool, pixels that enter the mean; None: all that have a class.
    """
    scored = label != IGNORE_INDEX
    counted = scored if counted is None else counted & scored
    terms = F.cross_entropy(
        logits, label, weights, ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=smoothing
    )
    shares = counted.to(terms.dtype)
    if weights is not None:
        shares = shares * weights[label.masked_fill(~scored, 0)]
    return (terms * counted).sum() / shares.sum().clamp_min(torch.finfo(terms.dtype).tiny)


def hard_pixels(logits: Tensor, label: Tensor, threshold: float, least: float) -> Tensor:
    """Online hard example mining: pixels whose true class has a probability of `threshold` at most.

    Args:
        logits: (B, K, H, W).
        label: (B, H, W) int64.
        threshold: greatest probability of a pixel that still counts as hard.
        least: share of the batch's scored pixels that is taken at least, the hardest first.

    Returns:
        (B, H, W) bool.
    """
    losses = F.cross_entropy(logits.detach(), label, ignore_index=IGNORE_INDEX, reduction="none")
    scored = label != IGNORE_INDEX
    values = losses[scored]
    if not values.numel():
        return scored
    kept = max(1, math.ceil(least * values.numel()))
    hardest = float(values.kthvalue(values.numel() - kept + 1).values)
    return scored & (losses >= min(hardest, -math.log(threshold)))


def dice_loss(logits: Tensor, label: Tensor) -> Tensor:
    """One minus the soft Dice coefficient over the whole batch, mean over the classes in the labels.

    2 sum(p y) / (sum(p) + sum(y)), p the probability of a class and y whether it is the true one
    (arXiv 1606.04797, with p itself in place of its square).

    Args:
        logits: (B, K, H, W).
        label: (B, H, W) int64.
    """
    scored = (label != IGNORE_INDEX)[:, None]
    classes = torch.arange(logits.shape[1], device=label.device)[None, :, None, None]
    truth = ((label[:, None] == classes) & scored).to(logits.dtype)
    probability = logits.softmax(dim=1) * scored
    pixels = truth.sum((0, 2, 3))
    overlap = (probability * truth).sum((0, 2, 3))
    loss = 1 - 2 * overlap / (probability.sum((0, 2, 3)) + pixels).clamp_min(1)
    present = pixels > 0
    return (loss * present).sum() / present.sum().clamp_min(1)


def lovasz_softmax(logits: Tensor, label: Tensor) -> Tensor:
    """The Lovasz extension of the Jaccard loss over the whole batch (arXiv 1705.08790, eq. 8-9).

    The mean over the classes in the labels.

    Args:
        logits: (B, K, H, W).
        label: (B, H, W) int64.
    """
    scored = label != IGNORE_INDEX
    truth = label[scored]  # (P,)
    probability = logits.softmax(dim=1).permute(0, 2, 3, 1)[scored]  # (P, K)
    if not truth.numel():
        return probability.sum()
    losses = []
    for value in truth.bincount().nonzero().flatten().tolist():
        foreground = truth == value
        errors, order = (foreground.to(probability.dtype) - probability[:, value]).abs().sort(descending=True)
        losses.append(errors @ _jaccard_steps(foreground[order]).to(errors.dtype))
    return torch.stack(losses).mean()


def _jaccard_steps(foreground: Tensor) -> Tensor:
    """How much the Jaccard loss grows as each next pixel is mistaken: bool (P,) to float64 (P,)."""
    found = foreground.cumsum(0)
    total = found[-1]
    union = total + (~foreground).cumsum(0)
    # In integers and float64: differences of neighbours are as small as one part in the pixels' number.
    loss = 1 - (total - found).double() / union
    return torch.diff(loss, prepend=loss.new_zeros(1))


@dataclass(frozen=True)
class LossConfig:
    """Terms and their weights; pixels that carry no supervision count in none of them.

    OHEM, class weights and label smoothing concern the cross-entropy.
    """

    cross_entropy: float = 1.0
    """Weight of the cross-entropy (section III-B)."""
    dice: float = 0.0
    """Weight of the soft Dice term."""
    lovasz: float = 0.0
    """Weight of the Lovasz-softmax term."""
    ohem: float | None = None
    """Only pixels whose true class has at most this probability count (0.7 is usual); null: all."""
    ohem_least: float = 0.0625
    """Share of the pixels that OHEM keeps at least, the hardest first: a sixteenth, as is usual."""
    class_weights: ClassWeighting | None = None
    """From the pixels of the training split: enet (at most 50) or median; null: none."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""

    def __post_init__(self) -> None:
        for name in ("cross_entropy", "dice", "lovasz"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"loss.{name} is {getattr(self, name)}; give a weight, 0 or more")
        if self.cross_entropy + self.dice + self.lovasz == 0:
            raise InputError(
                "loss.cross_entropy, loss.dice and loss.lovasz are all 0; give one of them a weight"
            )
        if self.ohem is not None and not 0 < self.ohem < 1:
            raise InputError(
                f"loss.ohem is {self.ohem}; give a probability between 0 and 1, or null for none"
            )
        if not 0 < self.ohem_least <= 1:
            raise InputError(f"loss.ohem_least is {self.ohem_least}; give a share above 0, at most 1")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"loss.label_smoothing is {self.label_smoothing}; give a share from 0, below 1")
        for name in ("ohem", "class_weights", "label_smoothing"):
            if getattr(self, name) and not self.cross_entropy:
                raise InputError(f"loss.{name} changes the cross-entropy, but loss.cross_entropy is 0")


class Objective:
    """The loss of a recipe.

    Args:
        config: terms and weights.
        unscored: label values that carry no supervision (FMB's unlabeled).
        class_weights: (K,) of the cross-entropy; None: all alike.
    """

    def __init__(
        self, config: LossConfig, unscored: Iterable[int] = (), class_weights: Tensor | None = None
    ) -> None:
        self.config = config
        self.unscored = tuple(unscored)
        self.class_weights = class_weights

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss of a batch, a scalar; zero where no pixel counts.

        Args:
            logits: (B, K, H, W).
            label: (B, H, W) int64, 255 where ignored.
        """
        config = self.config
        logits, label = logits.float(), mask_unscored(label, self.unscored)
        total = torch.zeros((), device=logits.device)
        if config.cross_entropy:
            total = total + config.cross_entropy * self._cross_entropy(logits, label)
        if config.dice:
            total = total + config.dice * dice_loss(logits, label)
        if config.lovasz:
            total = total + config.lovasz * lovasz_softmax(logits, label)
        return total

    def _cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        config, weights = self.config, self.class_weights
        if config.ohem is None and weights is None and not config.label_smoothing:
            return cross_entropy(logits, label)
        if weights is not None or (config.label_smoothing and self.unscored):
            weights = logits.new_ones(logits.shape[1]) if weights is None else weights.to(logits)
            # Smoothing gives no target to what is never the truth.
            weights = weights.index_fill(0, torch.tensor(self.unscored, device=weights.device).long(), 0)
        hard = None if config.ohem is None else hard_pixels(logits, label, config.ohem, config.ohem_least)
        return weighted_cross_entropy(logits, label, weights, config.label_smoothing, hard)

    def mass(self, label: Tensor) -> float:
        """What the mean of a batch is divided by: the number of its scored pixels, or their classes' weights.

        So much counts a part of a batch whose parts are computed one after the other.
        """
        label = mask_unscored(label, self.unscored)
        scored = label[label != IGNORE_INDEX]
        if self.class_weights is None:
            return float(scored.numel())
        return float(self.class_weights.to(label.device)[scored].sum())


def mask_unscored(label: Tensor, unscored: Iterable[int]) -> Tensor:
    """The label (B, H, W) with 255 in place of values that carry no supervision."""
    for value in unscored:
        label = label.masked_fill(label == value, IGNORE_INDEX)
    return label


def cross_entropy(logits: Tensor, label: Tensor, unscored: Iterable[int] = ()) -> Tensor:
    """Mean cross-entropy over the pixels that belong to a class and carry supervision.

    Args:
        logits: (B, K, H, W).
        label: (B, H, W) int64, 255 where ignored.
        unscored: further values that carry no supervision (FMB's unlabeled).

    Returns:
        a scalar; zero where no pixel counts, for which the plain mean would be 0/0.
    """
    label = mask_unscored(label, unscored)
    counted = (label != IGNORE_INDEX).sum().clamp_min(1)
    total: Tensor = F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / counted
