"""Rasterising faces into one index image, from which label, colour and temperature all follow.

Every face drawn gets an entry: what it is made of and in which plane it lies. The canvas keeps only
the number of the entry that is visible at each point (painter's algorithm), so that a label can
never disagree with the pictures by a pixel.

Flat figures that stand upright: people, bikes, cones, poles, crowns of trees.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from efnet.scenes.camera import NEAR, Camera, Plane, Point

Color = tuple[float, float, float]
Vector = tuple[float, float, float]

SUPERSAMPLING = 2
KELVIN_PER_STEP = 0.2
KELVIN_OFFSET = 80
"""Temperature relative to the air is kept in bytes: (byte - offset) * step, from -16 K to 35 K."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a face is made of.

    Attributes:
        label: class index, 0..8.
        color: sRGB albedo, 0..255.
        heat: temperature in kelvin above the air.
        normal: direction that the face looks to, for the sun (unit length).
        texture: relative strength of its albedo texture.
        heat_texture: strength of its temperature texture in kelvin.
        emission: linear radiance it sends out; 1 is a white surface in full sun.
        retroreflective: share of light sent back to its source, for cones and signs.
        ground: whether shadows fall on it.
    """

    label: int
    color: Color
    heat: float = 0.0
    normal: Vector = (0.0, 0.0, -1.0)
    texture: float = 0.1
    heat_texture: float = 0.1
    emission: Color = (0.0, 0.0, 0.0)
    retroreflective: float = 0.0
    ground: bool = False

    def but(self, **changes: Any) -> Material:
        """A copy with some attributes changed."""
        return replace(self, **changes)

    def shaded(self, factor: float) -> Material:
        """A copy whose colour is multiplied by `factor`."""
        red, green, blue = self.color
        return Material(
            self.label, (red * factor, green * factor, blue * factor), self.heat, self.normal, self.texture,
            self.heat_texture, self.emission, self.retroreflective, self.ground,
        )  # fmt: skip


SKY = Material(0, (0.0, 0.0, 0.0), heat=-15.0, texture=0.0, heat_texture=0.0)


@dataclass(frozen=True)
class Buffers:
    """What is visible at each pixel of a finished canvas.

    Attributes:
        label: class index, uint8 (H, W).
        color: sRGB albedo, smoothed along edges, uint8 (H, W, 3).
        heat: temperature above the air in kelvin, smoothed along edges, float32 (H, W).
        entry: number of the visible face, int64 (H, W).
        x: world X in metres, float32 (H, W); likewise `y` and `z`.
        rounding: shading across rounded faces, -1..1 from left to right times strength, float32 (H, W).
        materials: of each entry.
    """

    label: NDArray[np.uint8]
    color: NDArray[np.uint8]
    heat: NDArray[np.float32]
    entry: NDArray[np.int64]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float32]
    rounding: NDArray[np.float32]
    materials: tuple[Material, ...]

    def lookup(self, values: Sequence[float]) -> NDArray[np.float32]:
        """Spread one value per entry over the image: float32 (H, W)."""
        return np.take(np.asarray(values, dtype=np.float32), self.entry, mode="clip")

    @functools.cached_property
    def ground(self) -> NDArray[np.float32]:
        """1 on the ground, 0 elsewhere: float32 (H, W)."""
        return self.lookup([1.0 if material.ground else 0.0 for material in self.materials])

    @functools.cached_property
    def surface(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Coordinates in metres along each face, for textures: two float32 (H, W)."""
        across = self.lookup([abs(material.normal[0]) > 0.7 for material in self.materials])
        level = self.lookup([material.normal[1] > 0.7 for material in self.materials])
        return self.x + across * (self.z - self.x), self.y + level * (self.z - self.y)


class Canvas:
    """Faces drawn over one another, in the order far to near.

    Args:
        camera: projection; its image size is the size of the buffers.
    """

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        size = (camera.width * SUPERSAMPLING, camera.height * SUPERSAMPLING)
        self._image = Image.new("I", size, 0)
        self._draw = ImageDraw.Draw(self._image)
        self._materials: list[Material] = [SKY]
        self._geometry: list[tuple[float, ...]] = [(1e-4, 0.0, 0.0, 0.0, 0.0)]

    def polygon(
        self, points: Sequence[Point], material: Material, plane: Plane, rounding: float = 0.0
    ) -> None:
        """Fill a polygon.

        Args:
            points: corners in output pixels.
            material: what it is made of.
            plane: inverse depth of the plane it lies in.
            rounding: shading across its width, for limbs, poles and the like; 0 is flat.
        """
        columns = [point[0] for point in points]
        left, right = min(columns), max(columns)
        if right < 0 or left > self.camera.width:
            return
        slope = 2 * rounding / max(right - left, 1.0) if rounding else 0.0
        self._geometry.append((*plane, slope, -slope * (left + right) / 2))
        corners = [(floor(x * SUPERSAMPLING), floor(y * SUPERSAMPLING)) for x, y in points]
        self._draw.polygon(corners, fill=len(self._materials))
        self._materials.append(material)

    def quad(
        self, corners: Sequence[Vector], material: Material, plane: Plane, rounding: float = 0.0
    ) -> None:
        """Fill a polygon given by world points in metres."""
        project = self.camera.project
        self.polygon([project(*corner) for corner in corners], material, plane, rounding)

    def buffers(self) -> Buffers:
        """Resolve the canvas into images."""
        fine = np.asarray(self._image).astype(np.int64)
        entry = np.ascontiguousarray(fine[1::SUPERSAMPLING, ::SUPERSAMPLING])
        packed = np.take(self._packed_table(), fine, mode="clip").view(np.uint8).reshape(*fine.shape, 4)
        # RGBX, not RGBA: Pillow would weigh colours by the fourth channel.
        smooth = np.asarray(Image.fromarray(packed, "RGBX").reduce(SUPERSAMPLING))
        labels = np.asarray([material.label for material in self._materials], dtype=np.uint8)
        x, y, z, rounding = self._positions(entry)
        heat = (smooth[..., 3].astype(np.float32) - KELVIN_OFFSET) * np.float32(KELVIN_PER_STEP)
        return Buffers(
            np.take(labels, entry, mode="clip"),
            smooth[..., :3],
            heat,
            entry,
            x,
            y,
            z,
            rounding,
            tuple(self._materials),
        )

    def _packed_table(self) -> NDArray[np.uint32]:
        """Albedo and temperature of each entry as four bytes."""
        rows = [
            (*material.color, KELVIN_OFFSET + material.heat / KELVIN_PER_STEP) for material in self._materials
        ]
        table = np.clip(np.rint(np.asarray(rows)), 0, 255).astype(np.uint8)
        packed: NDArray[np.uint32] = np.ascontiguousarray(table).view(np.uint32)[:, 0]
        return packed

    def _positions(self, entry: NDArray[np.int64]) -> tuple[NDArray[np.float32], ...]:
        """World coordinates of each pixel, and the shading of rounded faces."""
        geometry = np.asarray(self._geometry, dtype=np.float32)
        camera = self.camera
        columns = np.arange(camera.width, dtype=np.float32)[None, :]
        rows = np.arange(camera.height, dtype=np.float32)[:, None]
        constant, along_x, along_y, slope, offset = (
            np.take(np.ascontiguousarray(column), entry, mode="clip") for column in geometry.T
        )
        along_x *= columns
        along_y *= rows
        constant += along_x
        constant += along_y
        z = np.float32(1.0) / np.clip(constant, np.float32(1 / 300), np.float32(1 / NEAR), out=constant)
        slope *= columns
        slope += offset
        x = (columns - np.float32(camera.center_x)) / np.float32(camera.focal) * z
        y = np.float32(camera.elevation) - (rows - np.float32(camera.horizon)) / np.float32(camera.focal) * z
        return tuple(field.astype(np.float32, copy=False) for field in (x, y, z, slope))


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
