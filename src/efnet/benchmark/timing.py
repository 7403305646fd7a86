"""Times of contestants that take turns, and the matrix-multiply rate that runs with them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

Work = Callable[[], object]
"""What is timed."""

Progress = Callable[[], None]
"""Told after every step of a measurement."""

GEMM_SIZES = {"cpu": 2048, "cuda": 8192}
"""Side of the square matrices whose product gives the rate."""


@dataclass(frozen=True)
class Spread:
    """Seconds of several runs.

    Attributes:
        median: the figure to quote.
        low: lower quartile.
        high: upper quartile.
        p10: a tenth of the runs took less; p90: nine tenths did.
        runs: how many there were.
    """

    median: float
    low: float
    high: float
    p10: float
    p90: float
    runs: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Of at least one time."""
        if len(seconds) == 1:
            (only,) = seconds
            return cls(only, only, only, only, only, 1)
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
        tenths = statistics.quantiles(seconds, n=10, method="inclusive")
        return cls(median, low, high, tenths[0], tenths[-1], len(seconds))

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Work, device: torch.device) -> float:
    """Wall-clock time of one run."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def interleave(
    contestants: Mapping[str, Work],
    device: torch.device,
    runs: int,
    warmup: int,
    progress: Progress = lambda: None,
) -> dict[str, Spread]:
    """Time contestants in turn: whatever else the machine does meets them alike.

    Args:
        contestants: by name.
        device: where they compute.
        runs: rounds that count, at least 1.
        warmup: rounds before, which do not.
        progress: told after each contestant's run.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(-warmup, runs):
        for name, work in contestants.items():
            taken = seconds_of(work, device)
            if turn >= 0:
                times[name].append(taken)
            progress()
    return {name: Spread.of(taken) for name, taken in times.items()}


def gemm(device: torch.device, dtype: torch.dtype) -> tuple[Work, float]:
    """A large square product, and the operations that it takes (two per multiply-add)."""
    side = GEMM_SIZES[device.type]
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty(side, side, device=device, dtype=dtype)
    return lambda: torch.mm(left, right, out=out), 2.0 * side**3


def gemm_contestants(device: torch.device, precision: str) -> tuple[dict[str, Work], dict[str, float]]:
    """Products to run beside the contestants, and the operations of each by its type."""
    types = {"float32": torch.float32}
    if precision == "bf16":
        types["bfloat16"] = torch.bfloat16
    made = {name: gemm(device, dtype) for name, dtype in types.items()}
    works = {f"gemm {name}": work for name, (work, _) in made.items()}
    return works, {name: operations for name, (_, operations) in made.items()}


def gemm_rates(spreads: Mapping[str, Spread], operations: Mapping[str, float]) -> dict[str, float]:
    """Operations per second by type."""
    return {name: count / spreads[f"gemm {name}"].median for name, count in operations.items()}
