"""A small network whose every part has a say, and a generated pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

import efnet
from efnet.models import EFNet


def make_network(name: str = "efnet_tiny", num_classes: int = 5, **options: Any) -> EFNet:
    """Fresh weights, moved: at the start the position has no say and channel weights are all alike."""
    generator = torch.Generator().manual_seed(3)
    network = efnet.create_model(name, num_classes=num_classes, **options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network


def make_pair(height: int = 64, width: int = 96, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth blobs: rgb uint8 (H, W, 3) and thermal uint8 (H, W)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 4), dtype=np.uint8)
    smooth = [
        np.asarray(Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC))
        for channel in range(4)
    ]
    return np.stack(smooth[:3], axis=-1), smooth[3]


def as_tensors(rgb: np.ndarray, thermal: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """As the predictor gives them to its network."""
    colors = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float().div(255)
    return colors, torch.from_numpy(thermal / np.float32(255))[None, None]
