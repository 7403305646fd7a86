"""What contestants see: smooth images that are made up, or the user's own pairs.

Shapes: B batch, H W size of the contestant.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from efnet.data.images import ThermalScale
from efnet.models.config import Modality
from efnet.prediction.decision import as_tensors
from efnet.prediction.preparation import Preparation

if TYPE_CHECKING:
    from efnet.benchmark.subject import Network, Subject

Images = tuple[Tensor | None, Tensor | None]
"""Colour (B, 3, H, W) and thermal (B, 1, H, W) in [0, 1]; None: the network does not look at it."""


def images(subject: Subject, device: torch.device) -> tuple[Tensor, Tensor]:
    """Smooth images with noise, the same every time: (B, 3, H, W) and (B, 1, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(1)

    def draw(channels: int) -> Tensor:
        height, width = subject.size
        coarse = torch.rand(
            subject.batch, channels, max(2, height // 24), max(2, width // 24), generator=generator
        )
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
        noise = torch.rand(smooth.shape, generator=generator)
        return (0.9 * smooth + 0.1 * noise).to(device)

    return draw(3), draw(1)


def batches(subject: Subject, model: Network) -> Sequence[Images]:
    """The images of one pass after another.

    Args:
        subject: the contestant; its pairs are resized to its size, as `efnet predict` does.
        model: its network.

    Returns:
        `subject.passes` batches; the last one of pairs is filled up from the first pair on.

    Raises:
        InputError: a pair that cannot be read, or that the network cannot be given.
    """
    if subject.pairs:
        plain = replace(subject, model="", precision="32", variant="plain", dense=False, file=None)
        return _given(plain, model.modality, model.input.thermal_scale)
    rgb, thermal = images(subject, torch.device(subject.device))
    return [(None if model.modality == "thermal" else rgb, None if model.modality == "rgb" else thermal)]


# Contestants of one model see the same tensors: a copy for each would fill the memory.
@functools.lru_cache(maxsize=1)
def _given(subject: Subject, modality: Modality, scale: ThermalScale) -> list[Images]:
    """The batches of pairs for every contestant with these pairs, size, batch and device."""
    steps = Preparation(modality, scale, subject.size, homography=None, missing="ignore", spared=frozenset())
    prepared = [steps.prepare(rgb, thermal) for rgb, thermal in subject.pairs]
    turns = itertools.islice(itertools.cycle(prepared), subject.passes * subject.batch)
    device = torch.device(subject.device)
    return [as_tensors([next(turns) for _ in range(subject.batch)], device) for _ in range(subject.passes)]
