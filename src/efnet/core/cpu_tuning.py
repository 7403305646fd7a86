"""Settings of this process that make PyTorch on a CPU faster: the memory allocator and waiting threads.

Imports nothing heavy: it must run before PyTorch loads.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

SPIN_VARIABLE = "GOMP_SPINCOUNT"
SPIN_COUNT = "4000"
"""By default waiting threads spin for milliseconds, and starve each other once anything else uses a core,
such as data workers. Threads that sleep at once slow many small operators down, even on idle cores."""

OPT_OUT = "EFNET_ALLOCATOR"  # environment variable: `system` leaves the memory allocator as it is

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's mallopt (malloc.h)."""

_LARGE = 1 << 30


@dataclass(frozen=True)
class ProcessSettings:
    """Settings of this process."""

    allocator: str  # `kept`: glibc keeps freed memory for the next tensor; `system`: the system's default
    reason: str  # of the allocator, in words
    spin_count: str | None  # value of GOMP_SPINCOUNT; None: not set
    in_time: bool  # whether the thread setting was made before PyTorch loaded, which reads it once

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


_state: dict[str, bool] = {"kept": False, "in_time": SPIN_VARIABLE in os.environ}


def tune_process() -> ProcessSettings:
    """Make PyTorch on the CPU faster in this process; the command line does so when it starts.

    glibc returns large blocks to the kernel when a tensor is freed and gets fresh, zeroed pages for the next
    one, which takes up to a third of a forward pass. This keeps the blocks, so the process never shrinks;
    free memory is returned before it forks (data workers). It also sets how long waiting OpenMP threads spin
    (`GOMP_SPINCOUNT`), which works only before PyTorch is loaded:

        import efnet
        efnet.tune_process()
        import torch

    It does not change: systems other than Linux with glibc, an allocator that the user set up
    (`GLIBC_TUNABLES` with `glibc.malloc`, `MALLOC_...`, an allocator in `LD_PRELOAD`), a `GOMP_SPINCOUNT`
    that is set, and the allocator if `EFNET_ALLOCATOR=system`. Calling it twice is harmless.

    """
    if SPIN_VARIABLE not in os.environ:
        os.environ[SPIN_VARIABLE] = SPIN_COUNT
        _state["in_time"] = "torch" not in sys.modules
    if not _state["kept"] and _objection(os.environ) is None:
        _state["kept"] = _keep_freed_memory()
    return process_settings()


def process_settings() -> ProcessSettings:
    """Return the settings of this process; change nothing."""
    objection = _objection(os.environ)
    if _state["kept"]:
        allocator, reason = "kept", "freed memory is kept for the next tensor (glibc mallopt)"
    elif objection is not None:
        allocator, reason = "system", objection
    else:
        allocator, reason = "system", "freed memory goes back to the kernel (efnet.tune_process changes that)"
    spin = os.environ.get(SPIN_VARIABLE)
    return ProcessSettings(allocator, reason, spin, spin is not None and _state["in_time"])


def _objection(environment: Mapping[str, str]) -> str | None:
    """Why the allocator must not be changed; None: it may."""
    if environment.get(OPT_OUT, "").lower() == "system":
        return f"{OPT_OUT}=system"
    if "glibc.malloc." in environment.get("GLIBC_TUNABLES", ""):
        return f"GLIBC_TUNABLES={environment['GLIBC_TUNABLES']}"
    if "malloc" in environment.get("LD_PRELOAD", ""):
        return f"LD_PRELOAD={environment['LD_PRELOAD']}"
    own = sorted(name for name in environment if name.startswith("MALLOC_"))
    if own:
        return f"{own[0]}={environment[own[0]]}"
    try:
        glibc = sys.platform.startswith("linux") and os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):  # another C library
        glibc = None
    return None if glibc else "not glibc on Linux"


def cpu_facts() -> dict[str, str]:
    """Return what Linux reports of the last processor (`vendor_id`, `model name`, ...); empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    entries = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in entries}


def _keep_freed_memory() -> bool:
    """Make glibc keep freed blocks; return whether it accepted."""
    try:
        library = ctypes.CDLL(None)
        mallopt, trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError):
        return False
    # Older versions of glibc refuse thresholds of more than 32 MiB.
    if not (mallopt(_MMAP_THRESHOLD, _LARGE) or mallopt(_MMAP_MAX, 0)):
        return False
    if not mallopt(_TRIM_THRESHOLD, -1):
        return False
    # Pages shared with a child are copied at the next write: kept ones would exist twice.
    os.register_at_fork(before=lambda: trim(0))
    return True
