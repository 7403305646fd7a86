"""Classes with next to no warmth of their own: kerbs, car stops, guardrails, cones, bumps."""

from __future__ import annotations

from efnet.data.synthesize.billboard import Billboard
from efnet.data.synthesize.canvas import Canvas, Color, Material
from efnet.data.synthesize.dice import Dice

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
