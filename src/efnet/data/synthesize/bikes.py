"""Bikes, parked or ridden."""

from __future__ import annotations

import math
from dataclasses import dataclass

from efnet.data.synthesize.billboard import Billboard
from efnet.data.synthesize.camera import Point
from efnet.data.synthesize.canvas import Canvas, Color, Material
from efnet.data.synthesize.cars import PAINTS
from efnet.data.synthesize.dice import Dice
from efnet.data.synthesize.people import Person, draw_riding

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
