"""What is in a scene: weather, street, and who and what is on it, all from one seed.

Nothing here knows whether it is day or night, nor how large the image is: the same seed gives the
same street by day and by night, and at any size of the same shape.

Everything that stands or moves on a street, put where it may be met.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from efnet.scenes import street
from efnet.scenes.camera import Camera
from efnet.scenes.canvas import Billboard, Buffers, Canvas, Color
from efnet.scenes.people import Person, draw_walking
from efnet.scenes.plan import Climate, Shade, Street, draw_ground
from efnet.scenes.rng import Dice
from efnet.scenes.street import Lamp
from efnet.scenes.vehicles import Bike, Car, draw_bike, draw_car

SHARES = {
    "car": 0.85,
    "person": 0.9,
    "bike": 0.6,
    "curve": 0.65,
    "car_stop": 0.6,
    "guardrail": 0.55,
    "cone": 0.65,
    "bump": 0.45,
}
"""How often each class is given a place; some of it is then hidden or out of view."""


def furnish(plan: Street) -> None:
    """Everything that stands or moves on the street."""
    _barriers(plan)
    _cars(plan)
    _small_things(plan)
    _people(plan)
    _lights(plan)
    _distractors(plan)


def _cold(plan: Street) -> float:
    """Temperature of things that take on the ground's."""
    return plan.dice.uniform(-0.3, 0.35)


def _barriers(plan: Street) -> None:
    """Bumps and guardrails."""
    dice = plan.dice
    if dice.chance(SHARES["bump"]):
        z = dice.uniform(4.4, 8.0)
        for _ in range(dice.integer(1, 2)):
            span = (plan.edge(-1) + dice.uniform(0.0, 0.4), plan.edge(1) - dice.uniform(0.0, 0.4))
            plan.add(z + 1.0, partial(street.draw_bump, dice=dice, x=span, z=z, heat=_cold(plan)))
            z += dice.uniform(2.0, 4.0)
    if not dice.chance(SHARES["guardrail"]):
        return
    kind = dice.pick(("beam", "beam", "pipes"))
    tone = dice.uniform(150, 225)
    color: Color = (tone, tone, tone) if dice.chance(0.7) else (150.0, 176.0, 140.0)
    heat = _cold(plan) - 0.2
    if dice.chance(0.25):
        z, side = dice.uniform(7, 14), dice.sign()
        start, pitch = plan.in_view(z, 0.1, 0.6), 1.6
        points = [(start + pitch * k, z) for k in range(dice.integer(3, 5))]
    else:
        side = dice.sign()
        x = plan.edge(side) + side * dice.uniform(0.3, 0.6)
        first = dice.uniform(2.6, 6.0)
        points = [(x, first + 2.0 * k) for k in range(dice.integer(5, 11))]
    for (x0, z0), (x1, z1) in itertools.pairwise(points):
        plan.add(
            min(z0, z1),
            partial(
                street.draw_rail_span,
                kind=kind,
                color=color,
                x=(x0, x1),
                y=plan.height(x0),
                z=(z0, z1),
                heat=heat,
            ),
        )


def _add_car(plan: Street, car: Car) -> None:
    plan.add(car.z, partial(draw_car, car=car))
    plan.shades.append(
        Shade(car.x, car.y, car.z, car.length if abs(math.sin(car.yaw)) > 0.7 else car.width, 1.3)
    )
    if car.lights and math.cos(car.yaw) < -0.5:
        x, _, z = car.point(car.length + 0.6, 0, 0)
        plan.lamps.append(Lamp(x, 0.7, z, (3.0, 2.8, 2.4)))


def _cars(plan: Street) -> None:
    """Cars in their lanes, parked along the road, and crossing it."""
    dice = plan.dice
    if not dice.chance(SHARES["car"]):
        return
    for _ in range(dice.integer(1, 4)):
        kind, side = dice.pick(("lane", "lane", "parked", "parked", "crossing")), dice.sign()
        z = 1 / dice.uniform(1 / 32, 1 / 6.5)
        if kind == "lane":
            x, yaw, driven = plan.middle + side * plan.half / 2, (0.0 if side < 0 else math.pi), 1.0
            z = max(z, 8.0)
        elif kind == "parked":
            x, yaw, driven = plan.edge(side) - side * dice.uniform(0.2, 1.0), dice.pick((0.0, math.pi)), 0.35
        else:
            x, yaw, driven = plan.in_view(z, 0.2, 0.8), dice.sign() * math.pi / 2, 0.6
            z = max(z, 10.0)
        yaw += dice.uniform(-0.12, 0.12)
        car = Car.sample(dice, x, plan.height(x) if kind == "parked" else 0.0, z, yaw, driven=driven)
        if plan.free(x, z, 1.9):
            _add_car(plan, car)


def _small_things(plan: Street) -> None:
    """Cones and car stops, in rows as people put them."""
    dice = plan.dice
    if dice.chance(SHARES["cone"]):
        z, count = dice.uniform(4.5, 11), dice.integer(2, 5)
        x, step = plan.in_view(z, 0.1, 0.9), (dice.uniform(-0.9, 0.9), dice.uniform(0.3, 1.8))
        for index in range(count):
            at, depth, heat = x + step[0] * index, z + step[1] * index, _cold(plan)
            if plan.free(at, depth, 0.3):
                y = plan.height(at)
                plan.add(depth, partial(street.draw_cone, dice=dice, x=at, y=y, z=depth, heat=heat))
                plan.shades.append(Shade(at, y, depth, 0.35, 0.7))
    if dice.chance(SHARES["car_stop"]):
        z, side = dice.uniform(4.8, 10.5), dice.sign()
        x, pitch = plan.in_view(z, 0.1, 0.9), dice.uniform(1.35, 2.4)
        for index in range(dice.integer(2, 4)):
            at, heat = x + side * pitch * index, _cold(plan)
            if plan.free(at, z, 0.6):
                y = plan.height(at)
                plan.add(z, partial(street.draw_car_stop, dice=dice, x=at, y=y, z=z, heat=heat))
                plan.shades.append(Shade(at, y, z, 1.0, 0.22))


def _people(plan: Street) -> None:
    """Bikes, with and without riders, and people on foot."""
    dice = plan.dice
    warmth = plan.climate.warmth
    if dice.chance(SHARES["bike"]):
        for _ in range(dice.integer(1, 3)):
            spot = plan.spot(5.0, 16.0, 0.7)
            if spot is not None:
                x, z = spot
                bike = Bike.sample(dice, x, plan.height(x), z, warmth, ridden=0.4)
                plan.add(z, partial(draw_bike, bike=bike))
                plan.shades.append(Shade(x, bike.y, z, 1.2, 1.6 if bike.rider else 0.9))
    if not dice.chance(SHARES["person"]):
        return
    for _ in range(dice.integer(1, 6)):
        spot = plan.spot(4.5, 24.0, 0.35)
        person, turn = Person.sample(dice, warmth), float(dice.sign())
        if spot is not None:
            x, z = spot
            y = plan.height(x)
            plan.add(z, partial(_draw_person, person=person, x=x, y=y, z=z, turn=turn))
            plan.shades.append(Shade(x, y, z, 0.45, person.height))


def _draw_person(canvas: Canvas, person: Person, x: float, y: float, z: float, turn: float) -> None:
    draw_walking(Billboard(canvas, x, y, z, turn), person)


def _lights(plan: Street) -> None:
    """Street lamps; in some streets none of them burns, in others three of four do."""
    dice = plan.dice
    side, pitch, height = dice.sign(), dice.uniform(14, 26), dice.uniform(4.2, 6.5)
    tint = dice.pick(((1.0, 0.6, 0.24), (0.92, 1.0, 0.9), (1.0, 0.86, 0.62), (0.72, 1.0, 0.72)))
    strength = dice.uniform(10, 34) if dice.chance(0.6) else 0.0
    first = dice.uniform(5, 12)
    for index in range(4):
        z = first + pitch * index
        x = plan.edge(side) + side * 0.6
        burning = strength if dice.chance(0.75) else 0.0
        red, green, blue = tint
        lamp = Lamp(x - side * 1.3, height, z, (red * burning, green * burning, blue * burning))
        y = plan.height(x)
        plan.add(z, partial(street.draw_street_lamp, x=x, y=y, z=z, height=height, lamp=lamp))
        if burning:
            plan.lamps.append(lamp)


def _distractors(plan: Street) -> None:
    """Things that look like a class in one of the two images."""
    dice = plan.dice
    makers: tuple[tuple[float, Callable[..., None]], ...] = (
        (0.35, street.draw_poster),
        (0.35, street.draw_statue),
        (0.5, street.draw_warm_box),
        (0.2, partial(street.draw_animal, warmth=plan.climate.warmth)),
        (0.45, street.draw_sign),
        (0.3, street.draw_traffic_light),
        (0.4, street.draw_litter_bin),
        (0.5, street.draw_tree),
    )
    for share, make in makers:
        if not dice.chance(share):
            continue
        z, side = 1 / dice.uniform(1 / 26, 1 / 6.5), dice.sign()
        x = plan.edge(side) + side * dice.uniform(
            0.5, max(0.6, abs(plan.front(side) - plan.edge(side)) - 0.7)
        )
        if plan.free(x, z, 0.5):
            y = plan.height(x)
            plan.add(z, partial(make, dice=dice, x=x, y=y, z=z))
            plan.shades.append(Shade(x, y, z, 0.8, 1.8))


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
    draw_ground(canvas, dice, plan)
    _frontage(canvas, plan)
    furnish(plan)
    for _, draw in sorted(plan.queue, key=lambda item: -item[0]):
        draw(canvas)
    return Scene(camera, climate, canvas.buffers(), tuple(plan.lamps), tuple(plan.shades))


def _kerb_height(dice: Dice) -> float:
    return dice.uniform(0.14, 0.22) if dice.chance(SHARES["curve"]) else 0.0


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
                height = street.draw_building(canvas, dice, x, (start, end), base, dice.uniform(-0.5, 2.5))
                if plan.climate.sun[0] * side > 0:
                    plan.shades.append(Shade(x, 0.0, (start + end) / 2, 0.0, height, end - start))
                continue
            for _ in range(2 if start < 40 else 1):
                tree = x + side * dice.uniform(1.5, 4.0)
                street.draw_tree(canvas, dice, tree, base, dice.uniform(start + 1, end))
            street.draw_hedge(canvas, dice, x, (start, end), base, dice.uniform(0.5, 1.5))
