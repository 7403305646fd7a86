"""Before and after a pass of the network: prepared pairs as tensors, and logits as classes of pixels.

Shapes: B batch, H W size of the image given, h w size that the network sees, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from efnet.classes import ClassSet
from efnet.errors import InputError
from efnet.prediction.arrays import Prepared
from efnet.prediction.result import Prediction

Value = TypeVar("Value", np.uint8, np.float32)


def as_tensors(pairs: Sequence[Prepared], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Pairs that have one network size, as the network takes them.

    Returns:
        (B, 3, h, w) and (B, 1, h, w) in [0, 1], on the device; None for an image that the network does
        not look at.
    """
    rgb = thermal = None
    if pairs[0].rgb is not None:
        # 8-bit to the device, float there: a quarter of the transfer.
        pixels = np.stack([_given(pair.rgb) for pair in pairs])  # (B, h, w, 3)
        rgb = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div(255.0)
    if pairs[0].thermal is not None:
        heat = np.stack([_given(pair.thermal) for pair in pairs])  # (B, h, w)
        thermal = torch.from_numpy(heat).to(device)[:, None]
    return rgb, thermal


@torch.inference_mode()
def decide(logit: Tensor, classes: ClassSet, size: tuple[int, int], probabilities: bool) -> Prediction:
    """Class of every pixel of one image.

    Args:
        logit: (K, h, w).
        classes: the K classes.
        size: (H, W) of the image; the logits are resized to it, bilinearly.
        probabilities: keep those too.

    Raises:
        InputError: logits that are not finite.
    """
    if not torch.isfinite(logit).all():
        raise InputError(
            "the model's logits are not finite: the checkpoint is of a run that diverged; choose another"
        )
    full = logit[None]
    if tuple(full.shape[2:]) != size:
        full = F.interpolate(full, size=size, mode="bilinear", align_corners=False)
    index = full[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    share = full[0].softmax(dim=0).cpu().numpy() if probabilities else None
    return Prediction(index=index, classes=classes, probabilities=share)


def _given(image: NDArray[Value] | None) -> NDArray[Value]:
    """An image that the model's modality makes sure of."""
    assert image is not None
    return image
