"""What compiled loops and bfloat16 are worth: one network on the same images, passes in turns in one process.

    python benchmarks/in_turns.py [--model efnet_light] [--size 480x640,720x1280] [--runs 12] [--threads 2]

Float32 as it is, float32 without compiled loops (`EFNET_NATIVE=0`), bfloat16: medians and ratios, which other
work on the machine and its changing speed hardly touch. Before that, what loops cost a process: its first
clustering where nothing is kept from an earlier one, where it is, and without loops, with what each adds to
the memory it holds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace

import torch

from efnet.cli.options import parse_size
from efnet.core.cpu_tuning import tune_process
from efnet.ops.dpc_native import available
from efnet.studies.benchmark.markdown import table
from efnet.studies.benchmark.measure import describe, interleave, summary
from efnet.studies.benchmark.subject import Subject, make_work, open_model

_SWITCH = "EFNET_NATIVE"

_FIRST = """
import time, torch
from efnet.studies.benchmark.measure import resident_peak
from efnet.ops import dpc_knn
features = torch.randn(1, 2000, 32, generator=torch.Generator().manual_seed(0))
positions = torch.cartesian_prod(torch.arange(40.0), torch.arange(50.0))[None] / 2
before, start = resident_peak(), time.perf_counter()
dpc_knn(features, 500, 5, positions, 0.7, (40, 50))
seconds, after = time.perf_counter() - start, resident_peak()
print(seconds, None if before is None else after - before)
"""


def first_clustering(**environment: str) -> list[str]:
    """Seconds of the first clustering of a process, and megabytes that it adds."""
    ran = subprocess.run(
        [sys.executable, "-c", _FIRST],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, size = ran.stdout.split()
    return [f"{float(seconds):.2f}", "not measured" if size == "None" else f"{int(size) / 1e6:.0f}"]


def starting() -> str:
    """Table of first clusterings."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            ["nothing kept", *first_clustering(NUMBA_CACHE_DIR=folder, EFNET_NATIVE="1")],
            ["kept by an earlier process", *first_clustering(NUMBA_CACHE_DIR=folder, EFNET_NATIVE="1")],
            ["without loops", *first_clustering(EFNET_NATIVE="0")],
        ]
    return "\n".join(table(["first clustering of a process", "s", "MB"], rows))


def switched(work: Callable[[], object], native: str) -> Callable[[], object]:
    """The same with compiled loops allowed or forbidden."""

    def switch() -> object:
        os.environ[_SWITCH] = native
        return work()

    return switch


def in_turns(model: str, sizes: list[tuple[int, int]], runs: int) -> str:
    """Table of passes."""
    rows = []
    for size in sizes:
        subject = Subject(model, size)
        network = open_model(model)
        plain, half = make_work(subject, network), make_work(replace(subject, precision="bf16"), network)
        works = {
            "float32": switched(plain, "1"),
            "float32 without loops": switched(plain, "0"),
            "bfloat16": switched(half, "1"),
        }
        times = interleave(works, torch.device("cpu"), runs, 2, lambda: None)
        for name, spread in times.items():
            ratio = spread.median / times["float32"].median
            rows.append([f"{size[0]}x{size[1]}", name, f"{1e3 * spread.median:.0f}", f"{ratio:.2f}"])
    return "\n".join(table(["size", "", "ms", "to float32"], rows))


def main() -> int:
    """Read the options, measure, print."""
    tune_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="efnet_light")
    parser.add_argument("--size", default="480x640")
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not available():
        print(f"no compiled loops here: pip install numba, and leave {_SWITCH} alone", file=sys.stderr)
        return 2
    torch.set_num_threads(arguments.threads)
    sizes = [parse_size(word, 32) for word in arguments.size.split(",")]
    print(summary(describe(torch.device("cpu"))))
    print(f"\n{starting()}\n\n{in_turns(arguments.model, sizes, arguments.runs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
