"""Classes with next to no warmth of their own: kerbs, car stops, guardrails, cones, bumps.

What belongs to no class: buildings, trees, lamps, signs, and things that could be taken for a class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from efnet.scenes.canvas import Billboard, Canvas, Color, Material
from efnet.scenes.people import Person, draw_walking
from efnet.scenes.rng import Dice

CURVE, CAR_STOP, GUARDRAIL, CONE, BUMP = 4, 5, 6, 7, 8

Interval = tuple[float, float]


def draw_box(canvas: Canvas, x: Interval, y: Interval, z: Interval, material: Material) -> None:
    """Draw the visible faces of a box whose sides follow the world axes."""
    (left, right), (low, high), (near, far) = x, y, z
    camera = canvas.camera
    if left > 0 or right < 0:
        across = left if left > 0 else right
        corners = ((across, low, near), (across, low, far), (across, high, far), (across, high, near))
        normal = (-1.0 if left > 0 else 1.0, 0.0, 0.0)
        canvas.quad(corners, material.but(normal=normal).shaded(0.9), camera.side(across))
    if high < camera.elevation:
        corners = ((left, high, near), (right, high, near), (right, high, far), (left, high, far))
        canvas.quad(corners, material.but(normal=(0.0, 1.0, 0.0)), camera.level(high))
    corners = ((left, low, near), (right, low, near), (right, high, near), (left, high, near))
    canvas.quad(corners, material, camera.facing(near))


def draw_kerb(canvas: Canvas, dice: Dice, x: float, z: Interval, height: float, heat: float) -> None:
    """A kerb along the road at X = x: a face towards the road and a top, stone after stone."""
    tone = dice.uniform(150, 205)
    inner = x + (0.2 if x > 0 else -0.2)
    striped = dice.chance(0.15)
    at, near = z[0], True
    stones: list[tuple[float, float, Color]] = []
    while at < z[1]:
        end = min(at + (1.2 if near else 3.0), z[1])
        shade = tone * dice.uniform(0.93, 1.05)
        color: Color = (shade, shade * 0.985, shade * 0.95)
        if striped and len(stones) % 2:
            color = (190.0, 160.0, 50.0)
        stones.append((at, end, color))
        at, near = end, at < 12
    level, face = canvas.camera.level(height), canvas.camera.side(x)
    normal = (-1.0 if x > 0 else 1.0, 0.0, 0.0)
    for start, end, color in reversed(stones):
        top = Material(CURVE, color, heat, (0.0, 1.0, 0.0), texture=0.12, ground=True)
        canvas.quad(
            ((x, height, start), (inner, height, start), (inner, height, end), (x, height, end)), top, level
        )
        front = Material(CURVE, color, heat, normal, texture=0.12, ground=True).shaded(0.8)
        canvas.quad(((x, 0, start), (x, 0, end), (x, height, end), (x, height, start)), front, face)


def draw_car_stop(canvas: Canvas, dice: Dice, x: float, y: float, z: float, heat: float) -> None:
    """A low block that stops a car's wheels on its parking place."""
    tone = dice.uniform(135, 195)
    half, height, deep = dice.uniform(0.42, 0.6), dice.uniform(0.2, 0.27), dice.uniform(0.18, 0.3)
    concrete = Material(CAR_STOP, (tone, tone * 0.98, tone * 0.93), heat, texture=0.14)
    draw_box(canvas, (x - half, x + half), (y, y + height), (z, z + deep), concrete)
    if dice.chance(0.6):
        paint = concrete.but(color=dice.pick(((214, 176, 44), (214, 176, 44), (200, 60, 50))))
        for offset in (-0.62, 0.62):
            board = Billboard(canvas, x + offset * half, y, z)
            board.box(-0.1, height * 0.25, 0.1, height * 0.8, paint)


def draw_cone(canvas: Canvas, dice: Dice, x: float, y: float, z: float, heat: float) -> None:
    """A traffic cone on its foot, with a reflecting band."""
    board = Billboard(canvas, x, y, z, lean=0.0)
    h = dice.uniform(0.62, 0.85)
    orange = dice.pick(((222, 74, 28), (230, 96, 30), (206, 48, 34), (226, 80, 24), (36, 88, 170)))
    body = Material(CONE, orange, heat, texture=0.08)
    band = Material(CONE, (228, 226, 218), heat, texture=0.05, retroreflective=1.0)
    foot = body.shaded(0.55)
    board.polygon(((-0.24, 0.0), (0.24, 0.0), (0.2, 0.06), (-0.2, 0.06)), foot)

    def ring(low: float, high: float, material: Material) -> None:
        a, b = (0.155 * (1 - v) + 0.03 * v for v in (low, high))
        board.polygon(
            (
                (-a, 0.05 + low * (h - 0.05)),
                (a, 0.05 + low * (h - 0.05)),
                (b, 0.05 + high * (h - 0.05)),
                (-b, 0.05 + high * (h - 0.05)),
            ),
            material,
            0.4,
        )

    ring(0.0, 1.0, body)
    ring(0.55, 0.76, band)
    if dice.chance(0.5):
        ring(0.22, 0.4, band)


def draw_rail_span(
    canvas: Canvas, kind: str, color: Color, x: Interval, y: float, z: Interval, heat: float
) -> None:
    """One span of a guardrail between two posts at (x0, z0) and (x1, z1), nearer post first."""
    metal = Material(
        GUARDRAIL, color, heat, (-1.0 if x[0] > 0 else 1.0, 0.0, 0.0), texture=0.1, heat_texture=0.15
    )
    plane = canvas.camera.facing((z[0] + z[1]) / 2)

    def beam(low: float, high: float, shade: float) -> None:
        corners = (
            (x[0], y + low, z[0]),
            (x[1], y + low, z[1]),
            (x[1], y + high, z[1]),
            (x[0], y + high, z[0]),
        )
        canvas.quad(corners, metal.shaded(shade), plane)

    post = Billboard(canvas, x[0], y, z[0])
    if kind == "beam":
        post.box(-0.06, 0.0, 0.06, 0.72, metal.shaded(0.7), 0.3)
        for low, high, shade in ((0.42, 0.53, 0.8), (0.53, 0.58, 0.6), (0.58, 0.7, 0.85), (0.7, 0.76, 1.05)):
            beam(low, high, shade)
    else:
        for low, high, shade in ((0.3, 0.38, 0.9), (0.54, 0.62, 0.95), (0.78, 0.88, 1.05)):
            beam(low, high, shade)
        post.box(-0.055, 0.0, 0.055, 0.9, metal, 0.35)


def draw_bump(canvas: Canvas, dice: Dice, x: Interval, z: float, heat: float) -> None:
    """A speed bump across the road: slope towards the camera, top, stripes."""
    depth, height = dice.uniform(0.55, 0.95), dice.uniform(0.07, 0.11)
    style = dice.pick(("yellow", "yellow", "white", "brick"))
    dark: Color = {"yellow": (44, 42, 42), "white": (66, 64, 64), "brick": (128, 74, 60)}[style]
    light: Color = {"yellow": (216, 172, 40), "white": (208, 206, 200), "brick": (150, 92, 74)}[style]
    count = max(6, round((x[1] - x[0]) / 0.5))
    camera = canvas.camera
    slope = camera.level(height / 2)
    for index in range(count):
        left = x[0] + (x[1] - x[0]) * index / count
        right = x[0] + (x[1] - x[0]) * (index + 1) / count
        color = light if index % 2 else dark
        reflective = 0.25 if index % 2 and style != "brick" else 0.0
        material = Material(
            BUMP, color, heat, (0.0, 0.8, -0.6), texture=0.12, retroreflective=reflective, ground=True
        )
        front, back = z + depth * 0.3, z + depth
        canvas.quad(
            ((left, height, front), (right, height, front), (right, height, back), (left, height, back)),
            material.but(normal=(0.0, 1.0, 0.0)),
            camera.level(height),
        )
        canvas.quad(
            ((left, 0, z), (right, 0, z), (right, height, front), (left, height, front)),
            material.shaded(0.85),
            slope,
        )


_WALLS: tuple[Color, ...] = (
    (168, 158, 144), (190, 182, 170), (146, 118, 98), (128, 92, 78), (112, 114, 118),
    (204, 198, 186), (150, 146, 128), (96, 92, 90), (172, 146, 118), (142, 150, 158),
)  # fmt: skip
_LIT: tuple[Color, ...] = ((0.34, 0.26, 0.14), (0.3, 0.28, 0.22), (0.24, 0.28, 0.3), (0.4, 0.3, 0.16))
_LEAVES: tuple[Color, ...] = (
    (62, 84, 40),
    (78, 98, 46),
    (52, 74, 42),
    (96, 104, 48),
    (112, 88, 42),
    (70, 92, 52),
)


@dataclass(frozen=True)
class Lamp:
    """A source of light at night.

    Attributes:
        x: world position in metres; likewise `y` and `z`.
        color: radiant intensity, linear; 1 lights a surface one metre away like the sun.
    """

    x: float
    y: float
    z: float
    color: Color


def draw_building(canvas: Canvas, dice: Dice, x: float, z: Interval, y: float, warmth: float) -> float:
    """A building along the street with its front at X = x; returns its height."""
    tone = dice.pick(_WALLS)
    storeys, storey = dice.integer(2, 6), dice.uniform(2.9, 3.6)
    top = y + storeys * storey + 0.5
    side, camera = (-1.0 if x > 0 else 1.0), canvas.camera
    depth = x + (12 if x > 0 else -12)
    wall = Material(0, tone, warmth, (side, 0.0, 0.0), texture=0.14, heat_texture=0.35)
    gable = wall.but(normal=(0.0, 0.0, -1.0)).shaded(0.92)
    canvas.quad(
        ((x, y, z[0]), (depth, y, z[0]), (depth, top, z[0]), (x, top, z[0])), gable, camera.facing(z[0])
    )
    plane = camera.side(x)

    def face(start: float, end: float, low: float, high: float, material: Material) -> None:
        canvas.quad(((x, low, start), (x, low, end), (x, high, end), (x, high, start)), material, plane)

    face(z[0], z[1], y, top, wall)
    face(z[0], z[1], y, y + 0.5, wall.shaded(0.7))
    face(z[0], z[1], top - 0.45, top, wall.shaded(1.12))
    pitch, width, height = dice.uniform(2.0, 3.6), dice.uniform(0.45, 0.8), dice.uniform(0.42, 0.65)
    lit_share, shop = dice.uniform(0.05, 0.5), dice.chance(0.4)
    columns = max(1, int((z[1] - z[0]) / pitch))
    glass = Material(0, (58, 66, 76), warmth - 1.2, wall.normal, texture=0.25, heat_texture=0.5)
    for floor in range(storeys):
        for column in range(columns):
            lit, leak, glow = dice.chance(lit_share), dice.uniform(-1.0, 2.5), dice.pick(_LIT)
            start = z[0] + (column + 0.5 - width / 2) * pitch
            low = y + floor * storey + (1.0 if floor or not shop else 0.4)
            high = low + (height if floor or not shop else 0.66) * storey
            if start > 60:
                continue
            pane = glass.but(heat=warmth + leak, emission=glow if lit else (0.0, 0.0, 0.0))
            face(start - 0.08, start + width * pitch + 0.08, low - 0.08, high + 0.08, wall.shaded(0.78))
            face(start, start + width * pitch, low, high, pane)
            if start < 22:
                middle = start + width * pitch / 2
                face(middle - 0.04, middle + 0.04, low, high, wall.shaded(0.7))
    if dice.chance(0.7):
        _draw_vents(canvas, dice, x, z, y)
    return top - y


def _draw_vents(canvas: Canvas, dice: Dice, x: float, z: Interval, y: float) -> None:
    """Warm outlets of heating and cooling on a wall, as tall as people or lower."""
    for _ in range(dice.integer(1, 3)):
        at = dice.uniform(z[0], z[1])
        height, wide = dice.uniform(0.5, 1.9), dice.uniform(0.35, 1.0)
        low = y + dice.pick((0.0, 0.1, 0.3, 2.2, 3.4))
        warm = Material(0, (150, 150, 146), dice.uniform(3.0, 13.0), texture=0.3, heat_texture=1.5)
        deep = -0.35 if x > 0 else 0.35
        draw_box(canvas, (min(x, x + deep), max(x, x + deep)), (low, low + height), (at, at + wide), warm)


def draw_hedge(canvas: Canvas, dice: Dice, x: float, z: Interval, y: float, height: float) -> None:
    """A hedge or a low wall along the street."""
    wide = 1.0 if x > 0 else -1.0
    span = (min(x, x + wide), max(x, x + wide))
    if dice.chance(0.6):
        leaf = dice.pick(_LEAVES)
        draw_box(
            canvas,
            span,
            (y, y + height),
            z,
            Material(0, leaf, dice.uniform(-0.5, 0.6), texture=0.55, heat_texture=0.5),
        )
        return
    tone = dice.uniform(120, 180)
    stone = Material(
        0, (tone, tone * 0.96, tone * 0.9), dice.uniform(-0.4, 1.5), texture=0.2, heat_texture=0.3
    )
    draw_box(canvas, span, (y, y + height), z, stone)


def draw_tree(canvas: Canvas, dice: Dice, x: float, y: float, z: float) -> None:
    """A tree: trunk, boughs and a crown of many clumps of leaves."""
    board = Billboard(canvas, x, y, z)
    h, trunk = dice.uniform(4.5, 9.5), dice.uniform(0.16, 0.3)
    bark = Material(0, (84, 70, 58), dice.uniform(-0.4, 1.2), texture=0.4, heat_texture=0.4)
    leaf = dice.pick(_LEAVES)
    fork = h * dice.uniform(0.3, 0.42)
    cool = dice.uniform(-1.0, 0.2)
    board.limb((0, 0), (0.05, fork), trunk * 2, trunk * 1.4, bark)
    for lean in (-0.24, 0.05, 0.26):
        board.limb((0.05, fork), (lean * h, h * 0.75), trunk * 1.0, trunk * 0.3, bark)
    spread = h * dice.uniform(0.2, 0.3)
    count = 34 if z < 28 else 14
    for index in range(count):
        angle, radius = dice.uniform(0, 2 * math.pi), math.sqrt(dice.random())
        u = spread * 1.15 * radius * math.cos(angle)
        v = h * 0.72 + spread * 1.05 * radius * math.sin(angle)
        light = 0.62 + 0.45 * (index / count) + 0.2 * (v - h * 0.72) / spread
        clump = Material(0, leaf, cool + dice.uniform(-0.4, 0.4), texture=0.5, heat_texture=0.45).shaded(
            light
        )
        _draw_clump(
            board, dice, u, v, spread * dice.uniform(0.16, 0.34) * (1.0 if count > 20 else 1.5), clump
        )


def _draw_clump(board: Billboard, dice: Dice, u: float, v: float, radius: float, material: Material) -> None:
    """Leaves with a ragged outline."""
    points = []
    for k in range(11):
        reach = radius * dice.uniform(0.55, 1.3)
        points.append((u + reach * math.cos(k * 0.571), v + 0.8 * reach * math.sin(k * 0.571)))
    board.polygon(points, material, 0.25)


def draw_street_lamp(canvas: Canvas, x: float, y: float, z: float, height: float, lamp: Lamp) -> None:
    """A street lamp; its light is the `lamp`, dark where that has no colour."""
    board = Billboard(canvas, x, y, z)
    steel = Material(0, (96, 100, 102), 0.0, texture=0.08)
    arm = lamp.x - x
    board.limb((0, 0), (0, height), 0.16, 0.1, steel)
    board.limb((0, height), (arm, height + 0.25), 0.08, 0.07, steel)
    on = any(lamp.color)
    glow = tuple(min(channel / 3.0, 6.0) for channel in lamp.color)
    head = Material(0, (220, 218, 210), 7.0 if on else -0.5, emission=(glow[0], glow[1], glow[2]))
    board.box(arm - 0.3, height + 0.12, arm + 0.3, height + 0.28, head)


def draw_traffic_light(canvas: Canvas, dice: Dice, x: float, y: float, z: float) -> None:
    """A traffic light, warm and shining."""
    board = Billboard(canvas, x, y, z)
    dark = Material(0, (40, 44, 42), 0.5)
    board.limb((0, 0), (0, 3.2), 0.14, 0.12, dark.but(color=(110, 112, 112)))
    board.box(-0.2, 2.6, 0.2, 3.7, dark.but(heat=dice.uniform(0.5, 3.0)))
    shining = dice.integer(0, 2)
    for index, color in enumerate(((0.05, 0.9, 0.45), (1.0, 0.6, 0.05), (1.1, 0.08, 0.05))):
        lens = Material(0, tuple(200 * min(c, 1) * 0.4 for c in color), 1.0)  # type: ignore[arg-type]
        if index == shining:
            lens = lens.but(emission=color, heat=dice.uniform(2.0, 8.0))
        board.disc(0, 2.8 + 0.34 * index, 0.13, lens, corners=8)


def draw_sign(canvas: Canvas, dice: Dice, x: float, y: float, z: float) -> None:
    """A traffic sign; some are as orange as a cone."""
    board = Billboard(canvas, x, y, z)
    pole = Material(0, (140, 142, 144), -0.2)
    board.limb((0, 0), (0, 2.3), 0.07, 0.07, pole)
    kind = dice.pick(("stop", "blue", "warning", "orange"))
    shine = {"texture": 0.03, "retroreflective": 0.6, "heat": dice.uniform(-1.0, 0.3)}
    if kind == "warning":
        for size, color in ((0.42, (196, 40, 36)), (0.3, (226, 222, 210))):
            triangle = [(size * math.cos(a), 2.2 + size * math.sin(a)) for a in (math.pi / 2, 3.665, 5.76)]
            board.polygon(triangle, Material(0, color).but(**shine))
    elif kind == "orange":
        board.polygon(
            ((-0.42, 1.3), (0.42, 1.3), (0.42, 1.95), (-0.42, 1.95)), Material(0, (224, 100, 32)).but(**shine)
        )
        board.box(-0.3, 1.5, 0.3, 1.58, Material(0, (40, 36, 34)))
    else:
        color = (186, 34, 34) if kind == "stop" else (36, 76, 160)
        board.disc(0, 2.15, 0.34, Material(0, color).but(**shine), corners=8 if kind == "stop" else 20)
        board.box(-0.2, 2.09, 0.2, 2.2, Material(0, (230, 228, 222)).but(**shine))


def draw_poster(canvas: Canvas, dice: Dice, x: float, y: float, z: float) -> None:
    """A board with the picture of a person: looks like one, and is cold."""
    glow = dice.chance(0.4)
    board = Billboard(canvas, x, y, z)
    frame = Material(0, (60, 62, 66), dice.uniform(0.0, 1.5))
    paper = Material(0, dice.pick(((206, 200, 186), (150, 176, 196), (214, 186, 120), (180, 92, 84))), 0.4)
    light = (0.22, 0.2, 0.17) if glow else (0.0, 0.0, 0.0)
    board.box(-0.62, 0.0, 0.62, 2.15, frame)
    board.box(-0.55, 0.12, 0.55, 2.08, paper.but(emission=light, heat=3.0 if glow else 0.4))
    person = Person.sample(dice, 0.0).cold(None, 3.0 if glow else 0.4, 0.95)
    draw_walking(Billboard(canvas, x, y + 0.18, z), person)


def draw_statue(canvas: Canvas, dice: Dice, x: float, y: float, z: float) -> None:
    """A statue or a mannequin: the shape of a person, cold."""
    tone = dice.uniform(70, 190)
    heat = dice.uniform(-0.8, 0.8)
    stone = Material(0, (tone * 0.9, tone * 0.9, tone * 0.86), heat, texture=0.2)
    draw_box(canvas, (x - 0.4, x + 0.4), (y, y + 0.5), (z, z + 0.7), stone.shaded(0.8))
    clothed = dice.chance(0.4)
    person = Person.sample(dice, 0.0).cold(None if clothed else stone.color, heat)
    draw_walking(Billboard(canvas, x, y + 0.5, z), person)


def draw_warm_box(canvas: Canvas, dice: Dice, x: float, y: float, z: float) -> None:
    """A vending machine, a switch cabinet, a boiler: warm and upright, and no person."""
    wide, tall, deep = dice.uniform(0.25, 0.55), dice.uniform(0.9, 1.95), dice.uniform(0.3, 0.7)
    color = dice.pick(((196, 198, 196), (170, 40, 40), (50, 90, 150), (120, 126, 112), (90, 92, 90)))
    heat = dice.uniform(2.5, 12.0)
    draw_box(
        canvas, (x - wide, x + wide), (y, y + tall), (z, z + deep), Material(0, color, heat, heat_texture=1.2)
    )
    front = Billboard(canvas, x, y, z)
    if tall > 1.5 and dice.chance(0.6):
        front.box(
            -wide * 0.8,
            tall * 0.45,
            wide * 0.8,
            tall * 0.92,
            Material(0, (200, 210, 214), heat * 0.6, emission=(0.5, 0.52, 0.55)),
        )


def draw_animal(canvas: Canvas, dice: Dice, x: float, y: float, z: float, warmth: float) -> None:
    """A dog: warm, and no person."""
    board = Billboard(canvas, x, y, z, dice.sign() * dice.uniform(0.6, 1.0))
    fur = Material(
        0, dice.pick(((60, 48, 38), (150, 118, 82), (40, 38, 38), (190, 182, 168))), warmth * 0.6, texture=0.3
    )
    size = dice.uniform(0.7, 1.15)
    for foot, hip in ((-0.3, -0.26), (-0.2, -0.24), (0.22, 0.24), (0.32, 0.26)):
        board.limb((hip * size, 0.36 * size), (foot * size, 0.03), 0.1 * size, 0.06 * size, fur.shaded(0.85))
    board.limb((-0.3 * size, 0.44 * size), (0.3 * size, 0.46 * size), 0.22 * size, 0.26 * size, fur)
    board.limb(
        (0.3 * size, 0.52 * size),
        (0.48 * size, 0.68 * size),
        0.16 * size,
        0.18 * size,
        fur.but(heat=warmth * 0.85),
    )
    board.limb(
        (0.48 * size, 0.68 * size),
        (0.64 * size, 0.63 * size),
        0.13 * size,
        0.07 * size,
        fur.but(heat=warmth * 0.9),
    )
    board.limb((-0.36 * size, 0.5 * size), (-0.55 * size, 0.66 * size), 0.06 * size, 0.03 * size, fur)


def draw_litter_bin(canvas: Canvas, dice: Dice, x: float, y: float, z: float) -> None:
    """A litter bin or a low bollard-like pot."""
    board = Billboard(canvas, x, y, z)
    color = dice.pick(((60, 80, 66), (90, 92, 96), (150, 96, 70), (180, 150, 60)))
    body = Material(0, color, dice.uniform(-0.4, 0.8), texture=0.15)
    tall = dice.uniform(0.6, 1.0)
    board.polygon(((-0.22, 0), (0.22, 0), (0.27, tall), (-0.27, tall)), body, 0.4)
    if dice.chance(0.5):
        _draw_clump(board, dice, 0, tall + 0.2, 0.4, Material(0, dice.pick(_LEAVES), -0.3, texture=0.5))


def skyline(dice: Dice) -> Sequence[tuple[float, float, float, Color]]:
    """Far houses and woods along the horizon: (left, right, height, colour), in metres at 150 m."""
    blocks = []
    at = -170.0
    while at < 170:
        width = dice.uniform(7, 30)
        woods = dice.chance(0.5)
        color = dice.pick(_LEAVES) if woods else dice.pick(_WALLS)
        blocks.append((at, at + width, dice.uniform(5, 12) if woods else dice.uniform(6, 32), color))
        at += width * dice.uniform(0.6, 1.0)
    return blocks
