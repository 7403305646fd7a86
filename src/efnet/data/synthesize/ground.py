"""The ground: sky line, pavements, road, its paint, and warm and cold spots on it."""

from __future__ import annotations

import math

from efnet.data.synthesize.camera import NEAR
from efnet.data.synthesize.canvas import Canvas, Color, Material
from efnet.data.synthesize.dice import Dice
from efnet.data.synthesize.plan import Street
from efnet.data.synthesize.street import Interval, draw_kerb
from efnet.data.synthesize.surroundings import skyline

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
