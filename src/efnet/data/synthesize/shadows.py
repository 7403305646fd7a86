"""Shadows on the ground: of the sun, and where things stand."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from efnet.data.synthesize.canvas import Vector
from efnet.data.synthesize.plan import Shade
from efnet.data.synthesize.scene import Scene

_DARKEST = 40
"""Sunlight, in bytes, that reaches the middle of a shadow."""
_CONTACT = 110
"""Light from the sky, in bytes, that reaches the ground below things."""


def cast_shadows(scene: Scene) -> NDArray[np.float32]:
    """Share of the sun's light that reaches each pixel, (H, W)."""
    if max(scene.climate.sun_color) < 0.05:
        return np.ones(scene.buffers.z.shape, dtype=np.float32)
    outlines = [_cast_outline(shade, scene.climate.sun) for shade in scene.shades]
    return _on_ground(scene, outlines, _DARKEST, blur=1.0)


def contact_shadows(scene: Scene) -> NDArray[np.float32]:
    """Share of the sky's light that reaches each pixel, (H, W)."""
    outlines = [_contact_outline(shade) for shade in scene.shades if not shade.length]
    return _on_ground(scene, outlines, _CONTACT, blur=2.2)


def _cast_outline(shade: Shade, sun: Vector) -> list[Vector]:
    """The foot of a thing, drawn out away from the sun."""
    x, y, z, half = shade.x, shade.y, shade.z, shade.width / 2
    sun_x, sun_y, sun_z = sun
    if shade.length:
        foot = [(x, z - shade.length / 2), (x, z + shade.length / 2)]
    else:
        # Nearly across the direction of the light, whatever that is.
        wide_x, wide_z = half * max(0.35, abs(sun_z)), half * 0.5 * abs(sun_x) + 0.12
        lean = -1 if sun_x * sun_z > 0 else 1
        foot = [(x - wide_x, z - lean * wide_z), (x + wide_x, z + lean * wide_z)]
    reach = shade.height / sun_y
    low, high = [(a, y, max(c, 1.0)) for a, c in foot]
    tips = [(a - sun_x * reach, y, max(c - sun_z * reach, 1.0)) for a, c in foot]
    return [low, tips[0], tips[1], high]


def _contact_outline(shade: Shade) -> list[Vector]:
    x, y, z, half = shade.x, shade.y, shade.z, shade.width / 2
    deep = min(half, 0.9) * 0.6 + 0.1
    ring = ((-1.1, 0.0), (-0.7, -deep), (0.7, -deep), (1.1, 0.0), (0.7, deep), (-0.7, deep))
    return [(x + half * a, y, z + b) for a, b in ring]


def _on_ground(
    scene: Scene, outlines: Sequence[Sequence[Vector]], darkest: int, blur: float
) -> NDArray[np.float32]:
    """Fill outlines on the ground at half size, soften them, and leave out what is not ground."""
    camera = scene.camera
    mask = Image.new("L", (camera.width // 2, camera.height // 2), 0)
    draw = ImageDraw.Draw(mask)
    for outline in outlines:
        points = [camera.project(*corner) for corner in outline]
        draw.polygon([(floor(x / 2), floor(y / 2)) for x, y in points], fill=255 - darkest)
    mask = mask.filter(ImageFilter.GaussianBlur(blur * camera.focal / 640))
    mask = mask.resize((camera.width, camera.height), Image.Resampling.BILINEAR)
    shadow: NDArray[np.float32] = scene.buffers.ground * np.asarray(mask)
    shadow *= np.float32(-1 / 255)
    shadow += 1
    return shadow
