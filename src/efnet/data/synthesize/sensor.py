"""The colour camera: exposure, scattered light, noise, white balance and tone curve."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from efnet.data.synthesize.canvas import Color
from efnet.data.synthesize.dice import Dice
from efnet.data.synthesize.noise import normal

Field = NDArray[np.float32]

_TONES = 4096


@dataclass(frozen=True)
class Sensor:
    """How one picture is taken.

    Attributes:
        exposure: factor on the radiance.
        read: deviation of the read noise; 1 is white.
        shot: variance of the shot noise per unit of light.
        bloom: share of light scattered in the lens.
        balance: factors on red, green and blue.
    """

    exposure: float
    read: float
    shot: float
    bloom: float
    balance: Color

    @classmethod
    def by_day(cls, dice: Dice, light: float) -> Sensor:
        """Automatic exposure to the light of the scene, not always right."""
        balance = (dice.uniform(0.94, 1.06), 1.0, dice.uniform(0.93, 1.07))
        return cls(dice.uniform(0.85, 1.3) / light, dice.uniform(0.002, 0.006), 0.0002, 0.02, balance)

    @classmethod
    def by_night(cls, dice: Dice) -> Sensor:
        """High gain and still too dark: noise, halos, and a cast from the lamps."""
        balance = (dice.uniform(0.85, 1.1), dice.uniform(0.95, 1.12), dice.uniform(0.75, 1.1))
        shot = dice.uniform(0.0006, 0.0024)
        return cls(
            dice.uniform(0.5, 1.2), dice.uniform(0.008, 0.022), shot, dice.uniform(0.06, 0.16), balance
        )


@functools.cache
def _gamma_table() -> NDArray[np.uint8]:
    """Output byte of each of the camera's 4096 linear tones, with a shoulder that spares the highlights."""
    tones = (1.6 * index / (_TONES - 1) for index in range(_TONES))
    rolled = (
        tone if tone < 0.6 else 0.6 + 0.4 * (tone - 0.6) / (0.4 * 0.6 + (tone - 0.6) * 0.76) for tone in tones
    )
    return np.asarray([round(255 * min(1.0, tone) ** (1 / 2.2)) for tone in rolled], dtype=np.uint8)


def develop(radiance: Field, sensor: Sensor, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Take the picture.

    Args:
        radiance: linear, (H, W, 3); used up.
        sensor: the camera and its setting.
        generator: of the noise.

    Returns:
        uint8 (H, W, 3).
    """
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
