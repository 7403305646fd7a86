"""Settings of this process that make PyTorch on a CPU faster: kept memory and patient threads.

Imports nothing heavy: it is to run before PyTorch loads.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

SPIN_VARIABLE = "GOMP_SPINCOUNT"
SPIN_COUNT = "4000"
"""Threads that spin for milliseconds while they wait, as is the default, starve each other once anything
else wants a core (data workers for one). Threads that sleep at once make many small operators slow even
on idle cores."""

OPT_OUT = "EFNET_ALLOCATOR"
"""Environment variable: `system` leaves the memory allocator as it is."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's mallopt (malloc.h)."""

_LARGE = 1 << 30


@dataclass(frozen=True)
class ProcessSettings:
    """What holds for this process.

    Attributes:
        allocator: `kept`: glibc keeps freed memory for the next tensor; `system`: as the system has it.
        reason: why the allocator is so, in words.
        spin_count: value of GOMP_SPINCOUNT; None: not set.
        in_time: whether the thread setting was there before PyTorch loaded, which reads it once.
    """

    allocator: str
    reason: str
    spin_count: str | None
    in_time: bool

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


_state: dict[str, bool] = {"kept": False, "in_time": SPIN_VARIABLE in os.environ}


def tune_process() -> ProcessSettings:
    """Make PyTorch on the CPU faster in this process; the command `efnet` does so when it starts.

    glibc hands large blocks back to the kernel when a tensor is freed and gets fresh, zeroed pages for the
    next one: up to a third of the time of a forward pass. This keeps the blocks, at the price that the
    process stays as large as it once was; what is free goes back before it forks (data workers), so that
    children do not hold on to it. It also sets how long waiting OpenMP threads spin (`GOMP_SPINCOUNT`),
    which takes effect only if PyTorch is not loaded yet:

        import efnet
        efnet.tune_process()
        import torch

    Left alone are: other systems and C libraries than glibc's on Linux, an allocator that the user set up
    (`GLIBC_TUNABLES` with `glibc.malloc`, `MALLOC_...`, an allocator in `LD_PRELOAD`), a `GOMP_SPINCOUNT`
    that is set, and the allocator if `EFNET_ALLOCATOR=system`. Calling it twice is harmless.

    Returns:
        what holds now.
    """
    if SPIN_VARIABLE not in os.environ:
        os.environ[SPIN_VARIABLE] = SPIN_COUNT
        _state["in_time"] = "torch" not in sys.modules
    if not _state["kept"] and _objection(os.environ) is None:
        _state["kept"] = _keep_freed_memory()
    return process_settings()


def process_settings() -> ProcessSettings:
    """What holds for this process; changes nothing."""
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
    """Why the allocator is none of our business; None: it is."""
    if environment.get(OPT_OUT, "").lower() == "system":
        return f"{OPT_OUT}=system"
    if "glibc.malloc." in environment.get("GLIBC_TUNABLES", ""):
        return f"GLIBC_TUNABLES={environment['GLIBC_TUNABLES']}"
    if "malloc" in environment.get("LD_PRELOAD", ""):
        return f"LD_PRELOAD={environment['LD_PRELOAD']}"
    own = sorted(name for name in environment if name.startswith("MALLOC_"))
    if own:
        return f"{own[0]}={environment[own[0]]}"
    if not sys.platform.startswith("linux") or _glibc() is None:
        return "not glibc on Linux"
    return None


def _glibc() -> str | None:
    """Such as `glibc 2.36`; None with another C library."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or None
    except (AttributeError, ValueError, OSError):
        return None


def _keep_freed_memory() -> bool:
    """Whether glibc agreed: no blocks of their own from the kernel, none given back."""
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
    # Pages shared with a child are copied at the next write: kept ones would be there twice.
    os.register_at_fork(before=lambda: trim(0))
    return True
