"""The training loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor

from efnet.classes import IGNORE_INDEX


def cross_entropy(logits: Tensor, label: Tensor, unscored: Iterable[int] = ()) -> Tensor:
    """Mean cross-entropy over the pixels that belong to a class and carry supervision.

    Args:
        logits: (B, K, H, W).
        label: (B, H, W) int64, 255 where ignored.
        unscored: further values that carry no supervision (FMB's unlabeled).

    Returns:
        a scalar; zero where no pixel counts, for which the plain mean would be 0/0.
    """
    for value in unscored:
        label = label.masked_fill(label == value, IGNORE_INDEX)
    counted = (label != IGNORE_INDEX).sum().clamp_min(1)
    total: Tensor = F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / counted
