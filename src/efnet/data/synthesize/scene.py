"""What is in a scene: weather, street, and who and what is on it, all from one seed.

Nothing here knows whether it is day or night, nor how large the image is: the same seed gives the
same street by day and by night, and at any size of the same shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from efnet.data.synthesize import furnish, ground, surroundings
from efnet.data.synthesize.camera import Camera
from efnet.data.synthesize.canvas import Buffers, Canvas
from efnet.data.synthesize.dice import Dice
from efnet.data.synthesize.plan import Shade, Street
from efnet.data.synthesize.surroundings import Lamp
from efnet.data.synthesize.weather import Climate


@dataclass(frozen=True)
class Scene:
    """A scene ready to be lit and measured."""

    camera: Camera
    climate: Climate
    buffers: Buffers
    lamps: tuple[Lamp, ...]
    shades: tuple[Shade, ...]


def compose(seed: int, size: tuple[int, int]) -> Scene:
    """Lay out a scene and rasterise it.

    Args:
        seed: any whole number from 0.
        size: (H, W) in pixels.

    Returns:
        the scene, with its buffers.
    """
    dice = Dice(np.random.SeedSequence([seed, 1]))
    height, width = size
    reference = math.sqrt(width * height / 0.75)
    camera = Camera(
        width, height, reference * dice.uniform(0.85, 1.15), width * dice.uniform(0.34, 0.66),
        height * dice.uniform(0.36, 0.48), dice.uniform(1.25, 1.75),
    )  # fmt: skip
    climate = Climate.sample(dice)
    plan = Street(
        dice, camera, climate, dice.uniform(-1.6, 1.6), dice.uniform(2.8, 4.4),
        (_kerb_height(dice), _kerb_height(dice)), (dice.uniform(2.2, 5.5), dice.uniform(2.2, 5.5)),
    )  # fmt: skip
    canvas = Canvas(camera)
    ground.draw_ground(canvas, dice, plan)
    _frontage(canvas, plan)
    furnish.furnish(plan)
    for _, draw in sorted(plan.queue, key=lambda item: -item[0]):
        draw(canvas)
    return Scene(camera, climate, canvas.buffers(), tuple(plan.lamps), tuple(plan.shades))


def _kerb_height(dice: Dice) -> float:
    return dice.uniform(0.14, 0.22) if dice.chance(furnish.SHARES["curve"]) else 0.0


def _frontage(canvas: Canvas, plan: Street) -> None:
    """Houses, hedges and trees behind the pavements, far to near."""
    dice = plan.dice
    for side in (-1, 1):
        segments: list[tuple[float, float, str]] = []
        at = dice.uniform(2.0, 4.0)
        while at < 90:
            kind = dice.pick(("building", "building", "building", "hedge", "park"))
            length = dice.uniform(9, 24) if kind == "building" else dice.uniform(5, 12)
            segments.append((at, at + length, kind))
            at += length + (dice.uniform(0.5, 3) if dice.chance(0.5) else 0.0)
        base = plan.kerb[0 if side < 0 else 1]
        x = plan.front(side)
        for start, end, kind in reversed(segments):
            if kind == "building":
                height = surroundings.draw_building(
                    canvas, dice, x, (start, end), base, dice.uniform(-0.5, 2.5)
                )
                if plan.climate.sun[0] * side > 0:
                    plan.shades.append(Shade(x, 0.0, (start + end) / 2, 0.0, height, end - start))
                continue
            for _ in range(2 if start < 40 else 1):
                tree = x + side * dice.uniform(1.5, 4.0)
                surroundings.draw_tree(canvas, dice, tree, base, dice.uniform(start + 1, end))
            surroundings.draw_hedge(canvas, dice, x, (start, end), base, dice.uniform(0.5, 1.5))
