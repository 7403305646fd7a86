"""Times of contestants that take turns, the matrix-multiply rate beside them, peak memory, the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from efnet import __version__
from efnet.core.cpu_tuning import cpu_facts, process_settings
from efnet.core.errors import InputError
from efnet.core.memory import status_bytes
from efnet.reporting.tables import Quantiles

Work = Callable[[], object]
"""One run of a contestant."""

Step = Callable[[], None]
"""Called after every step of a measurement."""

GEMM_SIZES = {"cpu": 2048, "cuda": 8192}
"""Side of the square matrices whose product gives the rate."""


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Work, device: torch.device) -> float:
    """Return the wall-clock time of one run."""
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
    step: Step = lambda: None,
) -> dict[str, Quantiles]:
    """Time contestants in turn, so that other load on the machine affects all alike; return seconds by name.

    `runs` rounds count, after `warmup` rounds that do not.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(-warmup, runs):
        for name, work in contestants.items():
            taken = seconds_of(work, device)
            if turn >= 0:
                times[name].append(taken)
            step()
    return {name: Quantiles.of(taken) for name, taken in times.items()}


def gemm_contestants(device: torch.device, precision: str) -> tuple[dict[str, Work], dict[str, float]]:
    """Return large square products to run beside the contestants, and operations (two a MAC) by type."""
    side = GEMM_SIZES[device.type]
    types = {"float32": torch.float32} | ({"bfloat16": torch.bfloat16} if precision == "bf16" else {})
    return (
        {f"gemm {name}": _product(side, device, dtype) for name, dtype in types.items()},
        dict.fromkeys(types, 2.0 * side**3),
    )


def _product(side: int, device: torch.device, dtype: torch.dtype) -> Work:
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty(side, side, device=device, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def gemm_rates(times: Mapping[str, Quantiles], operations: Mapping[str, float]) -> dict[str, float]:
    """Return operations per second by type."""
    return {name: count / times[f"gemm {name}"].median for name, count in operations.items()}


COPY_BYTES = 2**27
"""Size of the array whose copy gives the bandwidth of memory: larger than the caches of a processor."""


def copy_contestant(device: torch.device) -> dict[str, Work]:
    """Return a copy from one large array to another, to run beside the contestants."""
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return {"copy": lambda: target.copy_(source)}


def copy_rate(times: Mapping[str, Quantiles]) -> float:
    """Return the bandwidth in bytes per second, read and written ones added up."""
    return 2 * COPY_BYTES / times["copy"].median


def cpu_name() -> str:
    """Return the processor's name, as far as the system knows it."""
    return cpu_facts().get("model name") or platform.processor() or platform.machine() or "unknown"


def usable_cores() -> int:
    """Return the number of logical processors that this process may use; taskset, for one, limits it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_bf16() -> bool | None:
    """Whether the processor multiplies bfloat16; else bf16 is slower than float32. None: not known."""
    facts = cpu_facts()
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16")) if facts else None


def resident_peak() -> int | None:
    """Return the most bytes that this process has had resident; None outside Linux.

    Not `ru_maxrss`: that begins with the peak of the process which started this one.
    """
    return status_bytes("/proc/self/status", "VmHWM:")


def peak_so_far(device: torch.device) -> int | None:
    """Return this process's peak in bytes on a device; None: not measured here."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else resident_peak()


def describe(device: torch.device) -> dict[str, Any]:
    """Return what the figures of a report depend on: processor, device, threads, allocator, versions."""
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
        values |= {
            "gpu": properties.name,
            "gpu_memory": properties.total_memory,
            "cuda": torch.version.cuda,
        }
    return values


def summary(machine: dict[str, Any]) -> str:
    """Return a description by `describe` as one line."""
    process = machine["process"]
    gpu = f"{machine['gpu']} (CUDA {machine['cuda']}), " if "gpu" in machine else ""
    return (
        f"{gpu}{machine['cpu']}, {machine['capability']}, {machine['cores']} cores, {machine['threads']} "
        f"threads; torch {machine['torch']}; allocator: {process['allocator']} ({process['reason']}); "
        f"GOMP_SPINCOUNT={process['spin_count']}"
    )


def run_python(arguments: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a module of this very package in a process of its own, which reads `text` from stdin."""
    package = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )


def peak_of(task: dict[str, Any]) -> dict[str, int] | None:
    """Measure peak memory in a worker process of its own: earlier work raises the peak of a process.

    Returns:
        `peak`: the most bytes that the process had resident (CPU), or that PyTorch had allocated (CUDA);
        `added`: bytes on top of those before the first run. None where memory cannot be measured.

    Raises:
        InputError: the process failed or was killed, most likely for lack of memory.
    """
    ran = run_python(
        ["efnet.studies.benchmark.worker"], json.dumps({**task, "threads": torch.get_num_threads()})
    )
    if ran.returncode < 0 or ran.returncode == 137:
        raise InputError("a process that measured memory was ended, probably for lack of memory")
    if ran.returncode != 0:
        lines = ran.stderr.strip().splitlines() or ["no message"]
        raise InputError(f"a process that measured memory failed ({lines[-1]})")
    peak: dict[str, int] | None = json.loads(ran.stdout.strip().splitlines()[-1])
    return peak
