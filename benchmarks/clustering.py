"""Clustering against the dense formulation: interleaved runs, medians, memory in processes of their own.

    python benchmarks/clustering.py [--runs 5] [--cases 0 2] [--threads 2]

The dense formulation is what the public token-clustering code does: distance matrix, top-k, masked minimum,
arg-minimum. It is float32 throughout and, unlike ours, not exact.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.ops.dpc_knn import dpc_knn

CASES = [
    # name, batch, grid, channels, tau
    ("stage 2, 480x640", 1, (120, 160), 128, 0.3),
    ("stage 2, 480x640", 1, (120, 160), 128, 1.0),
    ("stage 3, 480x640", 1, (60, 80), 320, 0.7),
    ("stage 4, 480x640", 1, (30, 40), 512, 1.0),
    ("stage 2, 192x256", 4, (48, 64), 128, 0.3),
]


def dense(features: Tensor, num_clusters: int, k: int, positions: Tensor, weight: float) -> Tensor:
    """Equations 1-3 with N x N matrices; the assignment (B, N)."""
    distance = torch.cdist(features, features) / math.sqrt(features.shape[-1])
    if weight:
        distance = distance + weight * torch.cdist(positions, positions)
    density = distance.topk(k, dim=-1, largest=False).values.square().mean(-1).neg().exp()
    denser = density[:, None, :] > density[:, :, None]
    farthest = distance.flatten(1).amax(-1)[:, None, None]
    separation = torch.where(denser, distance, farthest).amin(-1)
    centers = (separation * density).topk(num_clusters, dim=-1).indices
    rows = distance.gather(1, centers[..., None].expand(-1, -1, distance.shape[-1]))
    assignment = rows.argmin(1)
    numbers = torch.arange(num_clusters).expand(len(features), -1)
    return assignment.scatter(1, centers, numbers)


def inputs(batch: int, grid: tuple[int, int], channels: int) -> tuple[Tensor, Tensor, int]:
    """Smooth layer-normalised features with noise, positions in units of the cluster pitch, M."""
    torch.manual_seed(0)
    coarse = torch.randn(batch, channels, grid[0] // 6, grid[1] // 6)
    fine = F.interpolate(coarse, grid, mode="bilinear", align_corners=True)
    fine = fine + 0.2 * torch.randn_like(fine)
    features = F.layer_norm(fine.flatten(2).transpose(1, 2), (channels,))
    positions = torch.cartesian_prod(torch.arange(float(grid[0])), torch.arange(float(grid[1]))) / 2
    return features, positions.expand(batch, -1, -1), math.ceil(grid[0] * grid[1] / 4)


def run(contestant: str, case: int) -> float:
    """Seconds of one clustering."""
    _, batch, grid, channels, tau = CASES[case]
    features, positions, num_clusters = inputs(batch, grid, channels)
    function = dense if contestant == "dense" else dpc_knn
    started = time.perf_counter()
    function(features, num_clusters, 5, positions, 1 - tau)
    return time.perf_counter() - started


def peak(contestant: str, case: int) -> float:
    """Megabytes that one clustering adds to its process."""
    command = [sys.executable, __file__, "--peak", contestant, str(case)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(contestant: str, case: int) -> None:
    """What `peak` reads."""
    _, batch, grid, channels, _ = CASES[case]
    inputs(batch, grid, channels)
    before = _peak()
    run(contestant, case)
    print(_peak() - before)


def _peak() -> float:
    """Megabytes. Not ru_maxrss: that begins with the peak of the process which started this one."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)))
    parser.add_argument("--peak", nargs=2, metavar=("CONTESTANT", "CASE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    if arguments.peak:
        print_peak(arguments.peak[0], int(arguments.peak[1]))
        return
    print("| case | batch | N | C | tau | dense ms | ours ms | faster | dense MB | ours MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for case in arguments.cases:
        name, batch, grid, channels, tau = CASES[case]
        run("ours", case)
        times = [(run("dense", case), run("ours", case)) for _ in range(arguments.runs)]
        slow, fast = (1e3 * median(column) for column in zip(*times, strict=True))
        memory = peak("dense", case), peak("ours", case)
        print(
            f"| {name} | {batch} | {math.prod(grid)} | {channels} | {tau} | {slow:.0f} | {fast:.1f} "
            f"| {slow / fast:.1f} | {memory[0]:.0f} | {memory[1]:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
