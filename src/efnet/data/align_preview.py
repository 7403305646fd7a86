"""A picture of a pair before and after its alignment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from efnet.data.align import luminance
from efnet.data.homography import Homography, Points

_GAP = 8


def preview(
    rgb: NDArray[np.uint8],
    thermal: NDArray[np.float32],
    homography: Homography,
    points: tuple[Points, Points] | None = None,
) -> Image.Image:
    """Colour in green and thermal in magenta, laid over each other: stretched left, mapped right.

    Where both are alike bright the picture is grey; edges with a green and a magenta side are off.

    Args:
        rgb: uint8 (H, W, 3).
        thermal: float32 (h, w) in [0, 1].
        homography: drawn on the right.
        points: thermal and colour points (N, 2), marked by crosses and circles.
    """
    size = (rgb.shape[0], rgb.shape[1])
    thermal_size = (thermal.shape[0], thermal.shape[1])
    before = Homography.stretched(thermal_size, size)
    panels = [_panel(rgb, thermal, view, points) for view in (before, homography)]
    width = panels[0].width
    sheet = Image.new("RGB", (2 * width + _GAP, size[0]), (255, 255, 255))
    for number, panel in enumerate(panels):
        sheet.paste(panel, (number * (width + _GAP), 0))
    return sheet


def _panel(
    rgb: NDArray[np.uint8],
    thermal: NDArray[np.float32],
    view: Homography,
    points: tuple[Points, Points] | None,
) -> Image.Image:
    heat = _stretched(view.warp(thermal, (rgb.shape[0], rgb.shape[1])))
    panel = Image.fromarray(np.stack([heat, _stretched(luminance(rgb)), heat], axis=-1))
    if points is not None:
        draw = ImageDraw.Draw(panel)
        arm = max(3, max(rgb.shape[:2]) // 100)
        for x, y in view.map(points[0]):
            draw.line((x - arm, y, x + arm, y), fill=(255, 255, 0))
            draw.line((x, y - arm, x, y + arm), fill=(255, 255, 0))
        for x, y in points[1]:
            draw.ellipse((x - arm, y - arm, x + arm, y + arm), outline=(0, 255, 255))
    return panel


def _stretched(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Contrast from the 1st to the 99th percentile."""
    low, high = np.percentile(image, (1, 99))
    scaled = np.clip((image - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    pixels: NDArray[np.uint8] = np.rint(scaled * 255).astype(np.uint8)
    return pixels
