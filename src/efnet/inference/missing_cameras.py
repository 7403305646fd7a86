"""Dead cameras: images that show nothing, as against a dark or a cold scene, and what replaces them.

Grey is what training with `drop_rgb` and `drop_thermal` replaces an image with (`efnet.data.augment`). A
network trained so knows it; one that was not has never seen grey, so it gets what the camera gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError, one_of
from efnet.data.augment import PAD_RGB, PAD_THERMAL

MissingPolicy = Literal["warn", "error", "ignore"]
"""Report a dead image, and replace it for a network that was trained to go on without; refuse the pair; or
do not look."""

Camera = Literal["rgb", "thermal"]

NOT_GIVEN = "not given"  # the reason where the user said that a camera does not exist

MIN_SPREAD = {"rgb": 8.0, "thermal": 2.0}
"""Least distance of the 99th from the 1st percentile, in steps of 255, of an image that shows something."""

MAX_SATURATED = 0.9  # greatest share of pixels within a step of the top of the range

MIN_STRUCTURE = 0.05
"""Least share of the variance that is left in means of 8 x 8 pixels: noise keeps 1/64, pictures most."""

_BLOCK = 8


def spared(training_summary: Mapping[str, Any]) -> frozenset[Camera]:
    """Cameras without which a network was trained to go on."""
    cameras: tuple[Camera, ...] = ("rgb", "thermal")
    return frozenset(camera for camera in cameras if camera in training_summary.get("dropped", ()))


def check_missing(policy: str) -> MissingPolicy:
    """Return the policy of that name, or raise an `InputError`."""
    known: tuple[MissingPolicy, ...] = get_args(MissingPolicy)
    return one_of(policy, known, f"missing {policy!r} is unknown; choose")


def dead_reason(image: NDArray[Any], camera: Camera) -> str | None:
    """Describe why an image, uint8 (H, W, 3) or float (H, W) in [0, 1], shows no scene; None: it does."""
    grey = _mean_of_colors(image) if camera == "rgb" else image.astype(np.float32) * 255
    low, high = float(grey.min()), float(grey.max())
    if low == high:
        return "of one value"
    saturated = float((grey >= 254).mean())
    if saturated > MAX_SATURATED:
        return f"saturated ({100 * saturated:.0f} % of its pixels)"
    # Every n-th pixel, some ten thousand of them: percentiles of all would take longer than the rest.
    step = max(1, round((grey.size / 20000) ** 0.5))
    first, last = np.percentile(grey[::step, ::step], (1, 99))
    if last - first < MIN_SPREAD[camera]:
        return f"almost of one value ({last - first:.1f} of 255 steps)"
    if _structure(grey) < MIN_STRUCTURE:
        return "noise without a picture"
    return None


def find_dead(
    rgb: NDArray[np.uint8] | None, thermal: NDArray[np.float32] | None, policy: MissingPolicy
) -> dict[Camera, str]:
    """Describe, by camera, why images of a pair show nothing; raises InputError as `refuse_missing` does."""
    images: tuple[tuple[Camera, NDArray[Any] | None], ...] = (("rgb", rgb), ("thermal", thermal))
    found: dict[Camera, str] = {}
    for camera, image in images:
        reason = None if image is None else dead_reason(image, camera)
        if reason is not None:
            found[camera] = reason
    refuse_missing(found, policy)
    return found


def refuse_missing(missing: Mapping[Camera, str], policy: MissingPolicy) -> None:
    """Raise InputError, with camera and reason, if an image shows nothing and the policy is `error`."""
    for camera, reason in missing.items():
        if policy == "error" and reason != NOT_GIVEN:
            raise InputError(
                f"the {camera} image is {reason}: look at the camera, or predict from the other one alone "
                "with `missing` warn"
            )


def blank_rgb(size: tuple[int, int]) -> NDArray[np.uint8]:
    """The grey in place of a colour image of `size` (H, W): uint8 (H, W, 3)."""
    return np.broadcast_to(np.asarray(PAD_RGB, dtype=np.uint8), (*size, 3)).copy()


def blank_thermal(size: tuple[int, int]) -> NDArray[np.float32]:
    """The grey in place of a thermal image of `size` (H, W): float32 (H, W)."""
    return np.full(size, PAD_THERMAL, dtype=np.float32)


def _mean_of_colors(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) to (H, W); a tenth of the time of `numpy.mean`, which adds three values at a time."""
    # In float32: an 8-bit sum would wrap.
    total = np.add(image[..., 0], image[..., 1], dtype=np.float32)
    total += image[..., 2]
    return np.divide(total, 3, out=total)


def _structure(grey: NDArray[np.float32]) -> float:
    """Variance of block means over variance of pixels; 1 for an image too small for that."""
    rows, columns = grey.shape[0] // _BLOCK, grey.shape[1] // _BLOCK
    if rows < 2 or columns < 2:
        return 1.0
    cut = grey[: rows * _BLOCK, : columns * _BLOCK]
    # Rows first: sums along whole rows are several times as fast as those of blocks.
    lines = cut.reshape(rows, _BLOCK, columns * _BLOCK).mean(axis=1)
    means = lines.reshape(rows, columns, _BLOCK).mean(axis=2)
    return float(means.var() / max(float(cut.var()), 1e-12))
