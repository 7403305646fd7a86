"""From a seed to an RGB-thermal pair with its label: the thermal camera, the colour camera, and `render`."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from efnet.core.errors import InputError
from efnet.data.pairs import Condition
from efnet.data.sample import Sample
from efnet.scenes.canvas import Color
from efnet.scenes.light import add_reflections, light_by_day, light_by_night, paint_sky
from efnet.scenes.rng import Rng, normal, sample_texture
from efnet.scenes.scene import Scene, compose

Field = NDArray[np.float32]

_STEPS = 250.0  # blurring works on 16-bit fixed-point temperatures, this many steps to a kelvin


def measure(scene: Scene, seed: int) -> Field:
    """Take the thermal image of a scene, (H, W) in [0, 1]; the sensor's noise follows from the seed."""
    # No condition is passed: a thermal camera does not see whether it is day or night.
    sequence = np.random.SeedSequence([seed, 2])
    rng = Rng(sequence.spawn(1)[0])
    generator = np.random.Generator(np.random.PCG64(sequence))
    kelvin = _temperature(scene)
    kelvin = _optics(kelvin, scene.camera.focal / 640 * rng.uniform(0.8, 1.3))
    kelvin += _sensor(kelvin.shape, generator, rng)
    # Gain and level are nearly the same for all cameras, so that contrast changes with the weather.
    span = max(26.0, scene.climate.warmth * 1.6 + 8.0) * rng.uniform(0.95, 1.35)
    level = rng.uniform(0.24, 0.36)
    kelvin *= np.float32(1 / span)
    kelvin += np.float32(level)
    return np.clip(kelvin, 0, 1, out=kelvin)


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


def _sensor(shape: tuple[int, ...], generator: np.random.Generator, rng: Rng) -> Field:
    """Noise in kelvin: temporal, columns and rows of fixed pattern, and the lens's own glow."""
    height, width = shape
    noise = np.float32(rng.uniform(0.12, 0.3)) * normal(generator, shape)
    noise += np.float32(rng.uniform(0.05, 0.2)) * normal(generator, (1, width))
    noise += np.float32(rng.uniform(0.02, 0.1)) * normal(generator, (height, 1))
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    glow = np.float32(rng.uniform(-1.6, 0.6))
    noise += glow * (columns * columns + rows * rows)
    return noise


_TONES = 4096


@dataclass(frozen=True)
class Sensor:
    """Settings of the colour camera for one picture."""

    exposure: float  # factor on the radiance
    read: float  # deviation of the read noise; 1 is white
    shot: float  # variance of the shot noise per unit of light
    bloom: float  # share of light scattered in the lens
    balance: Color  # factors on red, green and blue

    @classmethod
    def by_day(cls, rng: Rng, light: float) -> Sensor:
        """Automatic exposure to the light of the scene, not always right."""
        balance = (rng.uniform(0.94, 1.06), 1.0, rng.uniform(0.93, 1.07))
        return cls(rng.uniform(0.85, 1.3) / light, rng.uniform(0.002, 0.006), 0.0002, 0.02, balance)

    @classmethod
    def by_night(cls, rng: Rng) -> Sensor:
        """High gain and still too dark: noise, halos, and a cast from the lamps."""
        balance = (rng.uniform(0.85, 1.1), rng.uniform(0.95, 1.12), rng.uniform(0.75, 1.1))
        shot = rng.uniform(0.0006, 0.0024)
        return cls(rng.uniform(0.5, 1.2), rng.uniform(0.008, 0.022), shot, rng.uniform(0.06, 0.16), balance)


@functools.cache
def _gamma_table() -> NDArray[np.uint8]:
    """Output byte of each of the camera's 4096 linear tones, with a shoulder that spares the highlights."""
    tones = (1.6 * index / (_TONES - 1) for index in range(_TONES))
    rolled = (
        tone if tone < 0.6 else 0.6 + 0.4 * (tone - 0.6) / (0.4 * 0.6 + (tone - 0.6) * 0.76) for tone in tones
    )
    return np.asarray([round(255 * min(1.0, tone) ** (1 / 2.2)) for tone in rolled], dtype=np.uint8)


def develop(radiance: Field, sensor: Sensor, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Take a picture, uint8 (H, W, 3), of linear radiance, which is overwritten."""
    radiance *= np.float32(sensor.exposure)
    radiance += _bloom(radiance, sensor.bloom)
    spread = radiance * np.float32(sensor.shot)
    spread += np.float32(sensor.read * sensor.read)
    np.sqrt(spread, out=spread)
    spread *= normal(generator, radiance.shape)
    radiance += spread
    radiance *= np.asarray(sensor.balance, dtype=np.float32) * np.float32((_TONES - 1) / 1.6)
    codes = np.clip(radiance, 0, _TONES - 1, out=radiance).astype(np.int64)
    return np.take(_gamma_table(), codes, mode="clip")


def _bloom(radiance: Field, share: float) -> Field:
    """Light scattered in the lens: a narrow and a wide halo around what is bright."""
    height, width = radiance.shape[:2]
    stepped = np.minimum(radiance[::2, ::2] * 64, 255).astype(np.uint8)
    small = Image.fromarray(stepped).resize((max(width // 4, 1), max(height // 4, 1)), Image.Resampling.BOX)
    unit = max(width, height) / 640
    narrow, wide = (small.filter(ImageFilter.GaussianBlur(sigma * unit)) for sigma in (2, 11))
    halo = Image.blend(narrow, wide, 0.6).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(halo).astype(np.float32) * np.float32(3 / 64 * share)


@functools.cache
def _linear_table() -> Field:
    """Linear reflectance of each sRGB byte."""
    values = [round((code / 255) ** 2.2, 6) for code in range(256)]
    return np.asarray(values, dtype=np.float32)


def photograph(scene: Scene, seed: int, condition: Condition) -> NDArray[np.uint8]:
    """Take the colour image of a scene, uint8 (H, W, 3); noise and exposure follow from the seed."""
    day = condition == "day"
    sequence = np.random.SeedSequence([seed, 3 if day else 4])
    rng = Rng(sequence.spawn(1)[0])
    generator = np.random.Generator(np.random.PCG64(sequence))
    radiance = np.take(_linear_table(), scene.buffers.color, mode="clip")
    radiance *= _surface(scene)[..., None]
    if day:
        light_by_day(scene, radiance)
        sensor = Sensor.by_day(rng, scene.climate.sun_color[1] * 0.65 + scene.climate.sky_color[1])
    else:
        light_by_night(scene, radiance)
        sensor = Sensor.by_night(rng)
    table = np.asarray([material.emission for material in scene.buffers.materials], dtype=np.float32)
    shining = np.nonzero(np.take(table.any(axis=1), scene.buffers.entry, mode="clip"))
    radiance[shining] += np.float32(0.35 if day else 1.0) * table[scene.buffers.entry[shining]]
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


MIN_SIDE, MAX_SIDE = 64, 8192


def render(seed: int, size: tuple[int, int] = (480, 640), condition: Condition = "day") -> Sample:
    """Render one street scene with MFNet's nine classes.

    The same seed, a whole number from 0, gives the same street, label and thermal image by day and by night;
    only the colour image changes. The scene is the same at any size (H, W) of the same shape, at least 64
    pixels each. The same arguments give the same pixels on every machine: rgb uint8 (H, W, 3), thermal
    float32 (H, W) in [0, 1], label uint8 (H, W) in 0..8.

    Raises:
        InputError: a negative seed, a size below 64, or an unknown condition.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: a scene's seed is 0 or more")
    if min(size) < MIN_SIDE:
        raise InputError(f"size {size[0]}x{size[1]}: scenes are at least {MIN_SIDE}x{MIN_SIDE} pixels")
    if condition not in ("day", "night"):
        raise InputError(f"condition '{condition}': choose day or night")
    scene = compose(seed, size)
    name = f"{seed:05d}{'D' if condition == 'day' else 'N'}"
    return Sample(name, photograph(scene, seed, condition), measure(scene, seed), scene.buffers.label)
