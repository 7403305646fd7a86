"""People: on foot, on bikes, and their cold likenesses (posters, statues, mannequins)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from efnet.scenes.canvas import Billboard, Canvas, Color, Material, Point, palette
from efnet.scenes.rng import Rng

PERSON = 2

_CLOTHES = palette("clothes")
_TROUSERS = palette("trousers")
_SHOES = palette("shoes")
_SKIN = palette("skin")
_HAIR = palette("hair")


@dataclass(frozen=True)
class Person:
    """Appearance of one person."""

    height: float  # in metres
    girth: float  # width of the body relative to the usual
    skin: Material  # materials; `bag` is None for empty hands
    hair: Material
    top: Material
    bottom: Material
    shoe: Material
    bag: Material | None
    skirt: bool  # whether the legs are bare below the knee
    coat: bool  # whether the top covers the thighs
    stride: float  # swing of the legs in radians, signed
    profile: bool  # whether seen from the side

    @classmethod
    def sample(cls, rng: Rng, warmth: float) -> Person:
        """Draw a person whose bare skin is `warmth` kelvin above the air."""

        def part(
            colors: tuple[Color, ...], low: float, high: float, texture: float, uneven: float
        ) -> Material:
            color, heat = rng.pick(colors), warmth * rng.uniform(low, high)
            return Material(PERSON, color, heat, texture=texture, heat_texture=uneven)

        skin = part(_SKIN, 0.92, 1.08, 0.05, 0.1)
        jitter = rng.uniform(0.75, 1.15)
        return cls(
            height=rng.uniform(1.5, 1.88) if rng.chance(0.88) else rng.uniform(1.05, 1.35),
            girth=rng.uniform(0.88, 1.2),
            skin=skin,
            hair=part(_HAIR, 0.6, 0.85, 0.15, 0.1),
            top=part(_CLOTHES, 0.38, 0.72, 0.14, 0.5).shaded(jitter),
            bottom=part(_TROUSERS, 0.35, 0.66, 0.12, 0.5).shaded(jitter),
            shoe=Material(PERSON, rng.pick(_SHOES), warmth * 0.28),
            bag=Material(PERSON, rng.pick(_CLOTHES), warmth * 0.12) if rng.chance(0.35) else None,
            skirt=rng.chance(0.15),
            coat=rng.chance(0.3),
            stride=rng.uniform(-0.5, 0.5),
            profile=rng.chance(0.55),
        )

    def cold(self, color: Color | None, heat: float, fade: float = 1.0) -> Person:
        """Make a likeness without warmth and class: a statue of one colour, or (None) a picture, faded."""
        changes = {"label": 0, "heat": heat, "heat_texture": 0.05} | ({"color": color} if color else {})
        parts = ("skin", "hair", "top", "bottom", "shoe")
        dead: dict[str, Any] = {name: getattr(self, name).but(**changes).shaded(fade) for name in parts}
        return replace(self, bag=None, **dead)


def draw_walking(canvas: Canvas, person: Person, spot: tuple[float, float, float], turn: float = 1.0) -> None:
    """Draw a standing or walking person with the feet at `spot`; `turn` as of `Billboard`."""
    board = Billboard(canvas, *spot, turn)
    h, wide, profile = person.height, person.girth, person.profile
    half = (0.028 if profile else 0.052) * h * wide
    hip, swing = 0.515 * h, person.stride
    for side, angle in ((-1, swing), (1, -swing * 0.8)):
        _leg(board, person, (side * half * 0.9, hip), angle if profile else angle * 0.25)
    shoulder = (0.075 if profile else 0.118) * h * wide
    arm_swing = -swing if profile else 0.22
    if profile:
        _arm(board, person, (0.0, 0.8 * h), -arm_swing * 0.9, 0.15)
    else:
        _arm(board, person, (-shoulder, 0.79 * h), -arm_swing, 0.1)
        _arm(board, person, (shoulder, 0.79 * h), arm_swing, -0.1)
    _trunk(board, person, (0.0, hip), (0.0, 0.83 * h), shoulder)
    if person.bag is not None:
        board.box(shoulder * 0.55, 0.55 * h, shoulder * 0.55 + 0.15 * h, 0.76 * h, person.bag, 0.2)
    if profile:
        _arm(board, person, (0.0, 0.8 * h), arm_swing, 0.25)
    _head(board, person, (0.012 * h if profile else 0.0, 0.925 * h))


def draw_riding(
    board: Billboard, person: Person, saddle: Point, grip: Point, pedal: Point, pedal_phase: float
) -> None:
    """Draw a person seated on a bike seen from the side."""
    h = person.height
    hip = (saddle[0], saddle[1] + 0.07 * h)
    shoulder = (hip[0] + 0.1 * h, hip[1] + 0.3 * h)
    for phase in (pedal_phase + math.pi, pedal_phase):
        foot = (pedal[0] + 0.13 * math.cos(phase), pedal[1] + 0.13 * math.sin(phase))
        knee = ((hip[0] + foot[0]) / 2 + 0.13 * h, (hip[1] + foot[1]) / 2 + 0.06 * h)
        board.limb(hip, knee, 0.1 * h, 0.075 * h, person.bottom)
        board.limb(knee, foot, 0.07 * h, 0.05 * h, person.skin if person.skirt else person.bottom)
        board.limb(foot, (foot[0] + 0.1 * h, foot[1]), 0.04 * h, 0.035 * h, person.shoe)
    board.limb(hip, shoulder, 0.135 * h * person.girth, 0.15 * h * person.girth, person.top)
    elbow = ((shoulder[0] + grip[0]) / 2 - 0.02, (shoulder[1] + grip[1]) / 2 - 0.06 * h)
    sleeve = person.top.shaded(0.85)
    board.limb(shoulder, elbow, 0.06 * h, 0.05 * h, sleeve)
    board.limb(elbow, grip, 0.05 * h, 0.04 * h, sleeve)
    board.disc(grip, (0.028 * h, 0.028 * h), person.skin, corners=8)
    _head(board, person, (shoulder[0] + 0.035 * h, shoulder[1] + 0.115 * h))


def _leg(board: Billboard, person: Person, hip: Point, angle: float) -> None:
    h, wide = person.height, person.girth
    knee = (hip[0] + 0.24 * h * math.sin(angle), hip[1] - 0.24 * h * math.cos(angle))
    bend = angle - 0.5 * max(0.0, -angle) - 0.1
    foot = (knee[0] + 0.235 * h * math.sin(bend), max(knee[1] - 0.235 * h * math.cos(bend), 0.03 * h))
    board.limb(knee, foot, 0.072 * h * wide, 0.048 * h, person.skin if person.skirt else person.bottom)
    board.limb(hip, knee, 0.098 * h * wide, 0.078 * h * wide, person.bottom)
    toe = (foot[0] + (0.065 if person.profile else 0.0) * h, max(foot[1] - 0.012 * h, 0.015 * h))
    board.limb((foot[0], toe[1]), toe, 0.046 * h, 0.036 * h, person.shoe)


def _arm(board: Billboard, person: Person, shoulder: Point, angle: float, bend: float) -> None:
    h, lower = person.height, angle + bend
    elbow = (shoulder[0] + 0.17 * h * math.sin(angle), shoulder[1] - 0.17 * h * math.cos(angle))
    hand = (elbow[0] + 0.155 * h * math.sin(lower), elbow[1] - 0.155 * h * math.cos(lower))
    sleeve = person.top.shaded(0.86)
    board.limb(elbow, hand, 0.05 * h, 0.04 * h, sleeve)
    board.limb(shoulder, elbow, 0.062 * h, 0.052 * h, sleeve)
    board.disc((hand[0], hand[1] - 0.015 * h), (0.026 * h, 0.026 * h), person.skin, corners=8)


def _trunk(board: Billboard, person: Person, hip: Point, neck: Point, shoulder: float) -> None:
    h, long = person.height, person.coat or person.skirt
    waist = shoulder * 0.82
    low = hip[1] - (0.14 if long else 0.02) * h
    hem = waist * (1.2 if long else 1.0)
    board.box(neck[0] - 0.026 * h, neck[1] - 0.01 * h, neck[0] + 0.026 * h, neck[1] + 0.05 * h, person.skin)
    outline = (
        (hip[0] - hem, low), (hip[0] + hem, low), (hip[0] + waist, hip[1] + 0.1 * h),
        (neck[0] + shoulder, neck[1] - 0.045 * h), (neck[0] + shoulder * 0.55, neck[1] + 0.005 * h),
        (neck[0] - shoulder * 0.55, neck[1] + 0.005 * h), (neck[0] - shoulder, neck[1] - 0.045 * h),
        (hip[0] - waist, hip[1] + 0.1 * h),
    )  # fmt: skip
    board.polygon(outline, person.top, 0.3)
    if person.skirt:
        skirt = ((hip[0] - hem, low), (hip[0] + hem, low), (waist, hip[1]), (-waist, hip[1]))
        board.polygon(skirt, person.bottom, 0.3)


def _head(board: Billboard, person: Person, center: Point) -> None:
    h, (u, v) = person.height, center
    board.disc((u - 0.006 * h, v + 0.012 * h), (0.05 * h, 0.062 * h), person.hair)
    face = (u + (0.014 * h if person.profile else 0.0), v - 0.012 * h)
    board.disc(face, (0.041 * h, 0.054 * h), person.skin, rounding=0.25)
