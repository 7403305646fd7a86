"""Flat figures that stand upright: people, bikes, cones, poles, crowns of trees."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from efnet.data.synthesize.camera import Point
from efnet.data.synthesize.canvas import Canvas, Material

_CIRCLES = {
    count: [(math.cos(2 * math.pi * k / count), math.sin(2 * math.pi * k / count)) for k in range(count)]
    for count in (8, 14, 20)
}


class Billboard:
    """An upright plane in the scene with coordinates (u, v): metres to the side and above its foot.

    Args:
        canvas: what is drawn on.
        x: world position of the foot; likewise `y` and `z`.
        turn: cosine of the figure's yaw: figures seen at an angle are narrower; negative mirrors.
        lean: rise of z along u, for figures that stand at an angle.
    """

    def __init__(
        self, canvas: Canvas, x: float, y: float, z: float, turn: float = 1.0, lean: float = 0.0
    ) -> None:
        self.canvas = canvas
        self.x, self.y, self.z = x, y, z
        self.turn, self.lean = turn, lean
        self.plane = canvas.camera.facing(z)
        self.pixels = canvas.camera.focal / z
        """Pixels per metre: what is smaller than a pixel need not be drawn."""

    def at(self, u: float, v: float) -> Point:
        """The pixel of (u, v)."""
        return self.canvas.camera.project(self.x + u * self.turn, self.y + v, self.z + u * self.lean)

    def polygon(self, points: Sequence[Point], material: Material, rounding: float = 0.0) -> None:
        """Fill a polygon given in (u, v)."""
        self.canvas.polygon([self.at(u, v) for u, v in points], material, self.plane, rounding)

    def box(
        self, left: float, bottom: float, right: float, top: float, material: Material, rounding: float = 0.0
    ) -> None:
        """Fill an upright rectangle."""
        self.polygon(((left, bottom), (right, bottom), (right, top), (left, top)), material, rounding)

    def disc(
        self,
        u: float,
        v: float,
        radius: float,
        material: Material,
        *,
        height: float | None = None,
        rounding: float = 0.0,
        corners: int = 14,
    ) -> None:
        """Fill an ellipse around (u, v); `height` is its vertical radius where it is no circle."""
        tall = radius if height is None else height
        self.polygon([(u + radius * c, v + tall * s) for c, s in _CIRCLES[corners]], material, rounding)

    def limb(
        self,
        start: Point,
        end: Point,
        width: float,
        end_width: float,
        material: Material,
        rounding: float = 0.35,
    ) -> None:
        """Fill a tapering stroke with blunt ends."""
        along_u, along_v = end[0] - start[0], end[1] - start[1]
        length = math.hypot(along_u, along_v) or 1e-6
        along_u, along_v = along_u / length, along_v / length
        a, b = width / 2, end_width / 2
        (u, v), (p, q) = start, end
        self.polygon(
            (
                (u - along_v * a, v + along_u * a),
                (u - along_u * a * 0.7, v - along_v * a * 0.7),
                (u + along_v * a, v - along_u * a),
                (p + along_v * b, q - along_u * b),
                (p + along_u * b * 0.7, q + along_v * b * 0.7),
                (p - along_v * b, q + along_u * b),
            ),
            material,
            rounding,
        )

    def stroke(self, points: Sequence[Point], width: float, material: Material) -> None:
        """Strokes of even width from point to point."""
        for start, end in itertools.pairwise(points):
            self.limb(start, end, width, width, material, rounding=0.0)
