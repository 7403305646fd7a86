"""Memory that this process may still use, on a device or in main memory, and the most that it has used."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def total_memory() -> int | None:
    """Return the bytes of main memory; None where the system does not report them."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def status_bytes(path: str, name: str) -> int | None:
    """Return an entry of a Linux status file, such as `VmHWM:` of /proc/self/status, in bytes."""
    try:
        return int(Path(path).read_text(encoding="utf-8").split(name)[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def free_memory(device: torch.device) -> int | None:
    """Return the bytes available on a device; None where the system does not report them."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    available = status_bytes("/proc/meminfo", "MemAvailable:")
    return total_memory() if available is None else available


def usable_memory(device: torch.device) -> int | None:
    """Return the bytes that this process may still take: free ones, within the limits of the process.

    In main memory the limits are those of its control groups (containers, SLURM) and of `ulimit -v`. None
    where the system reports nothing.
    """
    free = free_memory(device)
    if device.type == "cuda":
        return free
    found = [value for value in (free, group_memory(), _address_space()) if value is not None]
    return min(found, default=None)


def group_memory(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes left in the tightest control group of this process; None: there is no limit.

    Pages of files that the kernel can drop at once count as free.
    """
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            base, limit, usage, cached = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit = root / "memory", "memory.limit_in_bytes"
            usage, cached = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        folder = base / path.lstrip("/")
        # A container sees its own group at the root, whatever path the host gave it.
        for place in (folder, *folder.parents):
            if place.is_relative_to(base):
                left += _left_in(place, limit, usage, cached)
    return min(left, default=None)


def _left_in(folder: Path, limit: str, usage: str, cached: str) -> list[int]:
    try:
        most, used = ((folder / name).read_text(encoding="utf-8").strip() for name in (limit, usage))
        if most == "max" or int(most) >= 1 << 60:  # version 1 writes a huge number for none
            return []
        droppable = 0
        with contextlib.suppress(OSError, ValueError):
            entries = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
            droppable = next((int(value) for name, value in entries if name == cached), 0)
        return [max(0, int(most) - int(used) + droppable)]
    except (OSError, ValueError):
        return []


def _address_space() -> int | None:
    """Return the bytes left below the limit of the address space (`ulimit -v`); None: there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = status_bytes("/proc/self/status", "VmSize:")
    return None if limit == resource.RLIM_INFINITY or used is None else max(0, limit - used)


class Peak:
    """The most bytes that this process has held while `measured` ran."""

    def __init__(self) -> None:
        self.bytes = 0


_INTERVAL = 0.002  # seconds between two looks at the resident memory


@contextlib.contextmanager
def measured(device: torch.device) -> Iterator[Peak]:
    """Measure the most memory that the block holds: reserved on a GPU, else resident (Linux; 0 elsewhere).

    The kernel's peak of the resident memory is exact, but covers the whole life of the process, so it is
    reset first (which changes later readings of VmHWM). Where that is not allowed, the memory is sampled.
    """
    peak = Peak()
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        try:
            yield peak
        finally:
            peak.bytes = int(torch.cuda.max_memory_reserved(device))
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        with _sampled(peak):
            yield peak
        return
    try:
        yield peak
    finally:
        peak.bytes = status_bytes("/proc/self/status", "VmHWM:") or 0


@contextlib.contextmanager
def _sampled(peak: Peak) -> Iterator[None]:
    """Look at the resident memory again and again; a short peak may be missed."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_INTERVAL):
            peak.bytes = max(peak.bytes, resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        peak.bytes = max(peak.bytes, resident())


def resident() -> int:
    """Return the bytes that this process holds in main memory; 0 where the system does not report them."""
    return status_bytes("/proc/self/status", "VmRSS:") or 0
