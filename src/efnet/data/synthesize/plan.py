"""The plan of a street while it is being furnished: where its parts lie and what is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from efnet.data.synthesize.camera import Camera
from efnet.data.synthesize.canvas import Canvas
from efnet.data.synthesize.dice import Dice
from efnet.data.synthesize.surroundings import Lamp
from efnet.data.synthesize.weather import Climate


@dataclass(frozen=True)
class Shade:
    """Something that keeps light from the ground.

    Attributes:
        x: world position of its foot in metres; likewise `y` and `z`.
        width: in metres.
        height: in metres.
        length: along the road, for walls; 0 for what stands alone.
    """

    x: float
    y: float
    z: float
    width: float
    height: float
    length: float = 0.0


@dataclass
class Street:
    """The street while it is being furnished.

    Attributes:
        middle: X of its middle line.
        half: half its width.
        kerb: height of the kerb to the left and right; 0 where there is none.
        walk: width of the pavement to the left and right.
    """

    dice: Dice
    camera: Camera
    climate: Climate
    middle: float
    half: float
    kerb: tuple[float, float]
    walk: tuple[float, float]
    taken: list[tuple[float, float, float]] = field(default_factory=list)
    queue: list[tuple[float, Callable[[Canvas], None]]] = field(default_factory=list)
    lamps: list[Lamp] = field(default_factory=list)
    shades: list[Shade] = field(default_factory=list)

    def height(self, x: float) -> float:
        """Height of the ground at X = x: pavements are raised behind a kerb."""
        offset = x - self.middle
        if abs(offset) <= self.half:
            return 0.0
        return self.kerb[0 if offset < 0 else 1]

    def edge(self, side: int) -> float:
        """X of the road's left (-1) or right (1) border."""
        return self.middle + side * self.half

    def front(self, side: int) -> float:
        """X of the houses' fronts."""
        return self.edge(side) + side * self.walk[0 if side < 0 else 1]

    def in_view(self, z: float, low: float = 0.04, high: float = 0.96) -> float:
        """An X between the house fronts that is seen at distance z."""
        camera = self.camera
        share = self.dice.uniform(low, high)
        x = (share * camera.width - camera.center_x) / camera.focal * z
        return min(max(x, self.front(-1) + 0.7), self.front(1) - 0.7)

    def free(self, x: float, z: float, radius: float) -> bool:
        """Whether a place is free; if so it is taken."""
        if any(abs(x - a) < radius + r and abs(z - b) < radius + r for a, b, r in self.taken):
            return False
        self.taken.append((x, z, radius))
        return True

    def add(self, z: float, draw: Callable[[Canvas], None]) -> None:
        """Queue something to be drawn at its turn."""
        self.queue.append((z, draw))

    def spot(self, near: float, far: float, radius: float) -> tuple[float, float] | None:
        """A free place in view; near ones are as likely as far ones in the image."""
        for _ in range(8):
            z = 1 / self.dice.uniform(1 / far, 1 / near)
            x = self.in_view(z)
            if self.free(x, z, radius):
                return x, z
        return None
