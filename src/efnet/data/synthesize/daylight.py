"""Light of sun and sky, with shadows and haze."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from efnet.data.synthesize.scene import Scene
from efnet.data.synthesize.shadows import cast_shadows, contact_shadows

_HAZE = 0.6
"""Brightness of far haze relative to a white surface under the same sky."""


def light_by_day(scene: Scene, radiance: NDArray[np.float32]) -> None:
    """Turn albedo into radiance by day, in place.

    Args:
        scene: composed scene.
        radiance: linear albedo, (H, W, 3).
    """
    buffers, climate = scene.buffers, scene.climate
    slopes = [
        max(0.0, sum(a * b for a, b in zip(material.normal, climate.sun, strict=True)))
        for material in buffers.materials
    ]
    upward = [0.65 + 0.35 * material.normal[1] for material in buffers.materials]
    direct, ambient = buffers.lookup(slopes), buffers.lookup(upward)
    direct *= cast_shadows(scene)
    ambient *= contact_shadows(scene)
    clear = 1 / (1 + buffers.z * np.float32(1 / climate.haze))
    clear *= clear
    direct *= clear
    ambient *= clear
    haze = np.float32(_HAZE) * (1 - clear)
    for channel, (beam, sky) in enumerate(zip(climate.sun_color, climate.sky_color, strict=True)):
        plane = radiance[..., channel]
        plane *= direct * np.float32(1.3 * beam) + ambient * np.float32(sky)
        plane += haze * np.float32(sky + 0.2 * beam)
