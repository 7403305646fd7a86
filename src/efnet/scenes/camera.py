"""The pinhole camera of a scene: metres in the world to pixels in the image.

World axes: X to the right, Y up from the road, Z ahead of the camera, in metres. The camera looks
along Z; yaw and pitch are small and appear as a shift of the vanishing point.
"""

from __future__ import annotations

from dataclasses import dataclass

NEAR = 0.9
"""Nothing is drawn closer than this (metres); it lies below the lower image border."""

Point = tuple[float, float]
"""A point in output pixels: (x, y)."""

Plane = tuple[float, float, float]
"""Inverse depth of a plane, affine in the image: 1/Z = p0 + p1 * x + p2 * y."""


@dataclass(frozen=True)
class Camera:
    """Where and how the scene is seen.

    Attributes:
        width: of the image, in pixels.
        height: of the image, in pixels.
        focal: focal length in pixels.
        center_x: column of the vanishing point.
        horizon: row of the horizon.
        elevation: height above the road in metres.
    """

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
        if abs(drop) < 0.05:
            drop = 0.05
        slope = 1.0 / (self.focal * drop)
        return -self.horizon * slope, 0.0, slope

    def side(self, x: float) -> Plane:
        """The vertical plane at X = x that runs along the road."""
        if abs(x) < 0.05:
            x = 0.05
        slope = 1.0 / (self.focal * x)
        return -self.center_x * slope, slope, 0.0
