"""Composing a scene from one seed: weather, street, and everything that stands or moves on it.

The same seed gives the same street by day and by night, and at any size of the same shape.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from efnet.scenes import street
from efnet.scenes.canvas import Buffers, Camera, Canvas, Color, Point
from efnet.scenes.people import Person, draw_walking
from efnet.scenes.plan import Climate, Lamp, Shade, Street
from efnet.scenes.rng import Rng
from efnet.scenes.vehicles import Bike, Car

SHARES = {
    "car": 0.85, "person": 0.9, "bike": 0.6, "curve": 0.65, "car_stop": 0.6, "guardrail": 0.55, "cone": 0.65,
    "bump": 0.45, "poster": 0.35, "statue": 0.35, "warm_box": 0.5, "dog": 0.2, "sign": 0.45,
    "traffic_light": 0.3, "litter_bin": 0.4, "tree": 0.5,
}  # fmt: skip
"""Probability that a street has the class, or the thing that looks like one; it may be out of view."""


@dataclass(frozen=True)
class Scene:
    """A scene ready to be lit and measured."""

    camera: Camera
    climate: Climate
    buffers: Buffers
    lamps: tuple[Lamp, ...]
    shades: tuple[Shade, ...]


def compose(seed: int, size: tuple[int, int]) -> Scene:
    """Lay out a scene and rasterise it at `size` (H, W)."""
    rng = Rng(np.random.SeedSequence([seed, 1]))
    height, width = size
    camera = Camera(
        width, height, math.sqrt(width * height / 0.75) * rng.uniform(0.85, 1.15),
        width * rng.uniform(0.34, 0.66), height * rng.uniform(0.36, 0.48), rng.uniform(1.25, 1.75),
    )  # fmt: skip
    climate = Climate.sample(rng)
    plan = Street(
        rng, camera, climate, rng.uniform(-1.6, 1.6), rng.uniform(2.8, 4.4),
        (_kerb_height(rng), _kerb_height(rng)), (rng.uniform(2.2, 5.5), rng.uniform(2.2, 5.5)),
    )  # fmt: skip
    canvas = Canvas(camera)
    street.draw_ground(canvas, rng, plan)
    _draw_frontage(canvas, plan)
    for add in (_add_barriers, _add_cars, _add_small_things, _add_people, _add_lamps, _add_distractors):
        add(plan)
    for _, draw in sorted(plan.queue, key=lambda item: -item[0]):
        draw(canvas)
    return Scene(camera, climate, canvas.buffers(), tuple(plan.lamps), tuple(plan.shades))


def _kerb_height(rng: Rng) -> float:
    return rng.uniform(0.14, 0.22) if rng.chance(SHARES["curve"]) else 0.0


def _draw_frontage(canvas: Canvas, plan: Street) -> None:
    """Houses, hedges and trees behind the pavements, far to near."""
    rng = plan.rng
    for side, base in zip((-1, 1), plan.kerb, strict=True):
        segments: list[tuple[float, float, str]] = []
        at = rng.uniform(2.0, 4.0)
        while at < 90:
            kind = rng.pick(("building", "building", "building", "hedge", "park"))
            length = rng.uniform(9, 24) if kind == "building" else rng.uniform(5, 12)
            segments.append((at, at + length, kind))
            at += length + (rng.uniform(0.5, 3) if rng.chance(0.5) else 0.0)
        x = plan.front(side)
        for start, end, kind in reversed(segments):
            if kind == "building":
                height = street.draw_building(canvas, rng, x, (start, end), base, rng.uniform(-0.5, 2.5))
                if plan.climate.sun[0] * side > 0:
                    plan.shades.append(Shade(x, 0.0, (start + end) / 2, 0.0, height, end - start))
                continue
            for _ in range(2 if start < 40 else 1):
                tree = x + side * rng.uniform(1.5, 4.0)
                street.draw_tree(canvas, rng, tree, base, rng.uniform(start + 1, end))
            street.draw_hedge(canvas, rng, x, (start, end), base, rng.uniform(0.5, 1.5))


def _ground_heat(plan: Street) -> float:
    """Temperature of things that take on the ground's."""
    return plan.rng.uniform(-0.3, 0.35)


def _add_barriers(plan: Street) -> None:
    """Bumps and guardrails."""
    rng = plan.rng
    if rng.chance(SHARES["bump"]):
        z = rng.uniform(4.4, 8.0)
        for _ in range(rng.integer(1, 2)):
            span = (plan.edge(-1) + rng.uniform(0.0, 0.4), plan.edge(1) - rng.uniform(0.0, 0.4))
            plan.add(z + 1.0, partial(street.draw_bump, rng=rng, x=span, z=z, heat=_ground_heat(plan)))
            z += rng.uniform(2.0, 4.0)
    if not rng.chance(SHARES["guardrail"]):
        return
    kind, tone = rng.pick(("beam", "beam", "pipes")), rng.uniform(150, 225)
    color: Color = (tone, tone, tone) if rng.chance(0.7) else (150.0, 176.0, 140.0)
    heat = _ground_heat(plan) - 0.2
    if rng.chance(0.25):  # across the view
        z = rng.uniform(7, 14)
        rng.sign()  # drawn for nothing, but the next draws depend on it
        start = plan.in_view(z, 0.1, 0.6)
        points = [(start + 1.6 * k, z) for k in range(rng.integer(3, 5))]
    else:
        side = rng.sign()
        x = plan.edge(side) + side * rng.uniform(0.3, 0.6)
        first = rng.uniform(2.6, 6.0)
        points = [(x, first + 2.0 * k) for k in range(rng.integer(5, 11))]
    rail = partial(street.draw_rail_span, kind=kind, color=color, heat=heat)
    for (x0, z0), (x1, z1) in itertools.pairwise(points):
        plan.add(min(z0, z1), partial(rail, x=(x0, x1), y=plan.height(x0), z=(z0, z1)))


def _add_cars(plan: Street) -> None:
    """Cars in their lanes, parked along the road, and crossing it."""
    rng = plan.rng
    if not rng.chance(SHARES["car"]):
        return
    for _ in range(rng.integer(1, 4)):
        kind, side = rng.pick(("lane", "lane", "parked", "parked", "crossing")), rng.sign()
        z = plan.distance(6.5, 32)
        if kind == "lane":
            x, yaw, driven = plan.middle + side * plan.half / 2, (0.0 if side < 0 else math.pi), 1.0
            z = max(z, 8.0)
        elif kind == "parked":
            x, yaw, driven = plan.edge(side) - side * rng.uniform(0.2, 1.0), rng.pick((0.0, math.pi)), 0.35
        else:
            x, yaw, driven = plan.in_view(z, 0.2, 0.8), rng.sign() * math.pi / 2, 0.6
            z = max(z, 10.0)
        yaw += rng.uniform(-0.12, 0.12)
        car = Car.sample(rng, x, plan.height(x) if kind == "parked" else 0.0, z, yaw, driven=driven)
        if not plan.free(x, z, 1.9):
            continue
        wide = car.length if abs(math.sin(yaw)) > 0.7 else car.width
        plan.add(z, car.draw, Shade(x, car.y, z, wide, 1.3))
        if car.lights and math.cos(yaw) < -0.5:
            ahead, _, near = car.point(car.length + 0.6, 0, 0)
            plan.lamps.append(Lamp(ahead, 0.7, near, (3.0, 2.8, 2.4)))


def _add_small_things(plan: Street) -> None:
    """Cones and car stops, in rows as people put them."""
    rng = plan.rng
    if rng.chance(SHARES["cone"]):
        z, count = rng.uniform(4.5, 11), rng.integer(2, 5)
        x, step = plan.in_view(z, 0.1, 0.9), (rng.uniform(-0.9, 0.9), rng.uniform(0.3, 1.8))
        places = [(x + step[0] * index, z + step[1] * index) for index in range(count)]
        _add_row(plan, street.draw_cone, places, 0.3, 0.35, 0.7)
    if rng.chance(SHARES["car_stop"]):
        z, side = rng.uniform(4.8, 10.5), rng.sign()
        x, pitch = plan.in_view(z, 0.1, 0.9), rng.uniform(1.35, 2.4)
        places = [(x + side * pitch * index, z) for index in range(rng.integer(2, 4))]
        _add_row(plan, street.draw_car_stop, places, 0.6, 1.0, 0.22)


def _add_row(
    plan: Street, draw: Callable[..., None], places: list[Point], radius: float, wide: float, tall: float
) -> None:
    """Put the same thing at each free place (x, z) of a row."""
    for x, z in places:
        heat = _ground_heat(plan)
        if plan.free(x, z, radius):
            y = plan.height(x)
            drawing = partial(draw, rng=plan.rng, x=x, y=y, z=z, heat=heat)
            plan.add(z, drawing, Shade(x, y, z, wide, tall))


def _add_people(plan: Street) -> None:
    """Bikes, with and without riders, and people on foot."""
    rng, warmth = plan.rng, plan.climate.warmth
    if rng.chance(SHARES["bike"]):
        for _ in range(rng.integer(1, 3)):
            spot = plan.spot(5.0, 16.0, 0.7)
            if spot is not None:
                bike = Bike.sample(rng, *spot, warmth, ridden=0.4)
                plan.add(bike.z, bike.draw, Shade(*spot, 1.2, 1.6 if bike.rider else 0.9))
    if not rng.chance(SHARES["person"]):
        return
    for _ in range(rng.integer(1, 6)):
        spot = plan.spot(4.5, 24.0, 0.35)
        person, turn = Person.sample(rng, warmth), float(rng.sign())
        if spot is not None:
            draw = partial(draw_walking, person=person, spot=spot, turn=turn)
            plan.add(spot[2], draw, Shade(*spot, 0.45, person.height))


def _add_lamps(plan: Street) -> None:
    """Street lamps; in some streets all are dark, in others three of four are lit."""
    rng = plan.rng
    side, pitch, height = rng.sign(), rng.uniform(14, 26), rng.uniform(4.2, 6.5)
    red, green, blue = rng.pick(((1.0, 0.6, 0.24), (0.92, 1.0, 0.9), (1.0, 0.86, 0.62), (0.72, 1.0, 0.72)))
    strength = rng.uniform(10, 34) if rng.chance(0.6) else 0.0
    first = rng.uniform(5, 12)
    x = plan.edge(side) + side * 0.6
    y = plan.height(x)
    for index in range(4):
        z = first + pitch * index
        lit = strength if rng.chance(0.75) else 0.0
        lamp = Lamp(x - side * 1.3, height, z, (red * lit, green * lit, blue * lit))
        plan.add(z, partial(street.draw_street_lamp, x=x, y=y, z=z, height=height, lamp=lamp))
        if lit:
            plan.lamps.append(lamp)


def _add_distractors(plan: Street) -> None:
    """Things that look like a class in one of the two images."""
    rng = plan.rng
    drawers: dict[str, Callable[..., None]] = {
        "poster": street.draw_poster,
        "statue": street.draw_statue,
        "warm_box": street.draw_warm_box,
        "dog": partial(street.draw_dog, warmth=plan.climate.warmth),
        "sign": street.draw_sign,
        "traffic_light": street.draw_traffic_light,
        "litter_bin": street.draw_litter_bin,
        "tree": street.draw_tree,
    }
    for name, draw in drawers.items():
        if not rng.chance(SHARES[name]):
            continue
        z, side = plan.distance(6.5, 26), rng.sign()
        walk = max(0.6, abs(plan.front(side) - plan.edge(side)) - 0.7)
        x = plan.edge(side) + side * rng.uniform(0.5, walk)
        if plan.free(x, z, 0.5):
            y = plan.height(x)
            plan.add(z, partial(draw, rng=rng, x=x, y=y, z=z), Shade(x, y, z, 0.8, 1.8))
