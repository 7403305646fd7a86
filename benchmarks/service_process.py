"""`efnet serve` in a process of its own, and what that process holds. Used by `service_load.py`."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

MAX_BYTES, TIMEOUT, PLACES = 1_000_000, 10.0, 8
"""Limits of the service: tight, so that they are met."""


@dataclass
class Service:
    """`efnet serve` in a process of its own, with one thread."""

    folder: Path
    batch_size: int
    process: subprocess.Popen[str] = field(init=False)
    place: tuple[str, int] = field(init=False)

    def __post_init__(self) -> None:
        limits = {"max-bytes": MAX_BYTES, "max-pixels": 300_000, "timeout": TIMEOUT, "max-concurrent": PLACES}
        limits |= {"batch-size": self.batch_size, "threads": 1, "port": 0}
        options = [word for name, value in limits.items() for word in (f"--{name}", str(value))]
        # Not a pipe: nobody reads it meanwhile, and a full one would stop the service.
        self.log = (self.folder / "log.txt").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "efnet",
                "serve",
                "--checkpoint",
                str(self.folder),
                "--device",
                "cpu",
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.process.stdout is not None
        found = re.search(r"http://([\d.]+):(\d+)/", self.process.stdout.readline())
        if not found:
            raise SystemExit("the service did not start: " + (self.folder / "log.txt").read_text("utf-8"))
        self.place = (found[1], int(found[2]))

    def memory(self) -> float:
        """Resident memory, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024

    def files(self) -> int:
        """Open files and connections."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))
