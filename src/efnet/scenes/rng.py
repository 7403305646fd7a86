"""Random choices, noise and textures with the same bits on every machine.

Vectorised `exp`, `sin` and the normal samplers may differ in the last bit between processors. So everything
is made from integers and doubles of PCG64, tables, and the four operations that IEEE 754 fixes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

_BLOCK = 1024


class Rng:
    """Scalar random choices, all made from one stream of uniform doubles.

    `Generator.choice` and its like are slow for scalars and may change between numpy releases;
    `Generator.random` on PCG64 is fast and fixed.
    """

    def __init__(self, sequence: np.random.SeedSequence) -> None:
        self._generator = np.random.Generator(np.random.PCG64(sequence))
        self._values: list[float] = []

    def random(self) -> float:
        """A uniform number in [0, 1)."""
        if not self._values:
            self._values = self._generator.random(_BLOCK).tolist()
        return self._values.pop()

    def uniform(self, low: float, high: float) -> float:
        """A uniform number in [low, high)."""
        return low + (high - low) * self.random()

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random() < probability

    def integer(self, low: int, high: int) -> int:
        """A uniform whole number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[int(self.random() * len(options))]

    def sign(self) -> int:
        """-1 or 1."""
        return 1 if self.random() < 0.5 else -1


TEXTURE_SIZE = 256
_REEL = 1 << 20


@functools.cache
def _normal_table() -> NDArray[np.float32]:
    """4096 equally likely values of the unit normal distribution, rounded to 1/1024."""
    unit = NormalDist()
    values = [round(unit.inv_cdf((index + 0.5) / 4096) * 1024) / 1024 for index in range(4096)]
    return np.asarray(values, dtype=np.float32)


@functools.cache
def _normal_reel() -> NDArray[np.float32]:
    """A long run of unit normal numbers; noise is cut from it, which is far cheaper than drawing it."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(9173)))
    return _draw_normal(generator, _REEL)


def _draw_normal(generator: np.random.Generator, count: int) -> NDArray[np.float32]:
    return np.take(_normal_table(), generator.integers(0, 4096, size=count, dtype=np.uint16))


def normal(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Unit normal noise, float32 of `shape`; each row is cut from a common reel where `generator` says."""
    length = math.prod(shape[1:])
    noise = np.empty((shape[0], length), dtype=np.float32)
    reel = _normal_reel()
    if length > _REEL // 4:
        noise[:] = _draw_normal(generator, noise.size).reshape(noise.shape)
        return noise.reshape(shape)
    starts = generator.integers(0, _REEL - length, size=shape[0])
    for row, start in zip(noise, starts.tolist(), strict=True):
        row[:] = reel[start : start + length]
    return noise.reshape(shape)


def _spread(field: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """Smooth a field that tiles, with steps of growing length."""
    for step in range(times):
        for axis in (0, 1):
            shift = 1 << step
            field = (np.roll(field, shift, axis) + 2 * field + np.roll(field, -shift, axis)) / np.float32(4)
    return field


@functools.cache
def texture(roughness: int) -> NDArray[np.float32]:
    """A tile of noise, float32 (256, 256), mean 0, deviation near 1: 0 fine grain, 1 foliage, 2 clouds."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([7321, roughness])))
    weights = ((1.0, 0.6, 0.3, 0.2), (0.4, 0.7, 1.0, 0.8, 0.5), (0.02, 0.06, 0.2, 0.5, 1.0, 1.0))[roughness]
    total = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), dtype=np.float32)
    for octave, weight in enumerate(weights):
        layer = _spread(_draw_normal(generator, total.size).reshape(total.shape), octave)
        total += np.float32(weight) * layer / _deviation(layer)
    return (total - _mean(total)) / _deviation(total)


def _mean(field: NDArray[np.float32]) -> np.float32:
    """Mean, through integers: the order of float sums depends on the processor."""
    return np.float32(int(np.rint(field * 4096).astype(np.int64).sum()) / 4096 / field.size)


def _deviation(field: NDArray[np.float32]) -> np.float32:
    """Standard deviation rounded to 1/1024, through integers."""
    centered = np.rint((field - _mean(field)) * 4096).astype(np.int64)
    variance = int((centered * centered).sum()) / 4096**2 / field.size
    return np.float32(max(round(variance**0.5 * 1024), 1) / 1024)


def sample_texture(roughness: int, u: NDArray[np.float32], v: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nearest texels at (u, v), in texels, tiling."""
    columns = np.floor(u).astype(np.int32) & (TEXTURE_SIZE - 1)
    rows = np.floor(v).astype(np.int32) & (TEXTURE_SIZE - 1)
    rows <<= 8
    rows |= columns
    return np.take(texture(roughness).ravel(), rows)
