"""What compiled loops and bfloat16 are worth: one network on the same images, passes in turns in one process.

    python benchmarks/in_turns.py [--model efnet_light] [--size 480x640,720x1280] [--runs 12] [--threads 2]
    python benchmarks/in_turns.py --against OTHER [--runs 12] [--threads 2]

Float32 as it is, float32 without compiled loops (`EFNET_NATIVE=0`), bfloat16: medians and ratios, which other
work on the machine and its changing speed hardly touch. Before that, what loops cost a process: its first
clustering where nothing is kept from an earlier one, where it is, and without loops, with what each adds to
the memory it holds.

With `--against`, this source tree beside another one, a folder that holds `src/efnet`: a whole pass of
`efnet_light` at 480x640 and its three clusterings, with and without compiled loops. Each tree runs in
processes of its own, which take turns; the figure is the median of the ratios of neighbouring turns. `--clock
cpu` counts processor time instead of seconds, for a machine that other work shares. Both trees keep freed
memory, as `efnet` makes every process of the command line do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from efnet.cli.options import parse_size
from efnet.core.cpu_tuning import tune_process
from efnet.ops.clustering.compiled import available
from efnet.reporting.tables import markdown_table
from efnet.studies.benchmark.measure import describe, interleave, summary
from efnet.studies.benchmark.subject import Subject, make_work, open_model

_SWITCH = "EFNET_NATIVE"
_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "-1",
}  # as `tune_process` sets it

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


_TREE = """
import sys, time
import torch
from efnet import create_model
from efnet.ops import dpc_knn
clock = time.process_time if sys.argv[2] == "cpu" else time.perf_counter
torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
def tokens(height, width, channels):
    coarse = torch.randn(1, channels, height // 6, width // 6)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    fine = fine + 0.2 * torch.randn(fine.shape)
    return torch.nn.functional.layer_norm(fine.flatten(2).transpose(1, 2), (channels,))
def places(height, width):
    return torch.cartesian_prod(torch.arange(float(height)), torch.arange(float(width)))[None] / 2
model = create_model("efnet_light", num_classes=9).eval()
image, heat = torch.rand(1, 3, 480, 640), torch.rand(1, 1, 480, 640)
first, second, third = tokens(120, 160, 128), tokens(60, 80, 320), tokens(30, 40, 512)
near, nearer = places(120, 160), places(60, 80) + 0.3 * torch.rand(1, 4800, 2)
works = {
    "whole pass": lambda: model(image, heat),
    "clustering 1": lambda: dpc_knn(first, 4800, 5, near, 0.7, (120, 160)),
    "clustering 2": lambda: dpc_knn(second, 1200, 5, nearer, 0.3),
    "clustering 3": lambda: dpc_knn(third, 300, 5),
}
with torch.inference_mode():
    for line in sys.stdin:
        work = works[line.strip()]
        work()  # the caches are those of the other tree
        started = clock()
        work()
        print(clock() - started, flush=True)
"""


def against(other: Path, runs: int, threads: int, clock: str) -> str:
    """Table of this tree's times over those of another one."""
    trees = (other, Path(__file__).parents[1])
    rows = []
    for native in ("1", "0"):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _TREE, str(threads), clock],
                env={**os.environ, **_ALLOCATOR, "PYTHONPATH": str(tree / "src"), _SWITCH: native},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for tree in trees
        ]

        def timed(process: subprocess.Popen[str], work: str) -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            print(work, file=process.stdin, flush=True)
            return float(process.stdout.readline())

        for work in ("whole pass", "clustering 1", "clustering 2", "clustering 3"):
            turns = [[timed(process, work) for process in processes] for _ in range(runs + 2)][2:]
            before, after = (1e3 * statistics.median(column) for column in zip(*turns, strict=True))
            ratio = statistics.median(new / old for old, new in turns)
            loops = "compiled" if native == "1" else "none"
            rows.append([work, loops, f"{before:.1f}", f"{after:.1f}", f"{ratio:.2f}"])
        for process in processes:
            process.communicate()
    return "\n".join(markdown_table(["efnet_light, 480x640", "loops", "other ms", "this ms", "ratio"], rows))


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
    return "\n".join(markdown_table(["first clustering of a process", "s", "MB"], rows, aligned=True))


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
    return "\n".join(markdown_table(["size", "", "ms", "to float32"], rows, aligned=True))


def main() -> int:
    """Read the options, measure, print."""
    tune_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="efnet_light")
    parser.add_argument("--size", default="480x640")
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--against", type=Path, help="another source tree")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    arguments = parser.parse_args()
    if arguments.against is not None:
        print(against(arguments.against, arguments.runs, arguments.threads, arguments.clock))
        return 0
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
