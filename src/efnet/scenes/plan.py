"""The plan of a street: its weather, where its parts lie, what is taken, and what is still to be drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from efnet.scenes.canvas import Camera, Canvas, Color, Vector
from efnet.scenes.rng import Rng


@dataclass(frozen=True)
class Climate:
    """Weather and season."""

    warmth: float  # kelvin by which bare skin is above the air
    sun: Vector  # direction to the sun, unit length
    sun_color: Color  # its linear colour and strength; nearly nothing when overcast
    sky_color: Color  # linear colour of the light from the sky
    clouds: float  # share of cloud, 0..1
    haze: float  # visibility in metres
    wet: float  # how much a wet road mirrors, 0..1
    night_glow: float  # light of the night sky, linear
    headlights: float  # strength of the camera car's own low beam; 0 for a dark car

    @classmethod
    def sample(cls, rng: Rng) -> Climate:
        """Draw the weather."""
        elevation, azimuth = rng.uniform(0.3, 1.15), rng.uniform(0, 2 * math.pi)
        clouds = rng.uniform(0.0, 0.45) if rng.chance(0.6) else rng.uniform(0.45, 1.0)
        strength, low = (1.0 - clouds) ** 0.7, max(0.0, 0.75 - elevation)
        level, up = math.cos(elevation), math.sin(elevation)
        return cls(
            warmth=rng.uniform(6.5, 17.0),
            sun=(level * math.cos(azimuth), up, level * math.sin(azimuth)),
            sun_color=(strength, strength * (0.93 - 0.3 * low), strength * (0.84 - 0.65 * low)),
            sky_color=(0.3 + 0.12 * clouds, 0.34 + 0.1 * clouds, 0.42 + 0.04 * clouds),
            clouds=clouds,
            haze=rng.uniform(300, 1500) if rng.chance(0.85) else rng.uniform(60, 200),
            wet=rng.uniform(0.3, 0.9) if rng.chance(0.3) else 0.0,
            night_glow=0.004 + 0.03 * rng.random() ** 3,
            headlights=rng.uniform(10, 40) if rng.chance(0.8) else 0.0,
        )


@dataclass(frozen=True)
class Lamp:
    """A source of light at night; a linear radiant intensity of 1 lights a surface 1 m away like the sun."""

    x: float
    y: float
    z: float
    color: Color


@dataclass(frozen=True)
class Shade:
    """An object that shades the ground: its foot, width, height and, for walls, length along the road."""

    x: float
    y: float
    z: float
    width: float
    height: float
    length: float = 0.0


@dataclass
class Street:
    """The street while it is being furnished."""

    rng: Rng
    camera: Camera
    climate: Climate
    middle: float  # X of its middle line
    half: float  # half its width
    kerb: tuple[float, float]  # height of the kerb to the left and right; 0 where there is none
    walk: tuple[float, float]  # width of the pavement to the left and right
    taken: list[tuple[float, float, float]] = field(default_factory=list)  # occupied places (x, z, radius)
    queue: list[tuple[float, Callable[[Canvas], None]]] = field(default_factory=list)  # distance and drawing
    lamps: list[Lamp] = field(default_factory=list)
    shades: list[Shade] = field(default_factory=list)

    def height(self, x: float) -> float:
        """Height of the ground at X = x: pavements are raised behind a kerb."""
        offset = x - self.middle
        return 0.0 if abs(offset) <= self.half else self.kerb[0 if offset < 0 else 1]

    def edge(self, side: int) -> float:
        """X of the road's left (-1) or right (1) border."""
        return self.middle + side * self.half

    def front(self, side: int) -> float:
        """X of the houses' fronts."""
        return self.edge(side) + side * self.walk[0 if side < 0 else 1]

    def in_view(self, z: float, low: float = 0.04, high: float = 0.96) -> float:
        """An X between the house fronts that is seen at distance z."""
        x = (self.rng.uniform(low, high) * self.camera.width - self.camera.center_x) / self.camera.focal * z
        return min(max(x, self.front(-1) + 0.7), self.front(1) - 0.7)

    def distance(self, near: float, far: float) -> float:
        """A distance, near ones as likely as far ones in the image."""
        return 1 / self.rng.uniform(1 / far, 1 / near)

    def free(self, x: float, z: float, radius: float) -> bool:
        """Take a place; False if it is taken already."""
        if any(abs(x - a) < radius + r and abs(z - b) < radius + r for a, b, r in self.taken):
            return False
        self.taken.append((x, z, radius))
        return True

    def add(self, z: float, draw: Callable[[Canvas], None], *shades: Shade) -> None:
        """Queue an object to be drawn at its turn, with its shades."""
        self.queue.append((z, draw))
        self.shades += shades

    def spot(self, near: float, far: float, radius: float) -> tuple[float, float, float] | None:
        """Take a free place in view and return it as (x, y, z)."""
        for _ in range(8):
            z = self.distance(near, far)
            x = self.in_view(z)
            if self.free(x, z, radius):
                return x, self.height(x), z
        return None
