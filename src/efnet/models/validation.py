"""Checks of what a network is given: shapes only, so that it never waits for its device."""

from __future__ import annotations

from torch import Tensor

MIN_SIZE = 32
"""Smallest height and width: below it the last map would be less than one cell."""


def check_images(images: Tensor, channels: int, name: str) -> None:
    """Refuse anything but floating-point (B, channels, H, W) with H and W >= 32.

    Raises:
        ValueError: with the shape that came and the one that is due.
        TypeError: no tensor.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(images).__name__}; Predictor takes images")
    if images.ndim != 4 or images.shape[1] != channels or images.shape[0] == 0:
        raise ValueError(f"{name} must be (B, {channels}, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"{name} must be floating point in [0, 1], got {images.dtype}")
    if min(images.shape[2:]) < MIN_SIZE:
        raise ValueError(
            f"{name} must be at least {MIN_SIZE}x{MIN_SIZE}, got {images.shape[2]}x{images.shape[3]}"
        )


def check_pair(rgb: Tensor, thermal: Tensor) -> None:
    """Refuse a pair whose images do not go together.

    Raises:
        ValueError: with both shapes.
    """
    check_images(rgb, 3, "rgb")
    check_images(thermal, 1, "thermal")
    if rgb.shape[0] != thermal.shape[0] or rgb.shape[2:] != thermal.shape[2:]:
        raise ValueError(f"rgb {tuple(rgb.shape)} and thermal {tuple(thermal.shape)} differ in batch or size")
