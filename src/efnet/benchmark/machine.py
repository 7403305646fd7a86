"""What figures depend on: processor, device, threads, allocator, versions."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from efnet import __version__
from efnet.process import process_settings


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
