"""Cars, as outlines drawn out to solids.

Bikes, parked or ridden.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from efnet.scenes.camera import Point
from efnet.scenes.canvas import Billboard, Canvas, Color, Material, Vector
from efnet.scenes.people import Person, draw_riding
from efnet.scenes.rng import Dice

CAR = 1

PAINTS: tuple[Color, ...] = (
    (226, 226, 224), (196, 198, 200), (140, 144, 148), (92, 96, 102), (36, 38, 42),
    (24, 26, 30), (120, 28, 30), (38, 58, 110), (60, 96, 140), (52, 78, 60),
    (176, 158, 120), (150, 60, 34), (208, 176, 60),
)  # fmt: skip

# Outlines from the rear bumper over the roof to the front: (metres along the car, height), and how
# many of the edges in between are rear (boot and rear window), roof, and front (windscreen, bonnet).
_SEDAN = (
    (0.0, 0.28),
    (0.02, 0.78),
    (0.12, 0.92),
    (0.75, 0.98),
    (1.25, 1.42),
    (2.45, 1.44),
    (3.15, 0.98),
    (4.15, 0.82),
    (4.35, 0.6),
    (4.38, 0.26),
)
_HATCH = (
    (0.0, 0.28),
    (0.02, 0.7),
    (0.08, 0.95),
    (0.16, 1.0),
    (0.5, 1.5),
    (2.2, 1.53),
    (2.85, 1.03),
    (3.5, 0.9),
    (3.68, 0.6),
    (3.7, 0.26),
)
_VAN = (
    (0.0, 0.3),
    (0.0, 0.8),
    (0.04, 1.05),
    (0.08, 1.1),
    (0.25, 1.86),
    (2.9, 1.9),
    (3.65, 1.16),
    (4.2, 1.0),
    (4.38, 0.65),
    (4.4, 0.28),
)
_PROFILES = (_SEDAN, _SEDAN, _HATCH, _HATCH, _VAN)


@dataclass(frozen=True)
class Car:
    """One car.

    Attributes:
        x: world position of its centre; likewise `z`, and `y` of the ground below it.
        yaw: direction of its front in radians; 0 looks away from the camera.
        profile: side outline.
        width: in metres.
        paint: colour.
        engine: kelvin that the bonnet is above the air; 0 for a car long parked.
        soak: kelvin that its body is above the air, from sun or cold sky.
        lights: whether head and tail lamps are lit.
    """

    x: float
    y: float
    z: float
    yaw: float
    profile: tuple[Point, ...]
    width: float
    paint: Color
    engine: float
    soak: float
    lights: bool

    @classmethod
    def sample(cls, dice: Dice, x: float, y: float, z: float, yaw: float, *, driven: float) -> Car:
        """A car at random; `driven` is the chance that its engine is warm."""
        warm = dice.chance(driven)
        paint = dice.pick(PAINTS)
        tint = dice.uniform(0.85, 1.1)
        return cls(
            x, y, z, yaw, dice.pick(_PROFILES), dice.uniform(1.62, 1.82),
            (min(paint[0] * tint, 240), min(paint[1] * tint, 240), min(paint[2] * tint, 240)),
            dice.uniform(4.0, 13.0) if warm else 0.0, dice.uniform(-1.2, 1.6), warm and dice.chance(0.75),
        )  # fmt: skip

    @property
    def length(self) -> float:
        """Metres from bumper to bumper."""
        return self.profile[-1][0]

    def point(self, along: float, across: float, height: float) -> Vector:
        """World point of a point on the car, in metres from its rear, middle and ground."""
        forward = along - self.length / 2
        sine, cosine = math.sin(self.yaw), math.cos(self.yaw)
        return (
            self.x + forward * sine + across * cosine,
            self.y + height,
            self.z + forward * cosine - across * sine,
        )

    def corners(self) -> list[Vector]:
        """The four corners of its outline on the ground."""
        half = self.width / 2
        return [
            self.point(a, b, 0.0)
            for a, b in ((0.0, -half), (0.0, half), (self.length, half), (self.length, -half))
        ]


def draw_car(canvas: Canvas, car: Car) -> None:
    """Draw a car as an extruded outline: far faces hidden, near faces over them."""
    rear_z, front_z = car.point(0, 0, 0)[2], car.point(car.length, 0, 0)[2]
    edges = range(len(car.profile) - 1)
    for edge in edges if rear_z > front_z else reversed(edges):
        _draw_band(canvas, car, edge)
    for side in (-1, 1):
        if _side_visible(car, side):
            _draw_side(canvas, car, side)
    _draw_end(canvas, car, front=front_z < rear_z)


def _plane(canvas: Canvas, car: Car) -> tuple[float, float, float]:
    return canvas.camera.facing(car.z - 0.4 * car.length * abs(math.cos(car.yaw)))


def _side_visible(car: Car, side: int) -> bool:
    x, _, z = car.point(car.length / 2, side * car.width / 2, 0)
    normal = (side * math.cos(car.yaw), -side * math.sin(car.yaw))
    return normal[0] * x + normal[1] * z < 0


def _body(car: Car, normal: Vector, along: float) -> Material:
    """Paint at a place on the car: warm towards the engine."""
    engine = max(0.0, (along - 0.62) / 0.38) if along > 0.62 else 0.0
    heat = car.soak + car.engine * (0.15 + 0.85 * engine)
    return Material(CAR, car.paint, heat, normal, texture=0.03, heat_texture=0.4)


def _glass(car: Car, normal: Vector) -> Material:
    return Material(
        CAR, (34, 40, 46), car.soak - 1.5 + 0.15 * car.engine, normal, texture=0.06, heat_texture=0.6
    )


def _draw_band(canvas: Canvas, car: Car, edge: int) -> None:
    """One of the faces that run across the car: bumper, boot, window, roof, bonnet."""
    (a, low), (b, high) = car.profile[edge], car.profile[edge + 1]
    run, rise = b - a, high - low
    length = math.hypot(run, rise)
    normal_along, normal_up = -rise / length, run / length
    sine, cosine = math.sin(car.yaw), math.cos(car.yaw)
    normal = (normal_along * sine, normal_up, normal_along * cosine)
    x, y, z = car.point((a + b) / 2, 0, (low + high) / 2)
    if normal[0] * x + normal[1] * (y - canvas.camera.elevation) + normal[2] * z >= 0:
        return
    half = car.width / 2
    inset = 0.12 if max(low, high) > 1.2 else 0.0
    narrow = (half - (inset if low > 1.2 else 0.0), half - (inset if high > 1.2 else 0.0))
    plane = _plane(canvas, car)
    corners = ((a, -narrow[0], low), (b, -narrow[1], high), (b, narrow[1], high), (a, narrow[0], low))
    canvas.quad(
        [car.point(*corner) for corner in corners], _body(car, normal, (a + b) / 2 / car.length), plane
    )
    window = abs(rise) > 0.3 and max(low, high) > 1.2
    if window:
        p, q, s, t = a + 0.1 * run, low + 0.1 * rise, a + 0.9 * run, low + 0.9 * rise
        glass = (
            (p, 0.1 - narrow[0], q),
            (s, 0.1 - narrow[1], t),
            (s, narrow[1] - 0.1, t),
            (p, narrow[0] - 0.1, q),
        )
        canvas.quad([car.point(*corner) for corner in glass], _glass(car, normal), plane)


def _draw_side(canvas: Canvas, car: Car, side: int) -> None:
    """The side that faces the camera: body, windows, sill, wheels."""
    half = side * car.width / 2
    sine, cosine = math.sin(car.yaw), math.cos(car.yaw)
    normal = (side * cosine, 0.0, -side * sine)
    plane, profile = _plane(canvas, car), car.profile
    rear = [(a, height) for a, height in profile]
    # The upper body leans inwards, as the bands across it do.
    lean = [(a, half - side * (0.12 if height > 1.2 else 0.0), height) for a, height in rear]
    canvas.quad([car.point(*corner) for corner in lean], _body(car, normal, 0.45), plane)
    front = [corner for corner in lean if corner[0] > 0.68 * car.length]
    warm = [(0.68 * car.length, half, 0.3), (0.68 * car.length, half, front[0][2] * 0.98), *front]
    canvas.quad([car.point(*corner) for corner in warm], _body(car, normal, 0.82), plane)
    belt, roof = profile[3][1] + 0.02, profile[4][1] - 0.1
    a, b, c, d = profile[3][0] + 0.18, profile[4][0] + 0.08, profile[5][0] - 0.04, profile[6][0] - 0.2
    glass = _glass(car, normal)
    middle = (b + c) / 2
    inner = half - side * 0.06
    for left, top_left, top_right, right in (
        (a, b, middle - 0.05, middle - 0.05),
        (middle + 0.05, middle + 0.05, c, d),
    ):
        pane = ((left, half, belt), (top_left, inner, roof), (top_right, inner, roof), (right, half, belt))
        canvas.quad([car.point(*corner) for corner in pane], glass, plane)
    sill = (
        (0.2, half, 0.24),
        (0.2, half, 0.36),
        (car.length - 0.2, half, 0.36),
        (car.length - 0.2, half, 0.24),
    )
    canvas.quad([car.point(*corner) for corner in sill], _body(car, normal, 0.5).shaded(0.4), plane)
    for along in (0.19 * car.length, 0.81 * car.length):
        _draw_wheel(canvas, car, along, half, normal)


def _draw_wheel(canvas: Canvas, car: Car, along: float, across: float, normal: Vector) -> None:
    plane = _plane(canvas, car)
    tyre = Material(CAR, (26, 26, 28), 0.55 * car.engine + 0.4, normal, texture=0.1, heat_texture=0.5)
    rim = Material(CAR, (150, 152, 156), 0.85 * car.engine + 0.4, normal, texture=0.1, heat_texture=0.5)
    for radius, material in ((0.37, tyre.shaded(0.5)), (0.32, tyre), (0.2, rim), (0.07, tyre)):
        ring = [
            car.point(
                along + radius * math.cos(k * math.pi / 7), across, 0.32 + radius * math.sin(k * math.pi / 7)
            )
            for k in range(14)
        ]
        canvas.quad([(x, max(y, car.y), z) for x, y, z in ring], material, plane)


def _draw_end(canvas: Canvas, car: Car, *, front: bool) -> None:
    """What is on the end that the camera sees: lamps, plate, grille, and the warm underbody."""
    along = car.length if front else 0.0
    away = 1.0 if front else -1.0
    x, _, z = car.point(along, 0, 0)
    sine, cosine = math.sin(car.yaw) * away, math.cos(car.yaw) * away
    if sine * x + cosine * z >= 0:
        return
    half, plane, normal = car.width / 2, _plane(canvas, car), (sine, 0.0, cosine)

    def patch(left: float, low: float, right: float, high: float, material: Material) -> None:
        corners = ((left, low), (right, low), (right, high), (left, high))
        canvas.quad([car.point(along, across, height) for across, height in corners], material, plane)

    dark = Material(CAR, (22, 22, 24), 0.7 * car.engine + 0.3, normal)
    patch(-half * 0.92, 0.14, half * 0.92, 0.3, dark)
    for side in (-1, 1):
        patch(side * half * 0.9 - 0.11, 0.02, side * half * 0.9 + 0.11, 0.3, dark.but(heat=0.5 * car.engine))
    patch(
        -0.3,
        0.42,
        0.3,
        0.56,
        Material(CAR, (214, 214, 206), car.soak + 0.3 * car.engine, normal, retroreflective=0.5),
    )
    low, high = (0.55, 0.7) if front else (0.62, 0.8)
    if front:
        patch(
            -half * 0.5,
            0.56,
            half * 0.5,
            0.7,
            Material(CAR, (30, 30, 32), 0.9 * car.engine + car.soak, normal),
        )
    glow = ((2.4, 2.3, 2.0) if front else (0.35, 0.02, 0.015)) if car.lights else (0.0, 0.0, 0.0)
    color = (220, 222, 224) if front else (150, 20, 22)
    lamp = Material(
        CAR, color, car.soak + (2.0 if car.lights else 0.0), normal, emission=glow, retroreflective=0.3
    )
    for side in (-1, 1):
        patch(side * half * 0.95 - side * 0.3, low, side * half * 0.95, high, lamp)


BIKE = 3


@dataclass(frozen=True)
class Bike:
    """One bike, seen from the side or at an angle.

    Attributes:
        x: world position of its foot; likewise `y` and `z`.
        turn: cosine of its yaw, signed by direction.
        paint: colour of the frame.
        soak: kelvin above the air.
        basket: whether there is one in front.
        rider: who sits on it, if anyone.
        phase: of the pedals.
    """

    x: float
    y: float
    z: float
    turn: float
    paint: Color
    soak: float
    basket: bool
    rider: Person | None
    phase: float

    @classmethod
    def sample(cls, dice: Dice, x: float, y: float, z: float, warmth: float, *, ridden: float) -> Bike:
        """A bike at random; `ridden` is the chance of a rider."""
        rider = Person.sample(dice, warmth) if dice.chance(ridden) else None
        return cls(
            x, y, z, dice.sign() * dice.uniform(0.55, 1.0), dice.pick(PAINTS), dice.uniform(-0.3, 1.2),
            dice.chance(0.5), rider, dice.uniform(0, 6.28),
        )  # fmt: skip


def draw_bike(canvas: Canvas, bike: Bike) -> None:
    """Draw a bike and its rider."""
    board = Billboard(canvas, bike.x, bike.y, bike.z, bike.turn, 0.2)
    frame = Material(BIKE, bike.paint, bike.soak, texture=0.05)
    tyre = Material(BIKE, (24, 24, 26), bike.soak + (1.5 if bike.rider else 0.3), texture=0.05)
    metal = Material(BIKE, (150, 152, 156), bike.soak - 0.4, texture=0.1)
    radius, rear, front = 0.33, (-0.53, 0.34), (0.53, 0.34)
    for hub in (rear, front):
        _draw_bike_wheel(board, hub, radius, tyre, metal)
    crank, seat, head = (-0.08, 0.3), (-0.22, 0.78), (0.36, 0.82)
    saddle, grip = (-0.25, 0.9), (0.3, 1.02)
    for path in ((rear, crank, head), (rear, seat, head), (crank, seat), (head, front)):
        board.stroke(path, 0.055, frame)
    board.stroke((seat, saddle), 0.04, metal)
    board.stroke((head, (0.33, 0.98), grip), 0.045, metal)
    board.limb((-0.38, 0.92), (-0.12, 0.91), 0.1, 0.05, tyre, 0.0)
    board.disc(crank[0], crank[1], 0.1, metal, corners=8)
    board.stroke(((-0.75, 0.66), (-0.3, 0.68)), 0.04, metal)
    if bike.basket:
        basket = Material(BIKE, (78, 72, 66), bike.soak, texture=0.35)
        board.polygon(((0.42, 0.72), (0.72, 0.72), (0.78, 0.98), (0.38, 0.98)), basket)
    if bike.rider is not None:
        draw_riding(board, bike.rider, saddle, grip, crank, bike.phase)


def _draw_bike_wheel(board: Billboard, hub: Point, radius: float, tyre: Material, metal: Material) -> None:
    """Tyre and spokes; one sees through between them, and the label does too."""
    count = 16
    rim = [
        (
            hub[0] + radius * math.cos(2 * math.pi * k / count),
            hub[1] + radius * math.sin(2 * math.pi * k / count),
        )
        for k in range(count + 1)
    ]
    if board.pixels * 0.02 < 0.35:
        board.polygon(rim[:-1], metal.shaded(0.45))
    else:
        for k in range(0, count // 2):
            board.limb(rim[k], rim[k + count // 2], 0.018, 0.018, metal.shaded(0.8), 0.0)
    board.stroke(rim, 0.065, tyre)
    for angle in range(-1, 9):
        a, b = (math.pi * (k / 9) for k in (angle, angle + 1))
        if angle in (1, 2, 3, 4, 5):
            board.limb(
                (hub[0] + 0.38 * math.cos(a), hub[1] + 0.38 * math.sin(a)),
                (hub[0] + 0.38 * math.cos(b), hub[1] + 0.38 * math.sin(b)), 0.03, 0.03, metal, 0.0,
            )  # fmt: skip
