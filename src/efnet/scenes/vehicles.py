"""Cars, as outlines drawn out to solids, and bikes, parked or ridden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from efnet.scenes.canvas import DARK, Billboard, Canvas, Color, Interval, Material, Point, Vector, palette
from efnet.scenes.people import Person, draw_riding
from efnet.scenes.rng import Rng

CAR, BIKE = 1, 3

PAINTS = palette("paints")

# Outlines from the rear bumper over the roof to the front: (metres along the car, height). The fourth edge is
# the rear window, the fifth the roof, the sixth the windscreen.
_SEDAN = (
    (0.0, 0.28), (0.02, 0.78), (0.12, 0.92), (0.75, 0.98), (1.25, 1.42),
    (2.45, 1.44), (3.15, 0.98), (4.15, 0.82), (4.35, 0.6), (4.38, 0.26),
)  # fmt: skip
_HATCH = (
    (0.0, 0.28), (0.02, 0.7), (0.08, 0.95), (0.16, 1.0), (0.5, 1.5),
    (2.2, 1.53), (2.85, 1.03), (3.5, 0.9), (3.68, 0.6), (3.7, 0.26),
)  # fmt: skip
_VAN = (
    (0.0, 0.3), (0.0, 0.8), (0.04, 1.05), (0.08, 1.1), (0.25, 1.86),
    (2.9, 1.9), (3.65, 1.16), (4.2, 1.0), (4.38, 0.65), (4.4, 0.28),
)  # fmt: skip
_PROFILES = (_SEDAN, _SEDAN, _HATCH, _HATCH, _VAN)
_BELT = 1.2  # height above which the body leans inwards and has windows


@dataclass(frozen=True)
class Car:
    """One car."""

    x: float  # world position of its centre on the ground
    y: float
    z: float
    yaw: float  # direction of its front in radians; 0 looks away from the camera
    profile: tuple[Point, ...]  # side outline
    width: float  # in metres
    paint: Color  # colour
    engine: float  # kelvin that the bonnet is above the air; 0 for a car long parked
    soak: float  # kelvin that its body is above the air, from sun or cold sky
    lights: bool  # whether head and tail lamps are lit

    @classmethod
    def sample(cls, rng: Rng, x: float, y: float, z: float, yaw: float, *, driven: float) -> Car:
        """Draw a car; `driven` is the chance that its engine is warm."""
        warm = rng.chance(driven)
        paint, tint = rng.pick(PAINTS), rng.uniform(0.85, 1.1)
        return cls(
            x, y, z, yaw, rng.pick(_PROFILES), rng.uniform(1.62, 1.82),
            (min(paint[0] * tint, 240), min(paint[1] * tint, 240), min(paint[2] * tint, 240)),
            rng.uniform(4.0, 13.0) if warm else 0.0, rng.uniform(-1.2, 1.6), warm and rng.chance(0.75),
        )  # fmt: skip

    @property
    def length(self) -> float:
        """Metres from bumper to bumper."""
        return self.profile[-1][0]

    def point(self, along: float, across: float, height: float) -> Vector:
        """World point of a point on the car, in metres from its rear, middle and ground."""
        forward = along - self.length / 2
        sine, cosine = math.sin(self.yaw), math.cos(self.yaw)
        x, z = self.x + forward * sine + across * cosine, self.z + forward * cosine - across * sine
        return x, self.y + height, z

    def paint_at(self, normal: Vector, along: float) -> Material:
        """Paint at a share of the length: warm towards the engine."""
        engine = max(0.0, (along - 0.62) / 0.38) if along > 0.62 else 0.0
        heat = self.soak + self.engine * (0.15 + 0.85 * engine)
        return Material(CAR, self.paint, heat, normal, texture=0.03, heat_texture=0.4)

    def glass(self, normal: Vector) -> Material:
        """Window glass, which mirrors the cold sky."""
        heat = self.soak - 1.5 + 0.15 * self.engine
        return Material(CAR, (34, 40, 46), heat, normal, texture=0.06, heat_texture=0.6)

    def draw(self, canvas: Canvas) -> None:
        """Draw the car as an extruded outline: far faces hidden, near faces over them."""
        rear_z, front_z = self.point(0, 0, 0)[2], self.point(self.length, 0, 0)[2]
        edges = range(len(self.profile) - 1)
        for edge in edges if rear_z > front_z else reversed(edges):
            self._draw_band(canvas, edge)
        sine, cosine = math.sin(self.yaw), math.cos(self.yaw)
        for side in (-1, 1):
            x, _, z = self.point(self.length / 2, side * self.width / 2, 0)
            normal = (side * cosine, 0.0, -side * sine)
            if normal[0] * x + normal[2] * z < 0:
                self._draw_side(canvas, side, normal)
        self._draw_end(canvas, front=front_z < rear_z)

    def _fill(self, canvas: Canvas, corners: Sequence[Vector], material: Material) -> None:
        """Fill a polygon given as (along, across, height), in one plane for the whole car."""
        plane = canvas.camera.facing(self.z - 0.4 * self.length * abs(math.cos(self.yaw)))
        # Wheels are round and stand on the ground: no point lies below it.
        points = [self.point(*corner) for corner in corners]
        canvas.face([(x, max(y, self.y), z) for x, y, z in points], material, plane)

    def _draw_band(self, canvas: Canvas, edge: int) -> None:
        """One of the faces that run across the car: bumper, boot, window, roof, bonnet."""
        (a, low), (b, high) = self.profile[edge], self.profile[edge + 1]
        run, rise = b - a, high - low
        length = math.hypot(run, rise)
        normal_along, normal_up = -rise / length, run / length
        normal = (normal_along * math.sin(self.yaw), normal_up, normal_along * math.cos(self.yaw))
        x, y, z = self.point((a + b) / 2, 0, (low + high) / 2)
        if normal[0] * x + normal[1] * (y - canvas.camera.elevation) + normal[2] * z >= 0:
            return
        tall = max(low, high) > _BELT
        m, n = (self.width / 2 - (0.12 if tall and height > _BELT else 0.0) for height in (low, high))
        band = ((a, -m, low), (b, -n, high), (b, n, high), (a, m, low))
        self._fill(canvas, band, self.paint_at(normal, (a + b) / 2 / self.length))
        if abs(rise) > 0.3 and tall:
            p, q, s, t = a + 0.1 * run, low + 0.1 * rise, a + 0.9 * run, low + 0.9 * rise
            window = ((p, 0.1 - m, q), (s, 0.1 - n, t), (s, n - 0.1, t), (p, m - 0.1, q))
            self._fill(canvas, window, self.glass(normal))

    def _draw_side(self, canvas: Canvas, side: int, normal: Vector) -> None:
        """The side that faces the camera: body, windows, sill, wheels."""
        half, length, profile = side * self.width / 2, self.length, self.profile
        # The upper body leans inwards, as the bands across it do.
        lean = [(a, half - side * (0.12 if height > _BELT else 0.0), height) for a, height in profile]
        self._fill(canvas, lean, self.paint_at(normal, 0.45))
        front = [corner for corner in lean if corner[0] > 0.68 * length]
        warm = [(0.68 * length, half, 0.3), (0.68 * length, half, front[0][2] * 0.98), *front]
        self._fill(canvas, warm, self.paint_at(normal, 0.82))
        belt, roof = profile[3][1] + 0.02, profile[4][1] - 0.1
        a, b, c, d = profile[3][0] + 0.18, profile[4][0] + 0.08, profile[5][0] - 0.04, profile[6][0] - 0.2
        middle, inner = (b + c) / 2, half - side * 0.06
        glass = self.glass(normal)
        for p, q, r, s in ((a, b, middle - 0.05, middle - 0.05), (middle + 0.05, middle + 0.05, c, d)):
            self._fill(canvas, ((p, half, belt), (q, inner, roof), (r, inner, roof), (s, half, belt)), glass)
        sill = ((0.2, half, 0.24), (0.2, half, 0.36), (length - 0.2, half, 0.36), (length - 0.2, half, 0.24))
        self._fill(canvas, sill, self.paint_at(normal, 0.5).shaded(0.4))
        tyre = Material(CAR, (26, 26, 28), 0.55 * self.engine + 0.4, normal, heat_texture=0.5)
        rim = Material(CAR, (150, 152, 156), 0.85 * self.engine + 0.4, normal, heat_texture=0.5)
        for along in (0.19 * length, 0.81 * length):
            for radius, material in ((0.37, tyre.shaded(0.5)), (0.32, tyre), (0.2, rim), (0.07, tyre)):
                turns = [k * math.pi / 7 for k in range(14)]
                ring = [(along + radius * math.cos(t), half, 0.32 + radius * math.sin(t)) for t in turns]
                self._fill(canvas, ring, material)

    def _draw_end(self, canvas: Canvas, *, front: bool) -> None:
        """The end that the camera sees: lamps, plate, grille, and the warm underbody."""
        along, away = (self.length, 1.0) if front else (0.0, -1.0)
        x, _, z = self.point(along, 0, 0)
        sine, cosine = math.sin(self.yaw) * away, math.cos(self.yaw) * away
        if sine * x + cosine * z >= 0:
            return
        half, normal, engine = self.width / 2, (sine, 0.0, cosine), self.engine

        def patch(across: Interval, height: Interval, material: Material) -> None:
            (left, right), (low, high) = across, height
            corners = ((along, left, low), (along, right, low), (along, right, high), (along, left, high))
            self._fill(canvas, corners, material)

        dark = Material(CAR, (22, 22, 24), 0.7 * engine + 0.3, normal)
        patch((-half * 0.92, half * 0.92), (0.14, 0.3), dark)
        for side in (-1, 1):
            exhaust = (side * half * 0.9 - 0.11, side * half * 0.9 + 0.11)
            patch(exhaust, (0.02, 0.3), dark.but(heat=0.5 * engine))
        plate = Material(CAR, (214, 214, 206), self.soak + 0.3 * engine, normal, retroreflective=0.5)
        patch((-0.3, 0.3), (0.42, 0.56), plate)
        if front:
            grille = Material(CAR, (30, 30, 32), 0.9 * engine + self.soak, normal)
            patch((-half * 0.5, half * 0.5), (0.56, 0.7), grille)
        glow = ((2.4, 2.3, 2.0) if front else (0.35, 0.02, 0.015)) if self.lights else DARK
        color = (220, 222, 224) if front else (150, 20, 22)
        heat = self.soak + (2.0 if self.lights else 0.0)
        lamp = Material(CAR, color, heat, normal, emission=glow, retroreflective=0.3)
        for side in (-1, 1):
            span = (side * half * 0.95 - side * 0.3, side * half * 0.95)
            patch(span, (0.55, 0.7) if front else (0.62, 0.8), lamp)


@dataclass(frozen=True)
class Bike:
    """One bike, seen from the side or at an angle."""

    x: float  # world position of its foot
    y: float
    z: float
    turn: float  # cosine of its yaw, signed by direction
    paint: Color  # colour of the frame
    soak: float  # kelvin above the air
    basket: bool  # whether there is one in front
    rider: Person | None  # None for a parked bike
    phase: float  # of the pedals

    @classmethod
    def sample(cls, rng: Rng, x: float, y: float, z: float, warmth: float, *, ridden: float) -> Bike:
        """Draw a bike; `ridden` is the chance of a rider."""
        rider = Person.sample(rng, warmth) if rng.chance(ridden) else None
        return cls(
            x, y, z, rng.sign() * rng.uniform(0.55, 1.0), rng.pick(PAINTS), rng.uniform(-0.3, 1.2),
            rng.chance(0.5), rider, rng.uniform(0, 6.28),
        )  # fmt: skip

    def draw(self, canvas: Canvas) -> None:
        """Draw the bike and its rider."""
        board = Billboard(canvas, self.x, self.y, self.z, self.turn, 0.2)
        frame = Material(BIKE, self.paint, self.soak, texture=0.05)
        tyre = Material(BIKE, (24, 24, 26), self.soak + (1.5 if self.rider else 0.3), texture=0.05)
        metal = Material(BIKE, (150, 152, 156), self.soak - 0.4, texture=0.1)
        rear, front = (-0.53, 0.34), (0.53, 0.34)
        for hub in (rear, front):
            _draw_wheel(board, hub, tyre, metal)
        crank, seat, head = (-0.08, 0.3), (-0.22, 0.78), (0.36, 0.82)
        saddle, grip = (-0.25, 0.9), (0.3, 1.02)
        for path in ((rear, crank, head), (rear, seat, head), (crank, seat), (head, front)):
            board.stroke(path, 0.055, frame)
        board.stroke((seat, saddle), 0.04, metal)
        board.stroke((head, (0.33, 0.98), grip), 0.045, metal)
        board.limb((-0.38, 0.92), (-0.12, 0.91), 0.1, 0.05, tyre, 0.0)
        board.disc(crank, (0.1, 0.1), metal, corners=8)
        board.stroke(((-0.75, 0.66), (-0.3, 0.68)), 0.04, metal)
        if self.basket:
            basket = Material(BIKE, (78, 72, 66), self.soak, texture=0.35)
            board.polygon(((0.42, 0.72), (0.72, 0.72), (0.78, 0.98), (0.38, 0.98)), basket)
        if self.rider is not None:
            draw_riding(board, self.rider, saddle, grip, crank, self.phase)


def _draw_wheel(board: Billboard, hub: Point, tyre: Material, metal: Material) -> None:
    """Tyre, spokes and mudguard; one sees through between the spokes, and the label does too."""

    def at(radius: float, angle: float) -> Point:
        return hub[0] + radius * math.cos(angle), hub[1] + radius * math.sin(angle)

    rim = [at(0.33, 2 * math.pi * k / 16) for k in range(17)]
    if board.pixels * 0.02 < 0.35:
        board.polygon(rim[:-1], metal.shaded(0.45))
    else:
        for k in range(8):
            board.limb(rim[k], rim[k + 8], 0.018, 0.018, metal.shaded(0.8), 0.0)
    board.stroke(rim, 0.065, tyre)
    for k in range(1, 6):
        board.limb(at(0.38, math.pi * (k / 9)), at(0.38, math.pi * ((k + 1) / 9)), 0.03, 0.03, metal, 0.0)
