"""The street itself: ground, kerbs, barriers, houses and trees, and the small things that stand on it.

Kerbs, car stops, guardrails, cones and bumps are classes with next to no warmth of their own. The other
things belong to no class; some look like a class in one of the two images.
"""

from __future__ import annotations

import math
from functools import partial

from efnet.scenes.canvas import DARK, NEAR, UP, Billboard, Canvas, Color, Interval, Material, palette
from efnet.scenes.people import Person, draw_walking
from efnet.scenes.plan import Lamp, Street
from efnet.scenes.rng import Rng

CURVE, CAR_STOP, GUARDRAIL, CONE, BUMP = 4, 5, 6, 7, 8
FAR = 170.0

_GROUNDS = palette("grounds")
_WALLS = palette("walls")
_LIT = palette("lit")
_LEAVES = palette("leaves")


def draw_ground(canvas: Canvas, rng: Rng, plan: Street) -> None:
    """Draw the flat parts, which everything else stands on: skyline, pavements, road, spots, paint, kerbs."""
    for x, height, color in _skyline(rng):
        block = Material(0, color, rng.uniform(-1.5, 1.0), texture=0.3, heat_texture=0.5)
        canvas.front(x, (-2, height), 150.0, block)
    tone = rng.uniform(58, 104)
    asphalt = Material(
        0, (tone, tone * rng.uniform(0.96, 1.02), tone * rng.uniform(0.94, 1.06)),
        0.0, UP, texture=rng.uniform(0.1, 0.22), heat_texture=0.25, ground=True,
    )  # fmt: skip
    canvas.level((-FAR, FAR), 0.0, (NEAR, FAR), asphalt.but(color=rng.pick(_GROUNDS)))
    for side, kerb in zip((-1, 1), plan.kerb, strict=True):
        span = (min(plan.edge(side), plan.front(side)), max(plan.edge(side), plan.front(side)))
        pavement = asphalt.but(color=rng.pick(_GROUNDS), texture=0.16, heat=rng.uniform(-0.5, 0.5))
        canvas.level(span, kerb, (NEAR, FAR), pavement)
        if rng.chance(0.6):
            _draw_slabs(canvas, pavement.shaded(0.86), span, kerb)
    canvas.level((plan.edge(-1), plan.edge(1)), 0.0, (NEAR, FAR), asphalt)
    _draw_spots(canvas, rng, plan, asphalt)
    _draw_paint(canvas, rng, plan, asphalt)
    for side, kerb in zip((-1, 1), plan.kerb, strict=True):
        if kerb:
            _draw_kerb(canvas, rng, plan.edge(side), rng.uniform(22, 60), kerb, rng.uniform(-0.25, 0.35))


def _skyline(rng: Rng) -> list[tuple[Interval, float, Color]]:
    """Far houses and woods along the horizon: span of X, height, colour."""
    blocks: list[tuple[Interval, float, Color]] = []
    at = -170.0
    while at < 170:
        width, woods = rng.uniform(7, 30), rng.chance(0.5)
        color = rng.pick(_LEAVES) if woods else rng.pick(_WALLS)
        blocks.append(((at, at + width), rng.uniform(5, 12) if woods else rng.uniform(6, 32), color))
        at += width * rng.uniform(0.6, 1.0)
    return blocks


def _draw_slabs(canvas: Canvas, joint: Material, x: Interval, y: float) -> None:
    """Joints between the slabs of a pavement."""
    at = 2.0
    while at < 16:
        canvas.level(x, y, (at, at + 0.035 + 0.004 * at), joint)
        at += 0.9
    for share in (0.33, 0.66):
        middle = x[0] + share * (x[1] - x[0])
        canvas.level((middle - 0.025, middle + 0.025), y, (NEAR, 30), joint)


def _draw_spots(canvas: Canvas, rng: Rng, plan: Street, asphalt: Material) -> None:
    """Repaired asphalt, manholes (some warm from below), ground warmed by sun or by cars that left."""

    def across(low: float, high: float) -> float:
        return plan.middle + plan.half * rng.uniform(low, high)

    for _ in range(rng.integer(0, 3)):
        x, z = across(-0.9, 0.5), rng.uniform(3, 25)
        repaired = asphalt.shaded(rng.uniform(0.7, 1.2)).but(heat=rng.uniform(-0.3, 0.4))
        canvas.level((x, x + rng.uniform(0.6, 2.0)), 0.0, (z, z + rng.uniform(0.8, 6)), repaired)
    for _ in range(rng.integer(0, 2)):
        x, z, radius = across(-0.8, 0.8), rng.uniform(4, 14), rng.uniform(0.3, 0.4)
        heat = rng.uniform(3, 12) if rng.chance(0.5) else rng.uniform(-1, 0.5)
        turns = [k * 0.4488 for k in range(14)]
        ring = [(x + radius * math.cos(t), 0.0, z + radius * math.sin(t)) for t in turns]
        canvas.face(ring, asphalt.shaded(0.62).but(heat=heat), canvas.camera.level(0.0))
    for _ in range(rng.integer(0, 3)):
        x, z = across(-1, 0.6), rng.uniform(4, 22)
        warm = asphalt.but(heat=rng.uniform(1.0, 5.0), heat_texture=0.6)
        canvas.level((x, x + rng.uniform(0.8, 2.2)), 0.0, (z, z + rng.uniform(1.5, 5)), warm)


def _draw_paint(canvas: Canvas, rng: Rng, plan: Street, asphalt: Material) -> None:
    """Lane lines, a zebra crossing, a stop line: bright stripes that are not bumps."""
    heat = rng.uniform(-0.4, 0.1)
    white = asphalt.but(color=(206.0, 204.0, 198.0), heat=heat, texture=0.22, retroreflective=0.12)

    def stripe(x: Interval, z: Interval, paint: Material = white) -> None:
        canvas.level(x, 0.0, z, paint)

    if rng.chance(0.7):
        line = rng.pick((white, white.but(color=(204.0, 160.0, 60.0))))
        gap, at = rng.pick((0.0, 3.0, 4.0)), rng.uniform(1, 4)
        while at < 60:
            stripe((plan.middle - 0.07, plan.middle + 0.07), (at, at + 2.5), line)
            at += 2.5 + gap
    for side in (-1, 1):
        if rng.chance(0.6):
            x = plan.edge(side) - side * 0.3
            stripe((x - 0.06, x + 0.06), (NEAR, 70))
    if rng.chance(0.3):
        z, depth = rng.uniform(6, 20), rng.uniform(2.5, 3.5)
        x = plan.edge(-1) + 0.3
        while x + 0.45 < plan.edge(1):
            stripe((x, x + 0.45), (z, z + depth))
            x += 0.95
    if rng.chance(0.25):
        z = rng.uniform(5, 14)
        stripe((plan.middle, plan.edge(1)), (z, z + 0.35))
    if rng.chance(0.3):
        z, x = rng.uniform(4, 9), plan.middle + plan.half / 2
        stripe((x - 0.08, x + 0.08), (z, z + 2.0))
        arrow = ((x - 0.45, 0.0, z + 1.8), (x + 0.45, 0.0, z + 1.8), (x, 0.0, z + 3.4))
        canvas.face(arrow, white, canvas.camera.level(0.0))


def _draw_kerb(canvas: Canvas, rng: Rng, x: float, far: float, height: float, heat: float) -> None:
    """A kerb along the road at X = x: a face towards the road and a top, stone after stone."""
    tone, striped = rng.uniform(150, 205), rng.chance(0.15)
    at, step = NEAR + 0.1, 1.2
    stones: list[tuple[Interval, Color]] = []
    while at < far:
        end = min(at + step, far)
        shade = tone * rng.uniform(0.93, 1.05)
        painted = striped and len(stones) % 2
        stones.append(((at, end), (190.0, 160.0, 50.0) if painted else (shade, shade * 0.985, shade * 0.95)))
        step = 1.2 if at < 12 else 3.0
        at = end
    for z, color in reversed(stones):
        stone = Material(CURVE, color, heat, UP, texture=0.12, ground=True)
        canvas.level((x, x + (0.2 if x > 0 else -0.2)), height, z, stone)
        canvas.side(x, (0, height), z, stone.but(normal=(-1.0 if x > 0 else 1.0, 0.0, 0.0)).shaded(0.8))


def draw_car_stop(canvas: Canvas, rng: Rng, x: float, y: float, z: float, heat: float) -> None:
    """Draw a low block that stops a car's wheels on its parking place."""
    tone = rng.uniform(135, 195)
    half, height, deep = rng.uniform(0.42, 0.6), rng.uniform(0.2, 0.27), rng.uniform(0.18, 0.3)
    concrete = Material(CAR_STOP, (tone, tone * 0.98, tone * 0.93), heat, texture=0.14)
    canvas.box((x - half, x + half), (y, y + height), (z, z + deep), concrete)
    if rng.chance(0.6):
        paint = concrete.but(color=rng.pick(((214, 176, 44), (214, 176, 44), (200, 60, 50))))
        for offset in (-0.62, 0.62):
            Billboard(canvas, x + offset * half, y, z).box(-0.1, height * 0.25, 0.1, height * 0.8, paint)


def draw_cone(canvas: Canvas, rng: Rng, x: float, y: float, z: float, heat: float) -> None:
    """Draw a traffic cone on its foot, with a reflecting band."""
    board, h = Billboard(canvas, x, y, z), rng.uniform(0.62, 0.85)
    orange = rng.pick(((222, 74, 28), (230, 96, 30), (206, 48, 34), (226, 80, 24), (36, 88, 170)))
    body = Material(CONE, orange, heat, texture=0.08)
    band = Material(CONE, (228, 226, 218), heat, texture=0.05, retroreflective=1.0)
    board.polygon(((-0.24, 0.0), (0.24, 0.0), (0.2, 0.06), (-0.2, 0.06)), body.shaded(0.55))

    def ring(low: float, high: float, material: Material) -> None:
        (a, p), (b, q) = ((0.155 * (1 - v) + 0.03 * v, 0.05 + v * (h - 0.05)) for v in (low, high))
        board.polygon(((-a, p), (a, p), (b, q), (-b, q)), material, 0.4)

    ring(0.0, 1.0, body)
    ring(0.55, 0.76, band)
    if rng.chance(0.5):
        ring(0.22, 0.4, band)


def draw_rail_span(
    canvas: Canvas, kind: str, color: Color, x: Interval, y: float, z: Interval, heat: float
) -> None:
    """Draw one span of a guardrail between two posts at (x0, z0) and (x1, z1), nearer post first."""
    normal = (-1.0 if x[0] > 0 else 1.0, 0.0, 0.0)
    metal = Material(GUARDRAIL, color, heat, normal, texture=0.1, heat_texture=0.15)
    post, plane = Billboard(canvas, x[0], y, z[0]), canvas.camera.facing((z[0] + z[1]) / 2)
    if kind == "beam":
        post.box(-0.06, 0.0, 0.06, 0.72, metal.shaded(0.7), 0.3)
        beams = [(0.42, 0.53, 0.8), (0.53, 0.58, 0.6), (0.58, 0.7, 0.85), (0.7, 0.76, 1.05)]
    else:
        beams = [(0.3, 0.38, 0.9), (0.54, 0.62, 0.95), (0.78, 0.88, 1.05)]
    (x0, x1), (z0, z1) = x, z
    for low, high, shade in beams:
        corners = ((x0, y + low, z0), (x1, y + low, z1), (x1, y + high, z1), (x0, y + high, z0))
        canvas.face(corners, metal.shaded(shade), plane)
    if kind != "beam":
        post.box(-0.055, 0.0, 0.055, 0.9, metal, 0.35)


def draw_bump(canvas: Canvas, rng: Rng, x: Interval, z: float, heat: float) -> None:
    """Draw a speed bump across the road: slope towards the camera, top, stripes."""
    depth, height = rng.uniform(0.55, 0.95), rng.uniform(0.07, 0.11)
    yellow = ((44, 42, 42), (216, 172, 40), 0.25)
    white, brick = ((66, 64, 64), (208, 206, 200), 0.25), ((128, 74, 60), (150, 92, 74), 0.0)
    dark, light, shine = rng.pick((yellow, yellow, white, brick))
    count = max(6, round((x[1] - x[0]) / 0.5))
    front, slope = z + depth * 0.3, canvas.camera.level(height / 2)
    bump = Material(BUMP, DARK, heat, (0.0, 0.8, -0.6), texture=0.12, ground=True)
    for index in range(count):
        left, right = (x[0] + (x[1] - x[0]) * edge / count for edge in (index, index + 1))
        color, reflective = (light, shine) if index % 2 else (dark, 0.0)
        stripe = bump.but(color=color, retroreflective=reflective)
        canvas.level((left, right), height, (front, z + depth), stripe.but(normal=UP))
        corners = ((left, 0, z), (right, 0, z), (right, height, front), (left, height, front))
        canvas.face(corners, stripe.shaded(0.85), slope)


def draw_building(canvas: Canvas, rng: Rng, x: float, z: Interval, y: float, warmth: float) -> float:
    """Draw a building along the street with its front at X = x; return its height."""
    tone = rng.pick(_WALLS)
    storeys, storey = rng.integer(2, 6), rng.uniform(2.9, 3.6)
    top = y + storeys * storey + 0.5
    wall = Material(0, tone, warmth, (-1.0 if x > 0 else 1.0, 0.0, 0.0), texture=0.14, heat_texture=0.35)
    gable = wall.but(normal=(0.0, 0.0, -1.0)).shaded(0.92)
    canvas.front((x, x + (12 if x > 0 else -12)), (y, top), z[0], gable)
    face = partial(canvas.side, x)
    face((y, top), z, wall)
    face((y, y + 0.5), z, wall.shaded(0.7))
    face((top - 0.45, top), z, wall.shaded(1.12))
    pitch, width, height = rng.uniform(2.0, 3.6), rng.uniform(0.45, 0.8), rng.uniform(0.42, 0.65)
    lit_share, shop = rng.uniform(0.05, 0.5), rng.chance(0.4)
    glass = Material(0, (58, 66, 76), warmth - 1.2, wall.normal, texture=0.25, heat_texture=0.5)
    for floor in range(storeys):
        for column in range(max(1, int((z[1] - z[0]) / pitch))):
            lit, leak, glow = rng.chance(lit_share), rng.uniform(-1.0, 2.5), rng.pick(_LIT)
            start = z[0] + (column + 0.5 - width / 2) * pitch
            if start > 60:
                continue
            display = shop and not floor
            low = y + floor * storey + (0.4 if display else 1.0)
            high, end = low + (0.66 if display else height) * storey, start + width * pitch
            pane = glass.but(heat=warmth + leak, emission=glow if lit else DARK)
            face((low - 0.08, high + 0.08), (start - 0.08, end + 0.08), wall.shaded(0.78))
            face((low, high), (start, end), pane)
            if start < 22:
                middle = start + width * pitch / 2
                face((low, high), (middle - 0.04, middle + 0.04), wall.shaded(0.7))
    # Warm outlets of heating and cooling, as tall as people or lower.
    deep = x + (-0.35 if x > 0 else 0.35)
    for _ in range(rng.integer(1, 3) if rng.chance(0.7) else 0):
        at, height, wide = rng.uniform(*z), rng.uniform(0.5, 1.9), rng.uniform(0.35, 1.0)
        low = y + rng.pick((0.0, 0.1, 0.3, 2.2, 3.4))
        warm = Material(0, (150, 150, 146), rng.uniform(3.0, 13.0), texture=0.3, heat_texture=1.5)
        canvas.box((min(x, deep), max(x, deep)), (low, low + height), (at, at + wide), warm)
    return top - y


def draw_hedge(canvas: Canvas, rng: Rng, x: float, z: Interval, y: float, height: float) -> None:
    """Draw a hedge or a low wall along the street."""
    deep = x + (1.0 if x > 0 else -1.0)
    if rng.chance(0.6):
        leaf, heat = rng.pick(_LEAVES), rng.uniform(-0.5, 0.6)
        material = Material(0, leaf, heat, texture=0.55, heat_texture=0.5)
    else:
        tone, heat = rng.uniform(120, 180), rng.uniform(-0.4, 1.5)
        material = Material(0, (tone, tone * 0.96, tone * 0.9), heat, texture=0.2, heat_texture=0.3)
    canvas.box((min(x, deep), max(x, deep)), (y, y + height), z, material)


def draw_tree(canvas: Canvas, rng: Rng, x: float, y: float, z: float) -> None:
    """Draw a tree: trunk, boughs and a crown of many clumps of leaves."""
    board = Billboard(canvas, x, y, z)
    h, trunk = rng.uniform(4.5, 9.5), rng.uniform(0.16, 0.3)
    bark = Material(0, (84, 70, 58), rng.uniform(-0.4, 1.2), texture=0.4, heat_texture=0.4)
    leaf, fork, cool = rng.pick(_LEAVES), h * rng.uniform(0.3, 0.42), rng.uniform(-1.0, 0.2)
    board.limb((0, 0), (0.05, fork), trunk * 2, trunk * 1.4, bark)
    for lean in (-0.24, 0.05, 0.26):
        board.limb((0.05, fork), (lean * h, h * 0.75), trunk * 1.0, trunk * 0.3, bark)
    spread = h * rng.uniform(0.2, 0.3)
    count, size = (34, 1.0) if z < 28 else (14, 1.5)
    for index in range(count):
        angle, radius = rng.uniform(0, 2 * math.pi), math.sqrt(rng.random())
        u = spread * 1.15 * radius * math.cos(angle)
        v = h * 0.72 + spread * 1.05 * radius * math.sin(angle)
        light = 0.62 + 0.45 * (index / count) + 0.2 * (v - h * 0.72) / spread
        clump = Material(0, leaf, cool + rng.uniform(-0.4, 0.4), texture=0.5, heat_texture=0.45)
        _draw_clump(board, rng, u, v, spread * rng.uniform(0.16, 0.34) * size, clump.shaded(light))


def _draw_clump(board: Billboard, rng: Rng, u: float, v: float, radius: float, material: Material) -> None:
    """Leaves with a ragged outline."""
    points = []
    for k in range(11):
        reach = radius * rng.uniform(0.55, 1.3)
        points.append((u + reach * math.cos(k * 0.571), v + 0.8 * reach * math.sin(k * 0.571)))
    board.polygon(points, material, 0.25)


def draw_street_lamp(canvas: Canvas, x: float, y: float, z: float, height: float, lamp: Lamp) -> None:
    """Draw a street lamp; its light is the `lamp`, dark where that has no colour."""
    board, arm = Billboard(canvas, x, y, z), lamp.x - x
    steel = Material(0, (96, 100, 102), 0.0, texture=0.08)
    board.limb((0, 0), (0, height), 0.16, 0.1, steel)
    board.limb((0, height), (arm, height + 0.25), 0.08, 0.07, steel)
    red, green, blue = (min(channel / 3.0, 6.0) for channel in lamp.color)
    heat = 7.0 if any(lamp.color) else -0.5
    head = Material(0, (220, 218, 210), heat, emission=(red, green, blue))
    board.box(arm - 0.3, height + 0.12, arm + 0.3, height + 0.28, head)


def draw_traffic_light(canvas: Canvas, rng: Rng, x: float, y: float, z: float) -> None:
    """Draw a traffic light, warm and shining."""
    board, dark = Billboard(canvas, x, y, z), Material(0, (40, 44, 42), 0.5)
    board.limb((0, 0), (0, 3.2), 0.14, 0.12, dark.but(color=(110, 112, 112)))
    board.box(-0.2, 2.6, 0.2, 3.7, dark.but(heat=rng.uniform(0.5, 3.0)))
    shining = rng.integer(0, 2)
    for index, color in enumerate(((0.05, 0.9, 0.45), (1.0, 0.6, 0.05), (1.1, 0.08, 0.05))):
        red, green, blue = (200 * min(channel, 1) * 0.4 for channel in color)
        lens = Material(0, (red, green, blue), 1.0)
        if index == shining:
            lens = lens.but(emission=color, heat=rng.uniform(2.0, 8.0))
        board.disc((0, 2.8 + 0.34 * index), (0.13, 0.13), lens, corners=8)


def draw_sign(canvas: Canvas, rng: Rng, x: float, y: float, z: float) -> None:
    """Draw a traffic sign; some are as orange as a cone."""
    board = Billboard(canvas, x, y, z)
    board.limb((0, 0), (0, 2.3), 0.07, 0.07, Material(0, (140, 142, 144), -0.2))
    kind, heat = rng.pick(("stop", "blue", "warning", "orange")), rng.uniform(-1.0, 0.3)

    def plate(*color: float) -> Material:
        return Material(0, (color[0], color[1], color[2]), heat, texture=0.03, retroreflective=0.6)

    if kind == "warning":
        for size, paint in ((0.42, plate(196, 40, 36)), (0.3, plate(226, 222, 210))):
            turns = (math.pi / 2, 3.665, 5.76)
            board.polygon([(size * math.cos(t), 2.2 + size * math.sin(t)) for t in turns], paint)
    elif kind == "orange":
        board.box(-0.42, 1.3, 0.42, 1.95, plate(224, 100, 32))
        board.box(-0.3, 1.5, 0.3, 1.58, Material(0, (40, 36, 34)))
    else:
        paint, corners = (plate(186, 34, 34), 8) if kind == "stop" else (plate(36, 76, 160), 20)
        board.disc((0, 2.15), (0.34, 0.34), paint, corners=corners)
        board.box(-0.2, 2.09, 0.2, 2.2, plate(230, 228, 222))


def draw_poster(canvas: Canvas, rng: Rng, x: float, y: float, z: float) -> None:
    """Draw a board with the picture of a person: looks like one, and is cold."""
    light, heat = ((0.22, 0.2, 0.17), 3.0) if rng.chance(0.4) else (DARK, 0.4)
    board = Billboard(canvas, x, y, z)
    frame = Material(0, (60, 62, 66), rng.uniform(0.0, 1.5))
    color = rng.pick(((206, 200, 186), (150, 176, 196), (214, 186, 120), (180, 92, 84)))
    board.box(-0.62, 0.0, 0.62, 2.15, frame)
    board.box(-0.55, 0.12, 0.55, 2.08, Material(0, color, heat, emission=light))
    draw_walking(canvas, Person.sample(rng, 0.0).cold(None, heat, 0.95), (x, y + 0.18, z))


def draw_statue(canvas: Canvas, rng: Rng, x: float, y: float, z: float) -> None:
    """Draw a statue or a mannequin: the shape of a person, cold."""
    tone, heat = rng.uniform(70, 190), rng.uniform(-0.8, 0.8)
    stone = Material(0, (tone * 0.9, tone * 0.9, tone * 0.86), heat, texture=0.2)
    canvas.box((x - 0.4, x + 0.4), (y, y + 0.5), (z, z + 0.7), stone.shaded(0.8))
    color = None if rng.chance(0.4) else stone.color
    draw_walking(canvas, Person.sample(rng, 0.0).cold(color, heat), (x, y + 0.5, z))


def draw_warm_box(canvas: Canvas, rng: Rng, x: float, y: float, z: float) -> None:
    """Draw a vending machine, a switch cabinet or a boiler: warm and upright, but not a person."""
    wide, tall, deep = rng.uniform(0.25, 0.55), rng.uniform(0.9, 1.95), rng.uniform(0.3, 0.7)
    color = rng.pick(((196, 198, 196), (170, 40, 40), (50, 90, 150), (120, 126, 112), (90, 92, 90)))
    case = Material(0, color, rng.uniform(2.5, 12.0), heat_texture=1.2)
    canvas.box((x - wide, x + wide), (y, y + tall), (z, z + deep), case)
    if tall > 1.5 and rng.chance(0.6):
        window = Material(0, (200, 210, 214), case.heat * 0.6, emission=(0.5, 0.52, 0.55))
        Billboard(canvas, x, y, z).box(-wide * 0.8, tall * 0.45, wide * 0.8, tall * 0.92, window)


def draw_dog(canvas: Canvas, rng: Rng, x: float, y: float, z: float, warmth: float) -> None:
    """Draw a dog: warm, but not a person."""
    board = Billboard(canvas, x, y, z, rng.sign() * rng.uniform(0.6, 1.0))
    color = rng.pick(((60, 48, 38), (150, 118, 82), (40, 38, 38), (190, 182, 168)))
    fur, size = Material(0, color, warmth * 0.6, texture=0.3), rng.uniform(0.7, 1.15)
    for foot, hip in ((-0.3, -0.26), (-0.2, -0.24), (0.22, 0.24), (0.32, 0.26)):
        board.limb((hip * size, 0.36 * size), (foot * size, 0.03), 0.1 * size, 0.06 * size, fur.shaded(0.85))
    for (a, b), (c, d), width, end_width, share in (  # body, neck, head, tail
        ((-0.3, 0.44), (0.3, 0.46), 0.22, 0.26, 0.6),
        ((0.3, 0.52), (0.48, 0.68), 0.16, 0.18, 0.85),
        ((0.48, 0.68), (0.64, 0.63), 0.13, 0.07, 0.9),
        ((-0.36, 0.5), (-0.55, 0.66), 0.06, 0.03, 0.6),
    ):
        start, end = (a * size, b * size), (c * size, d * size)
        board.limb(start, end, width * size, end_width * size, fur.but(heat=warmth * share))


def draw_litter_bin(canvas: Canvas, rng: Rng, x: float, y: float, z: float) -> None:
    """Draw a litter bin, or a pot with a plant."""
    board = Billboard(canvas, x, y, z)
    color = rng.pick(((60, 80, 66), (90, 92, 96), (150, 96, 70), (180, 150, 60)))
    body, tall = Material(0, color, rng.uniform(-0.4, 0.8), texture=0.15), rng.uniform(0.6, 1.0)
    board.polygon(((-0.22, 0), (0.22, 0), (0.27, tall), (-0.27, tall)), body, 0.4)
    if rng.chance(0.5):
        _draw_clump(board, rng, 0, tall + 0.2, 0.4, Material(0, rng.pick(_LEAVES), -0.3, texture=0.5))
