"""Weather and season of a scene.

The plan of a street while it is being furnished: where its parts lie and what is taken.

The ground: sky line, pavements, road, its paint, and warm and cold spots on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from efnet.scenes.camera import NEAR, Camera
from efnet.scenes.canvas import Canvas, Color, Material, Vector
from efnet.scenes.rng import Dice
from efnet.scenes.street import Interval, Lamp, draw_kerb, skyline


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


@dataclass(frozen=True)
class Shade:
    """Something that keeps light from the ground.

    Attributes:
        x: world position of its foot in metres; likewise `y` and `z`.
        width: in metres.
        height: in metres.
        length: along the road, for walls; 0 for what stands alone.
    """

    x: float
    y: float
    z: float
    width: float
    height: float
    length: float = 0.0


@dataclass
class Street:
    """The street while it is being furnished.

    Attributes:
        middle: X of its middle line.
        half: half its width.
        kerb: height of the kerb to the left and right; 0 where there is none.
        walk: width of the pavement to the left and right.
    """

    dice: Dice
    camera: Camera
    climate: Climate
    middle: float
    half: float
    kerb: tuple[float, float]
    walk: tuple[float, float]
    taken: list[tuple[float, float, float]] = field(default_factory=list)
    queue: list[tuple[float, Callable[[Canvas], None]]] = field(default_factory=list)
    lamps: list[Lamp] = field(default_factory=list)
    shades: list[Shade] = field(default_factory=list)

    def height(self, x: float) -> float:
        """Height of the ground at X = x: pavements are raised behind a kerb."""
        offset = x - self.middle
        if abs(offset) <= self.half:
            return 0.0
        return self.kerb[0 if offset < 0 else 1]

    def edge(self, side: int) -> float:
        """X of the road's left (-1) or right (1) border."""
        return self.middle + side * self.half

    def front(self, side: int) -> float:
        """X of the houses' fronts."""
        return self.edge(side) + side * self.walk[0 if side < 0 else 1]

    def in_view(self, z: float, low: float = 0.04, high: float = 0.96) -> float:
        """An X between the house fronts that is seen at distance z."""
        camera = self.camera
        share = self.dice.uniform(low, high)
        x = (share * camera.width - camera.center_x) / camera.focal * z
        return min(max(x, self.front(-1) + 0.7), self.front(1) - 0.7)

    def free(self, x: float, z: float, radius: float) -> bool:
        """Whether a place is free; if so it is taken."""
        if any(abs(x - a) < radius + r and abs(z - b) < radius + r for a, b, r in self.taken):
            return False
        self.taken.append((x, z, radius))
        return True

    def add(self, z: float, draw: Callable[[Canvas], None]) -> None:
        """Queue something to be drawn at its turn."""
        self.queue.append((z, draw))

    def spot(self, near: float, far: float, radius: float) -> tuple[float, float] | None:
        """A free place in view; near ones are as likely as far ones in the image."""
        for _ in range(8):
            z = 1 / self.dice.uniform(1 / far, 1 / near)
            x = self.in_view(z)
            if self.free(x, z, radius):
                return x, z
        return None


FAR = 170.0
_UP = (0.0, 1.0, 0.0)
_GROUNDS: tuple[Color, ...] = (
    (112, 110, 106),
    (134, 126, 116),
    (150, 144, 136),
    (128, 108, 96),
    (98, 108, 72),
)


def strip(canvas: Canvas, x: Interval, z: Interval, y: float, material: Material) -> None:
    """A level rectangle from X to X and from Z to Z."""
    near = max(z[0], NEAR)
    corners = ((x[0], y, near), (x[1], y, near), (x[1], y, z[1]), (x[0], y, z[1]))
    canvas.quad(corners, material, canvas.camera.level(y))


def draw_ground(canvas: Canvas, dice: Dice, plan: Street) -> None:
    """Everything flat, before anything stands on it."""
    for left, right, height, color in skyline(dice):
        block = Material(0, color, dice.uniform(-1.5, 1.0), texture=0.3, heat_texture=0.5)
        corners = ((left, -2, 150.0), (right, -2, 150.0), (right, height, 150.0), (left, height, 150.0))
        canvas.quad(corners, block, canvas.camera.facing(150.0))
    tone = dice.uniform(58, 104)
    asphalt = Material(
        0, (tone, tone * dice.uniform(0.96, 1.02), tone * dice.uniform(0.94, 1.06)),
        0.0, _UP, texture=dice.uniform(0.1, 0.22), heat_texture=0.25, ground=True,
    )  # fmt: skip
    strip(canvas, (-FAR, FAR), (NEAR, FAR), 0.0, asphalt.but(color=dice.pick(_GROUNDS)))
    for index, side in enumerate((-1, 1)):
        edge, front = plan.edge(side), plan.front(side)
        pavement = asphalt.but(color=dice.pick(_GROUNDS), texture=0.16, heat=dice.uniform(-0.5, 0.5))
        height = plan.kerb[index]
        strip(canvas, (min(edge, front), max(edge, front)), (NEAR, FAR), height, pavement)
        _draw_slabs(canvas, dice, pavement, (edge, front), height)
    strip(canvas, (plan.edge(-1), plan.edge(1)), (NEAR, FAR), 0.0, asphalt)
    _draw_spots(canvas, dice, plan, asphalt)
    _draw_paint(canvas, dice, plan, asphalt)
    for index, side in enumerate((-1, 1)):
        if plan.kerb[index]:
            end = dice.uniform(22, 60)
            draw_kerb(
                canvas, dice, plan.edge(side), (NEAR + 0.1, end), plan.kerb[index], dice.uniform(-0.25, 0.35)
            )


def _draw_slabs(canvas: Canvas, dice: Dice, pavement: Material, x: Interval, y: float) -> None:
    """Joints between the slabs of a pavement."""
    if not dice.chance(0.6):
        return
    joint = pavement.shaded(0.86)
    low, high = min(x), max(x)
    at = 2.0
    while at < 16:
        strip(canvas, (low, high), (at, at + 0.035 + 0.004 * at), y, joint)
        at += 0.9
    for share in (0.33, 0.66):
        middle = low + share * (high - low)
        strip(canvas, (middle - 0.025, middle + 0.025), (NEAR, 30), y, joint)


def _draw_spots(canvas: Canvas, dice: Dice, plan: Street, asphalt: Material) -> None:
    """Mended asphalt, manholes (some warm from below), ground warmed by sun or by cars that left."""
    for _ in range(dice.integer(0, 3)):
        x, z = plan.middle + plan.half * dice.uniform(-0.9, 0.5), dice.uniform(3, 25)
        mended = asphalt.shaded(dice.uniform(0.7, 1.2)).but(heat=dice.uniform(-0.3, 0.4))
        strip(canvas, (x, x + dice.uniform(0.6, 2.0)), (z, z + dice.uniform(0.8, 6)), 0.0, mended)
    for _ in range(dice.integer(0, 2)):
        x, z, radius = (
            plan.middle + plan.half * dice.uniform(-0.8, 0.8),
            dice.uniform(4, 14),
            dice.uniform(0.3, 0.4),
        )
        iron = asphalt.shaded(0.62).but(
            heat=dice.uniform(3, 12) if dice.chance(0.5) else dice.uniform(-1, 0.5)
        )
        ring = [
            (x + radius * math.cos(k * 0.4488), 0.0, z + radius * math.sin(k * 0.4488)) for k in range(14)
        ]
        canvas.quad(ring, iron, canvas.camera.level(0.0))
    for _ in range(dice.integer(0, 3)):
        x, z = plan.middle + plan.half * dice.uniform(-1, 0.6), dice.uniform(4, 22)
        warm = asphalt.but(heat=dice.uniform(1.0, 5.0), heat_texture=0.6)
        strip(canvas, (x, x + dice.uniform(0.8, 2.2)), (z, z + dice.uniform(1.5, 5)), 0.0, warm)


def _draw_paint(canvas: Canvas, dice: Dice, plan: Street, asphalt: Material) -> None:
    """Lane lines, a zebra crossing, a stop line: bright stripes that are no bumps."""
    white = asphalt.but(
        color=(206.0, 204.0, 198.0), heat=dice.uniform(-0.4, 0.1), texture=0.22, retroreflective=0.12
    )
    yellow = white.but(color=(204.0, 160.0, 60.0))
    if dice.chance(0.7):
        line, gap, start = dice.pick((white, yellow)), dice.pick((0.0, 3.0, 4.0)), dice.uniform(1, 4)
        at = start
        while at < 60:
            strip(canvas, (plan.middle - 0.07, plan.middle + 0.07), (at, at + 2.5), 0.0, line)
            at += 2.5 + gap
    for side in (-1, 1):
        if dice.chance(0.6):
            x = plan.edge(side) - side * 0.3
            strip(canvas, (x - 0.06, x + 0.06), (NEAR, 70), 0.0, white)
    if dice.chance(0.3):
        z, depth = dice.uniform(6, 20), dice.uniform(2.5, 3.5)
        x = plan.edge(-1) + 0.3
        while x + 0.45 < plan.edge(1):
            strip(canvas, (x, x + 0.45), (z, z + depth), 0.0, white)
            x += 0.95
    if dice.chance(0.25):
        z = dice.uniform(5, 14)
        strip(canvas, (plan.middle, plan.edge(1)), (z, z + 0.35), 0.0, white)
    if dice.chance(0.3):
        z, x = dice.uniform(4, 9), plan.middle + plan.half / 2
        strip(canvas, (x - 0.08, x + 0.08), (z, z + 2.0), 0.0, white)
        canvas.quad(
            ((x - 0.45, 0.0, z + 1.8), (x + 0.45, 0.0, z + 1.8), (x, 0.0, z + 3.4)),
            white,
            canvas.camera.level(0.0),
        )
