"""Rasterising a scene into one index image, from which label, colour and temperature all follow.

Each face drawn gets an entry: its material and its plane. The canvas keeps only the number of the entry that
is visible at each point (painter's algorithm), so a label never disagrees with the pictures by a pixel.

World axes: X to the right, Y up from the road, Z ahead of the camera, in metres. The camera looks along Z;
yaw and pitch are small and appear as a shift of the vanishing point.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from math import floor
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Color = tuple[float, float, float]
Vector = tuple[float, float, float]
Interval = tuple[float, float]

Point = tuple[float, float]  # a point in output pixels: (x, y)
Plane = tuple[float, float, float]  # a plane's inverse depth, affine in the image: 1/Z = p0 + p1 x + p2 y

NEAR = 0.9  # nothing is drawn closer than this (metres); it lies below the lower image border

SUPERSAMPLING = 2
KELVIN_PER_STEP = 0.2
KELVIN_OFFSET = 80  # temperature above the air is kept in bytes: (byte - offset) * step, -16 K to 35 K

UP: Vector = (0.0, 1.0, 0.0)


def palette(name: str) -> tuple[Color, ...]:
    """Colours of `palettes.yaml`."""
    text = resources.files("efnet.scenes").joinpath("palettes.yaml").read_text(encoding="utf-8")
    return tuple((red, green, blue) for red, green, blue in yaml.safe_load(text)[name])


DARK: Color = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: size, focal length and vanishing point in pixels, elevation in metres."""

    width: int
    height: int
    focal: float
    center_x: float
    horizon: float
    elevation: float

    def project(self, x: float, y: float, z: float) -> Point:
        """The pixel of a world point."""
        scale = self.focal / (z if z > NEAR else NEAR)
        return self.center_x + scale * x, self.horizon + scale * (self.elevation - y)

    def facing(self, z: float) -> Plane:
        """The plane at distance z that faces the camera."""
        return 1.0 / max(z, NEAR), 0.0, 0.0

    def level(self, y: float) -> Plane:
        """The horizontal plane at height y (not the camera's own height)."""
        drop = self.elevation - y
        slope = 1.0 / (self.focal * (0.05 if abs(drop) < 0.05 else drop))
        return -self.horizon * slope, 0.0, slope

    def side(self, x: float) -> Plane:
        """The vertical plane at X = x that runs along the road."""
        slope = 1.0 / (self.focal * (0.05 if abs(x) < 0.05 else x))
        return -self.center_x * slope, slope, 0.0


@dataclass(frozen=True, slots=True)
class Material:
    """Material of a face."""

    label: int  # class index, 0..8
    color: Color  # sRGB albedo, 0..255
    heat: float = 0.0  # temperature in kelvin above the air
    normal: Vector = (0.0, 0.0, -1.0)  # direction that the face looks to, for the sun (unit length)
    texture: float = 0.1  # relative strength of its albedo texture
    heat_texture: float = 0.1  # strength of its temperature texture in kelvin
    emission: Color = DARK  # linear radiance it sends out; 1 is a white surface in full sun
    retroreflective: float = 0.0  # share of light sent back to its source, for cones and signs
    ground: bool = False  # whether shadows fall on it

    def but(self, **changes: Any) -> Material:
        """A copy with some attributes changed."""
        return replace(self, **changes)

    def shaded(self, factor: float) -> Material:
        """A copy whose colour is multiplied by `factor`."""
        red, green, blue = self.color
        return Material(  # `replace` would take three times as long
            self.label, (red * factor, green * factor, blue * factor), self.heat, self.normal, self.texture,
            self.heat_texture, self.emission, self.retroreflective, self.ground,
        )  # fmt: skip


SKY = Material(0, DARK, heat=-15.0, texture=0.0, heat_texture=0.0)


@dataclass(frozen=True)
class Buffers:
    """The visible face at each pixel of a finished canvas; all arrays are (H, W) unless noted."""

    label: NDArray[np.uint8]  # class index
    color: NDArray[np.uint8]  # sRGB albedo (H, W, 3), smoothed along edges
    heat: NDArray[np.float32]  # temperature above the air in kelvin, smoothed along edges
    entry: NDArray[np.int64]  # number of the visible face
    x: NDArray[np.float32]  # world position in metres
    y: NDArray[np.float32]
    z: NDArray[np.float32]
    rounding: NDArray[np.float32]  # shading across rounded faces, -1..1 from left to right times strength
    materials: tuple[Material, ...]  # of each entry

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
    """Faces drawn over one another, in the order far to near, at the size of the camera's image."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self._image = Image.new("I", (camera.width * SUPERSAMPLING, camera.height * SUPERSAMPLING), 0)
        self._draw = ImageDraw.Draw(self._image)
        self._materials: list[Material] = [SKY]
        self._geometry: list[tuple[float, ...]] = [(1e-4, 0.0, 0.0, 0.0, 0.0)]

    def polygon(self, points: Sequence[Point], material: Material, plane: Plane, rounding: float = 0) -> None:
        """Fill a polygon in output pixels that lies in `plane`; `rounding` shades it across its width."""
        columns = [point[0] for point in points]
        left, right = min(columns), max(columns)
        if right < 0 or left > self.camera.width:
            return
        slope = 2 * rounding / max(right - left, 1.0) if rounding else 0.0
        self._geometry.append((*plane, slope, -slope * (left + right) / 2))
        corners = [(floor(x * SUPERSAMPLING), floor(y * SUPERSAMPLING)) for x, y in points]
        self._draw.polygon(corners, fill=len(self._materials))
        self._materials.append(material)

    def face(self, corners: Sequence[Vector], material: Material, plane: Plane) -> None:
        """Fill a polygon given by world points in metres."""
        self.polygon([self.camera.project(*corner) for corner in corners], material, plane)

    def front(self, x: Interval, y: Interval, z: float, material: Material) -> None:
        """Fill an upright rectangle that faces the camera."""
        corners = ((x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z))
        self.face(corners, material, self.camera.facing(z))

    def level(self, x: Interval, y: float, z: Interval, material: Material) -> None:
        """Fill a level rectangle."""
        near = max(z[0], NEAR)
        corners = ((x[0], y, near), (x[1], y, near), (x[1], y, z[1]), (x[0], y, z[1]))
        self.face(corners, material, self.camera.level(y))

    def side(self, x: float, y: Interval, z: Interval, material: Material) -> None:
        """Fill an upright rectangle that runs along the road."""
        corners = ((x, y[0], z[0]), (x, y[0], z[1]), (x, y[1], z[1]), (x, y[1], z[0]))
        self.face(corners, material, self.camera.side(x))

    def box(self, x: Interval, y: Interval, z: Interval, material: Material) -> None:
        """Draw the visible faces of a box whose sides follow the world axes."""
        if x[0] > 0 or x[1] < 0:
            across, toward = (x[0], -1.0) if x[0] > 0 else (x[1], 1.0)
            self.side(across, y, z, material.but(normal=(toward, 0.0, 0.0)).shaded(0.9))
        if y[1] < self.camera.elevation:
            self.level(x, y[1], z, material.but(normal=UP))
        self.front(x, y, z[0], material)

    def buffers(self) -> Buffers:
        """Resolve the canvas into images."""
        materials = self._materials
        rows = [(*material.color, KELVIN_OFFSET + material.heat / KELVIN_PER_STEP) for material in materials]
        table = np.ascontiguousarray(np.clip(np.rint(np.asarray(rows)), 0, 255).astype(np.uint8))
        fine = np.asarray(self._image).astype(np.int64)
        entry = np.ascontiguousarray(fine[1::SUPERSAMPLING, ::SUPERSAMPLING])
        packed = np.take(table.view(np.uint32)[:, 0], fine, mode="clip").view(np.uint8)
        packed = packed.reshape(*fine.shape, 4)
        # RGBX, not RGBA: Pillow would weigh colours by the fourth channel.
        smooth = np.asarray(Image.fromarray(packed, "RGBX").reduce(SUPERSAMPLING))
        labels = np.asarray([material.label for material in materials], dtype=np.uint8)
        heat = (smooth[..., 3].astype(np.float32) - KELVIN_OFFSET) * np.float32(KELVIN_PER_STEP)
        label = np.take(labels, entry, mode="clip")
        x, y, z, rounding = self._positions(entry)
        return Buffers(label, smooth[..., :3], heat, entry, x, y, z, rounding, tuple(self._materials))

    def _positions(self, entry: NDArray[np.int64]) -> tuple[NDArray[np.float32], ...]:
        """World coordinates of each pixel, and the shading of rounded faces."""
        camera, geometry = self.camera, np.ascontiguousarray(np.asarray(self._geometry, dtype=np.float32).T)
        columns = np.arange(camera.width, dtype=np.float32)[None, :]
        rows = np.arange(camera.height, dtype=np.float32)[:, None]
        constant, along_x, along_y, slope, offset = (np.take(row, entry, mode="clip") for row in geometry)
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
    """An upright plane with coordinates (u, v): metres to the side and above its foot at (x, y, z).

    `turn` is the cosine of the figure's yaw, as figures seen at an angle are narrower; negative mirrors.
    `lean` is the rise of z along u, for figures that stand at an angle.
    """

    def __init__(
        self, canvas: Canvas, x: float, y: float, z: float, turn: float = 1, lean: float = 0
    ) -> None:
        self.canvas = canvas
        self.x, self.y, self.z = x, y, z
        self.turn, self.lean = turn, lean
        self.plane = canvas.camera.facing(z)
        self.pixels = canvas.camera.focal / z  # per metre: details smaller than a pixel need not be drawn

    def polygon(self, points: Sequence[Point], material: Material, rounding: float = 0.0) -> None:
        """Fill a polygon given in (u, v)."""
        project = self.canvas.camera.project
        corners = [project(self.x + u * self.turn, self.y + v, self.z + u * self.lean) for u, v in points]
        self.canvas.polygon(corners, material, self.plane, rounding)

    def box(
        self, u0: float, v0: float, u1: float, v1: float, material: Material, rounding: float = 0
    ) -> None:
        """Fill an upright rectangle."""
        self.polygon(((u0, v0), (u1, v0), (u1, v1), (u0, v1)), material, rounding)

    def disc(
        self, center: Point, radius: Point, material: Material, *, rounding: float = 0.0, corners: int = 14
    ) -> None:
        """Fill an ellipse; `radius` is horizontal and vertical."""
        points = [(center[0] + radius[0] * c, center[1] + radius[1] * s) for c, s in _CIRCLES[corners]]
        self.polygon(points, material, rounding)

    def limb(
        self, start: Point, end: Point, width: float, tip: float, material: Material, rounding: float = 0.35
    ) -> None:
        """Fill a tapering stroke with blunt ends."""
        along_u, along_v = end[0] - start[0], end[1] - start[1]
        length = math.hypot(along_u, along_v) or 1e-6
        along_u, along_v = along_u / length, along_v / length
        a, b = width / 2, tip / 2
        (u, v), (p, q) = start, end
        outline = (
            (u - along_v * a, v + along_u * a),
            (u - along_u * a * 0.7, v - along_v * a * 0.7),
            (u + along_v * a, v - along_u * a),
            (p + along_v * b, q - along_u * b),
            (p + along_u * b * 0.7, q + along_v * b * 0.7),
            (p - along_v * b, q + along_u * b),
        )
        self.polygon(outline, material, rounding)

    def stroke(self, points: Sequence[Point], width: float, material: Material) -> None:
        """Fill strokes of even width from point to point."""
        for start, end in itertools.pairwise(points):
            self.limb(start, end, width, width, material, rounding=0.0)
