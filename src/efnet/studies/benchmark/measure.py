"""Times of contestants that take turns, and the matrix-multiply rate that runs with them.

What figures depend on: processor, device, threads, allocator, versions.

Peak memory, each in a process of its own: what ran before leaves its mark on a process.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from efnet import __version__
from efnet.core.cpu_tuning import process_settings
from efnet.core.errors import InputError

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


def cpu_name() -> str:
    """The processor's name, as far as the system tells."""
    for line in _cpuinfo().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def usable_cores() -> int:
    """Logical processors that this process may run on: fewer than there are under taskset, for one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_bf16() -> bool | None:
    """Whether the processor has instructions for products in bfloat16; None: not known.

    Without them bf16 goes by way of float32 and is slower than it.
    """
    words = _cpuinfo().split()
    return any(flag in words for flag in ("avx512_bf16", "amx_bf16", "bf16")) if words else None


def _cpuinfo() -> str:
    """Linux's description of the processor; empty elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def total_memory() -> int | None:
    """Bytes of main memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be used on a device; None where nothing says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        return int(text.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return total_memory()


def describe(device: torch.device) -> dict[str, Any]:
    """What a report states beside its figures, as plain values."""
    values: dict[str, Any] = {
        "efnet": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16_instructions": cpu_bf16(),
        "device": str(device),
        "process": process_settings().to_dict(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        values["gpu"] = properties.name
        values["gpu_memory"] = properties.total_memory
        values["cuda"] = torch.version.cuda
    return values


def summary(machine: dict[str, Any]) -> str:
    """One line for the head of a table."""
    process = machine["process"]
    gpu = f"{machine['gpu']} (CUDA {machine['cuda']}), " if "gpu" in machine else ""
    return (
        f"{gpu}{machine['cpu']}, {machine['capability']}, {machine['cores']} cores, {machine['threads']} "
        f"threads; torch {machine['torch']}; allocator: {process['allocator']} ({process['reason']}); "
        f"GOMP_SPINCOUNT={process['spin_count']}"
    )


@dataclass(frozen=True)
class Peak:
    """Bytes.

    Attributes:
        peak: the most that the process had resident (CPU), or that PyTorch had allocated (CUDA).
        added: how much of it came on top of what was there before the first run.
    """

    peak: int
    added: int

    def to_dict(self) -> dict[str, int]:
        """Plain values for JSON."""
        return asdict(self)


def resident_peak() -> int | None:
    """Most bytes that this process had resident so far; None where the system does not say (not Linux).

    Not `ru_maxrss`: that begins with the peak of the process which started this one.
    """
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(text.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def peak_so_far(device: torch.device) -> int | None:
    """Of this process on this device; None: not measured here."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resident_peak()


def package_path() -> str:
    """PYTHONPATH of a process that is to find this very package, however it was found here."""
    package = str(Path(__file__).resolve().parents[3])
    return os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])


def peak_of(task: dict[str, Any]) -> Peak | None:
    """Run a task of `efnet.studies.benchmark.worker` in a process of its own.

    Args:
        task: plain values; `kind` says what it is.

    Returns:
        its peak; None where it cannot be measured.

    Raises:
        InputError: the process was ended, most likely for want of memory, or failed.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "efnet.studies.benchmark.worker"],
        input=json.dumps({**task, "threads": torch.get_num_threads()}),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": package_path()},
    )
    if ran.returncode < 0 or ran.returncode == 137:
        raise InputError("a process that measured memory was ended, probably for want of memory")
    if ran.returncode != 0:
        lines = ran.stderr.strip().splitlines() or ["no message"]
        raise InputError(f"a process that measured memory failed ({lines[-1]})")
    values = json.loads(ran.stdout.strip().splitlines()[-1])
    return None if values is None else Peak(values["peak"], values["added"])
