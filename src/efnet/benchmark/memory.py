"""Peak memory, each in a process of its own: what ran before leaves its mark on a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from efnet.errors import InputError


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
    package = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])


def peak_of(task: dict[str, Any]) -> Peak | None:
    """Run a task of `efnet.benchmark.worker` in a process of its own.

    Args:
        task: plain values; `kind` says what it is.

    Returns:
        its peak; None where it cannot be measured.

    Raises:
        InputError: the process was ended, most likely for want of memory, or failed.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "efnet.benchmark.worker"],
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
