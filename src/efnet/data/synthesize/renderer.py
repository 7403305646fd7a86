"""From a seed to an RGB-thermal pair with its label."""

from __future__ import annotations

from efnet.data.pairs import Condition
from efnet.data.sample import Sample
from efnet.data.synthesize.heat import measure
from efnet.data.synthesize.light import photograph
from efnet.data.synthesize.scene import compose
from efnet.errors import InputError

MIN_SIDE = 64
MAX_SIDE = 8192


def render(seed: int, size: tuple[int, int] = (480, 640), condition: Condition = "day") -> Sample:
    """Render one street scene with MFNet's nine classes.

    The same seed gives the same street, label and thermal image by day and by night; only the colour
    image changes. The same arguments give the same pixels on every machine.

    Args:
        seed: any whole number from 0.
        size: (H, W) in pixels, at least 64 each; the scene is the same at any size of the same
            shape.
        condition: day or night.

    Returns:
        the pair; rgb uint8 (H, W, 3), thermal float32 (H, W) in [0, 1], label uint8 (H, W) in 0..8.

    Raises:
        InputError: a negative seed, a size below 64, or an unknown condition.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: a scene's seed is 0 or more")
    if min(size) < MIN_SIDE:
        raise InputError(f"size {size[0]}x{size[1]}: scenes are at least {MIN_SIDE}x{MIN_SIDE} pixels")
    if condition not in ("day", "night"):
        raise InputError(f"condition '{condition}': choose day or night")
    scene = compose(seed, size)
    return Sample(
        name=f"{seed:05d}{'D' if condition == 'day' else 'N'}",
        rgb=photograph(scene, seed, condition),
        thermal=measure(scene, seed),
        label=scene.buffers.label,
    )
