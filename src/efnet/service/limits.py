"""What one service takes on, and how long anybody waits."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from efnet.core.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Bounds of every request and of all together.

    Memory for uploads is at most `max_bytes * max_concurrent`; the largest decoded images and their
    logits come on top, K times four bytes for each pixel.

    Raises:
        InputError: a value below its least; the message names the option of `efnet serve`.
    """

    max_bytes: int = 32 * 1024 * 1024
    """Of a request's body."""
    max_pixels: int = 8_388_608
    """Of one image, taken from its header before anything is decoded. 3840x2160 is 8 294 400."""
    timeout: float = 30.0
    """Seconds from a request's arrival to its answer."""
    max_concurrent: int = 16
    """Requests under way; one more is told to come back later."""
    batch_size: int = 4
    """Pairs in one pass of the network."""
    batch_wait_ms: float = 5.0
    """How long the first pair of a batch waits for others of its size."""

    def __post_init__(self) -> None:
        least = {"max_bytes": 1024, "max_pixels": 1024, "max_concurrent": 1, "batch_size": 1}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            option = f"--{field.name.replace('_', '-')}"
            if not math.isfinite(value) or value < least.get(field.name, 0):
                raise InputError(
                    f"{option} {value} is below {least.get(field.name, 0)}; give a larger number"
                )
        if self.timeout <= 0:
            raise InputError(f"--timeout {self.timeout} is not above 0; give seconds")
