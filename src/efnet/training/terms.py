"""Terms of a segmentation loss beside plain cross-entropy. B batch, K classes, H W pixels.

In every label 255 is a pixel that does not count; where none counts a term is zero.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.classes import IGNORE_INDEX


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
