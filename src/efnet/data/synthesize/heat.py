"""What a microbolometer sees of a scene: temperatures, blurred, noisy, and stretched to [0, 1].

It takes no condition, because a thermal camera does not know about light.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from efnet.data.synthesize.dice import Dice
from efnet.data.synthesize.noise import normal, sample_texture
from efnet.data.synthesize.scene import Scene

Field = NDArray[np.float32]

_STEPS = 250.0
"""Blurring works on 16-bit fixed-point temperatures, this many steps to a kelvin."""


def measure(scene: Scene, seed: int) -> Field:
    """The thermal image of a scene.

    Args:
        scene: composed scene.
        seed: of the scene; the sensor's noise follows from it.

    Returns:
        float32 (H, W) in [0, 1].
    """
    sequence = np.random.SeedSequence([seed, 2])
    dice = Dice(sequence.spawn(1)[0])
    generator = np.random.Generator(np.random.PCG64(sequence))
    kelvin = _temperature(scene)
    kelvin = _optics(kelvin, scene.camera.focal / 640 * dice.uniform(0.8, 1.3))
    kelvin += _sensor(kelvin.shape, generator, dice)
    return _stretch(kelvin, scene.climate.warmth, dice)


def _temperature(scene: Scene) -> Field:
    """Kelvin above the air at each pixel, with the unevenness of real surfaces."""
    buffers = scene.buffers
    strength = buffers.lookup([material.heat_texture for material in buffers.materials])
    u, v = buffers.surface
    kelvin = buffers.heat + strength * sample_texture(1, u * np.float32(9), v * np.float32(9))
    # Warmer below than above on the ground, and colder towards the zenith: the sky cools what it sees.
    kelvin += buffers.ground * np.float32(0.8) * sample_texture(2, u * np.float32(6), v * np.float32(2.5))
    rows, columns = np.nonzero(buffers.entry == 0)
    above = np.clip(1 - rows.astype(np.float32) / np.float32(scene.camera.horizon), 0, 1)
    cloudy = np.float32(scene.climate.clouds)
    spread = (columns.astype(np.float32) - np.float32(scene.camera.center_x)) / np.float32(scene.camera.focal)
    cloud = sample_texture(2, np.float32(40) * spread, np.float32(60) * above)
    kelvin[rows, columns] = np.float32(-3) - (np.float32(13) - 8 * cloudy) * above + 2 * cloudy * cloud
    return kelvin


def _optics(kelvin: Field, sigma: float) -> Field:
    """Blur of lens and detector pitch, softer than the colour camera's."""
    fixed = np.rint(np.clip((kelvin + 40) * np.float32(_STEPS), 0, 65535)).astype(np.int32)
    passes = max(1, round(2 * sigma * sigma))
    for _ in range(passes):
        fixed = _binomial(_binomial(fixed, 0), 1)
    blurred: Field = fixed.astype(np.float32) / np.float32(_STEPS) - 40
    return blurred


def _binomial(field: NDArray[np.int32], axis: int) -> NDArray[np.int32]:
    """Blur by (1 2 1) / 4 along an axis: variance one half, in whole numbers."""
    turned = field if axis == 0 else field.T
    wide = np.pad(turned, ((1, 1), (0, 0)), mode="edge")
    blurred = (wide[:-2] + 2 * turned + wide[2:] + 2) >> 2
    return blurred if axis == 0 else blurred.T


def _sensor(shape: tuple[int, ...], generator: np.random.Generator, dice: Dice) -> Field:
    """Noise in kelvin: temporal, columns and rows of fixed pattern, and the lens's own glow."""
    height, width = shape
    noise = np.float32(dice.uniform(0.12, 0.3)) * normal(generator, shape)
    noise += np.float32(dice.uniform(0.05, 0.2)) * normal(generator, (1, width))
    noise += np.float32(dice.uniform(0.02, 0.1)) * normal(generator, (height, 1))
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    glow = np.float32(dice.uniform(-1.6, 0.6))
    noise += glow * (columns * columns + rows * rows)
    return noise


def _stretch(kelvin: Field, warmth: float, dice: Dice) -> Field:
    """The camera's gain and level: nearly the same for all, so that contrast changes with the weather."""
    span = max(26.0, warmth * 1.6 + 8.0) * dice.uniform(0.95, 1.35)
    level = dice.uniform(0.24, 0.36)
    kelvin *= np.float32(1 / span)
    kelvin += np.float32(level)
    return np.clip(kelvin, 0, 1, out=kelvin)
