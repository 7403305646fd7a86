"""What a colour camera sees of a scene by day and by night."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from efnet.data.pairs import Condition
from efnet.data.synthesize.daylight import light_by_day
from efnet.data.synthesize.dice import Dice
from efnet.data.synthesize.nightlight import add_reflections, light_by_night
from efnet.data.synthesize.noise import sample_texture
from efnet.data.synthesize.scene import Scene
from efnet.data.synthesize.sensor import Sensor, develop
from efnet.data.synthesize.sky import paint_sky

Field = NDArray[np.float32]


@functools.cache
def _linear_table() -> Field:
    """Linear reflectance of each sRGB byte."""
    values = [round((code / 255) ** 2.2, 6) for code in range(256)]
    return np.asarray(values, dtype=np.float32)


def photograph(scene: Scene, seed: int, condition: Condition) -> NDArray[np.uint8]:
    """The colour image of a scene.

    Args:
        scene: composed scene.
        seed: of the scene; the sensor's noise and the exposure follow from it.
        condition: day or night.

    Returns:
        uint8 (H, W, 3).
    """
    day = condition == "day"
    sequence = np.random.SeedSequence([seed, 3 if day else 4])
    dice = Dice(sequence.spawn(1)[0])
    generator = np.random.Generator(np.random.PCG64(sequence))
    radiance = np.take(_linear_table(), scene.buffers.color, mode="clip")
    radiance *= _surface(scene)[..., None]
    if day:
        light_by_day(scene, radiance)
        sensor = Sensor.by_day(dice, scene.climate.sun_color[1] * 0.65 + scene.climate.sky_color[1])
    else:
        light_by_night(scene, radiance)
        sensor = Sensor.by_night(dice)
    _add_emission(scene, radiance, 0.35 if day else 1.0)
    paint_sky(scene, radiance, day=day)
    if not day and scene.climate.wet:
        add_reflections(scene, radiance)
    return develop(radiance, sensor, generator)


def _surface(scene: Scene) -> Field:
    """Factor on the albedo: texture of the material, fading with distance, and roundness."""
    buffers = scene.buffers
    strength = buffers.lookup([material.texture for material in buffers.materials])
    u, v = buffers.surface
    detail = sample_texture(0, u * np.float32(70), v * np.float32(70))
    detail += sample_texture(1, u * np.float32(11), v * np.float32(11))
    detail *= strength
    detail /= 1 + buffers.z * np.float32(0.02)
    # Rounded things are bright on the side that the sun is on.
    side = scene.climate.sun[0]
    detail += buffers.rounding * np.float32(0.5 * side + (0.4 if side > 0 else -0.4))
    detail += 1
    return np.clip(detail, np.float32(0.15), np.float32(2.2), out=detail)


def _add_emission(scene: Scene, radiance: Field, strength: float) -> None:
    """Add the radiance of what shines by itself."""
    buffers = scene.buffers
    table = np.asarray([material.emission for material in buffers.materials], dtype=np.float32)
    places = np.nonzero(np.take(table.any(axis=1), buffers.entry, mode="clip"))
    radiance[places] += np.float32(strength) * table[buffers.entry[places]]
