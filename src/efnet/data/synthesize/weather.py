"""Weather and season of a scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

from efnet.data.synthesize.canvas import Color, Vector
from efnet.data.synthesize.dice import Dice


@dataclass(frozen=True)
class Climate:
    """Weather and season.

    Attributes:
        warmth: kelvin by which bare skin is above the air.
        sun: direction to the sun, unit length.
        sun_color: its linear colour and strength; nearly nothing when overcast.
        sky_color: linear colour of the light from the sky.
        clouds: share of cloud, 0..1.
        haze: visibility in metres.
        wet: how much a wet road mirrors, 0..1.
        night_glow: light of the night sky, linear.
        headlights: strength of the camera car's own low beam; 0 for a dark car.
    """

    warmth: float
    sun: Vector
    sun_color: Color
    sky_color: Color
    clouds: float
    haze: float
    wet: float
    night_glow: float
    headlights: float

    @classmethod
    def sample(cls, dice: Dice) -> Climate:
        """Weather at random."""
        elevation, azimuth = dice.uniform(0.3, 1.15), dice.uniform(0, 2 * math.pi)
        clouds = dice.uniform(0.0, 0.45) if dice.chance(0.6) else dice.uniform(0.45, 1.0)
        strength = (1.0 - clouds) ** 0.7
        low = max(0.0, 0.75 - elevation)
        sun = (
            math.cos(elevation) * math.cos(azimuth),
            math.sin(elevation),
            math.cos(elevation) * math.sin(azimuth),
        )
        return cls(
            warmth=dice.uniform(6.5, 17.0), sun=sun,
            sun_color=(strength, strength * (0.93 - 0.3 * low), strength * (0.84 - 0.65 * low)),
            sky_color=(0.3 + 0.12 * clouds, 0.34 + 0.1 * clouds, 0.42 + 0.04 * clouds),
            clouds=clouds, haze=dice.uniform(300, 1500) if dice.chance(0.85) else dice.uniform(60, 200),
            wet=dice.uniform(0.3, 0.9) if dice.chance(0.3) else 0.0,
            night_glow=0.004 + 0.03 * dice.random() ** 3,
            headlights=dice.uniform(10, 40) if dice.chance(0.8) else 0.0,
        )  # fmt: skip
