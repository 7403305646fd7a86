"""Photometry of augmentation: colours of the RGB image, gain and offset of the thermal one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# RGB to YIQ (NTSC): luma and a chroma plane in which a rotation is a change of hue.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_LUMA = _TO_YIQ[0]


def color_matrix(
    strengths: tuple[float, float, float, float], rng: np.random.Generator
) -> tuple[NDArray[np.float64], float] | None:
    """Brightness, saturation and hue as one matrix (3, 3), and the contrast factor; None: all are off.

    All four are drawn whatever their strength, so that changing one leaves the others' draws alone.

    Args:
        strengths: of brightness, contrast, saturation and hue, as in `AugmentConfig`.
        rng: of the draws.
    """
    draws: NDArray[Any] = rng.uniform(-1, 1, size=4) * strengths
    if not draws.any():
        return None
    angle = 2 * math.pi * draws[3]
    cosine, sine = (1 + draws[2]) * math.cos(angle), (1 + draws[2]) * math.sin(angle)
    chroma = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return (1 + draws[0]) * (_FROM_YIQ @ chroma @ _TO_YIQ), 1 + float(draws[1])


def jitter(rgb: NDArray[np.uint8], matrix: NDArray[np.float64], contrast: float) -> NDArray[np.uint8]:
    """Apply the colour matrix, then the contrast about the mean grey; (H, W, 3) to (H, W, 3)."""
    mean = float((rgb[::4, ::4].reshape(-1, 3).mean(axis=0) @ matrix.T) @ _LUMA)
    offset = (1 - contrast) * mean
    rows = [(*(contrast * row), offset) for row in matrix]
    return np.asarray(
        Image.fromarray(rgb).convert("RGB", matrix=tuple(value for row in rows for value in row))
    )


def vary_thermal(
    thermal: NDArray[np.float32], strengths: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Spread a thermal image (H, W) about its mean and shift it, within [0, 1].

    Args:
        thermal: in [0, 1].
        strengths: of gain and offset, as in `AugmentConfig`.
        rng: of the two draws.
    """
    gain, offset = rng.uniform(-1, 1, size=2) * strengths
    mean = float(thermal.mean())
    # mean + (1 + gain) * (thermal - mean) + offset, as one product and one sum.
    varied: NDArray[np.float32] = thermal * np.float32(1 + gain) + np.float32(offset - gain * mean)
    return varied.clip(0, 1)
