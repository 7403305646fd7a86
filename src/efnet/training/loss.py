"""The training loss: a weighted sum of terms. B batch, K classes, H W pixels.

In every label, 255 marks a pixel that does not count; where none counts, a term is zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.core.classes import IGNORE_INDEX
from efnet.core.precision import at_least_float32
from efnet.training.config import LossConfig


def weighted_cross_entropy(
    logits: Tensor,
    label: Tensor,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    counted: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy in which a pixel has the weight of its true class, as PyTorch defines it.

    Logits are (B, K, H, W), the label int64 (B, H, W), weights (K,) (None: all 1). `smoothing` is the share
    of the target spread over all classes, by weight (arXiv 1512.00567, section 7). The pixels `counted`, bool
    (B, H, W), enter the mean; None: all that have a class.
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
    """Online hard example mining: pixels (B, H, W) whose true class has at most `threshold` probability.

    At least the share `least` of the batch's scored pixels is taken, the hardest first. Shapes as of
    `weighted_cross_entropy`.
    """
    losses = F.cross_entropy(logits.detach(), label, ignore_index=IGNORE_INDEX, reduction="none")
    scored = label != IGNORE_INDEX
    values = losses[scored]
    if not values.numel():
        return scored
    kept = max(1, math.ceil(least * values.numel()))
    hardest = float(values.kthvalue(values.numel() - kept + 1).values)
    return scored & (losses >= min(hardest, -math.log(threshold)))


def dice_loss(logits: Tensor, label: Tensor, over_all: bool = False) -> Tensor:
    """One minus the soft Dice coefficient over the whole batch, mean over the classes in the labels.

    2 sum(p y) / (sum(p) + sum(y)), p the probability of a class and y whether it is the true one
    (arXiv 1606.04797, with p itself in place of its square). With `over_all` the mean is over all K classes,
    where absent ones count zero. Shapes as of `weighted_cross_entropy`.
    """
    scored = (label != IGNORE_INDEX)[:, None]
    classes = torch.arange(logits.shape[1], device=label.device)[None, :, None, None]
    truth = ((label[:, None] == classes) & scored).to(logits.dtype)
    probability = logits.softmax(dim=1) * scored
    pixels = truth.sum((0, 2, 3))
    overlap = (probability * truth).sum((0, 2, 3))
    loss = 1 - 2 * overlap / (probability.sum((0, 2, 3)) + pixels).clamp_min(1)
    present = pixels > 0
    count = logits.shape[1] if over_all else present.sum().clamp_min(1)
    return (loss * present).sum() / count


def lovasz_softmax(logits: Tensor, label: Tensor) -> Tensor:
    """The Lovasz extension of the Jaccard loss (arXiv 1705.08790, eq. 8-9), mean over the labels' classes."""
    scored = label != IGNORE_INDEX
    truth = label[scored]  # (P,)
    probability = logits.softmax(dim=1).permute(0, 2, 3, 1)[scored]  # (P, K)
    if not truth.numel():
        return probability.sum()
    losses = []
    for value in truth.bincount().nonzero().flatten().tolist():
        foreground = truth == value
        errors, order = (foreground.to(probability.dtype) - probability[:, value]).abs().sort(descending=True)
        # The Jaccard loss grows with each further wrong pixel by differences as small as one part in the
        # pixels' number: integers and float64.
        foreground = foreground[order]
        found = foreground.cumsum(0)
        union = found[-1] + (~foreground).cumsum(0)
        jaccard = 1 - (found[-1] - found).double() / union
        losses.append(errors @ torch.diff(jaccard, prepend=jaccard.new_zeros(1)).to(errors.dtype))
    return torch.stack(losses).mean()


class Objective:
    """The loss of a recipe.

    Label values `unscored` carry no supervision (FMB's unlabeled). `class_weights` (K,) are those of the
    cross-entropy; None: all alike.
    """

    def __init__(
        self, config: LossConfig, unscored: Iterable[int] = (), class_weights: Tensor | None = None
    ) -> None:
        self.config = config
        self.unscored = tuple(unscored)
        self.class_weights = class_weights

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss of logits (B, K, H, W) on a label (B, H, W); zero where no pixel counts."""
        config = self.config
        logits, label = at_least_float32(logits), mask_unscored(label, self.unscored)
        total = torch.zeros((), device=logits.device)
        if config.cross_entropy:
            total = total + config.cross_entropy * self.cross_entropy(logits, label)
        if config.dice:
            total = total + config.dice * dice_loss(logits, label, config.dice_over == "all")
        if config.lovasz:
            total = total + config.lovasz * lovasz_softmax(logits, label)
        return total

    def cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return that term alone, weighted 1; logits may have more channels than there are classes."""
        config, weights, label = self.config, self.class_weights, mask_unscored(label, self.unscored)
        if config.ohem is None and weights is None and not config.label_smoothing:
            return cross_entropy(logits, label)
        if weights is not None or (config.label_smoothing and self.unscored):
            weights = logits.new_ones(logits.shape[1]) if weights is None else weights.to(logits)
            weights = F.pad(weights, (0, logits.shape[1] - len(weights)), value=1)
            # Smoothing gives no target to classes that are never the truth.
            weights = weights.index_fill(0, torch.tensor(self.unscored, device=weights.device).long(), 0)
        hard = None if config.ohem is None else hard_pixels(logits, label, config.ohem, config.ohem_least)
        return weighted_cross_entropy(logits, label, weights, config.label_smoothing, hard)

    def mass(self, label: Tensor) -> float:
        """Return the weight of a part of a batch: its scored pixels, or the sum of their weights."""
        label = mask_unscored(label, self.unscored)
        scored = label[label != IGNORE_INDEX]
        if self.class_weights is None:
            return float(scored.numel())
        return float(self.class_weights.to(label.device)[scored].sum())


def mask_unscored(label: Tensor, unscored: Iterable[int]) -> Tensor:
    """Replace values that carry no supervision in a label (B, H, W) by 255."""
    for value in unscored:
        label = label.masked_fill(label == value, IGNORE_INDEX)
    return label


def cross_entropy(logits: Tensor, label: Tensor, unscored: Iterable[int] = ()) -> Tensor:
    """Mean cross-entropy over the pixels that belong to a class and carry supervision.

    Shapes as of `weighted_cross_entropy`; `unscored` are further label values without supervision. Zero where
    no pixel counts, for which the plain mean would be 0/0.
    """
    label = mask_unscored(label, unscored)
    counted = (label != IGNORE_INDEX).sum().clamp_min(1)
    logits = at_least_float32(logits)
    total: Tensor = F.cross_entropy(logits, label, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / counted
