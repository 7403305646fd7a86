"""`--mode growth`: time and memory of a forward pass against image size, ours and with dense clustering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from efnet.benchmark.dense import dense_bytes_of_network
from efnet.benchmark.machine import describe, free_memory
from efnet.benchmark.memory import peak_of
from efnet.benchmark.subject import Subject, make_work, named_shortage, open_model
from efnet.benchmark.timing import Progress, gemm_contestants, gemm_rates, interleave

SIZES = ((240, 320), (480, 640), (720, 1280), (1080, 1920))


def steps(subjects: Sequence[Subject], runs: int, warmup: int, memory: bool) -> int:
    """How often `measure_growth` tells its progress, if nothing is left out."""
    return len(subjects) * ((runs + warmup) * 3 + 2 * memory)


def measure_growth(
    subjects: Sequence[Subject],
    runs: int,
    warmup: int,
    memory: bool = True,
    progress: Progress = lambda: None,
) -> dict[str, Any]:
    """Measure one network at several sizes.

    Args:
        subjects: plain contestants that differ in size.
        runs: rounds that count.
        warmup: rounds before.
        memory: whether to measure peak memory.
        progress: told `steps(...)` times at most.

    Returns:
        plain values: `machine`, `rows` (one per size) and `slopes`: exponents of time, and of memory on
        top of what the process takes anyway, against pixels; 1 is linear.

    Raises:
        InputError: a model that is not there, or too little memory for ours.
    """
    device = torch.device(subjects[0].device)
    model = open_model(subjects[0].model)
    gemms, operations = gemm_contestants(device, subjects[0].precision)
    rows: list[dict[str, Any]] = []
    for subject in subjects:
        contestants = {"ours": subject}
        estimate, free = dense_bytes_of_network(subject.batch, subject.size), free_memory(device)
        fits = free is None or estimate < 0.9 * free
        if fits:
            contestants["dense"] = replace(subject, dense=True)
        with named_shortage(subject):
            works = {name: make_work(one, model) for name, one in contestants.items()}
            times = interleave({**works, **gemms}, device, runs, warmup, progress)
        row: dict[str, Any] = {
            "size": list(subject.size),
            "pixels": math.prod(subject.size),
            "seconds": {name: times[name].to_dict() for name in contestants},
            "memory": {},
            "gemm": gemm_rates(times, operations),
            "skipped": None if fits else f"dense left out: it would take about {estimate / 1e9:.0f} GB",
        }
        for name, one in contestants.items() if memory else ():
            peak = peak_of({"kind": "network", "subject": one.to_dict()})
            row["memory"][name] = None if peak is None else peak.to_dict()
            progress()
        rows.append(row)
    return {
        "machine": describe(device),
        "model": subjects[0].model,
        "batch": subjects[0].batch,
        "precision": subjects[0].precision,
        "rows": rows,
        "slopes": _slopes(rows),
    }


def _slopes(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Exponents of time and memory by contestant; None: from fewer than two sizes."""
    found: dict[str, dict[str, float | None]] = {}
    for name in ("ours", "dense"):
        timed = [(row["pixels"], row["seconds"][name]["median"]) for row in rows if name in row["seconds"]]
        held = [(row["pixels"], row["memory"][name]["added"]) for row in rows if row["memory"].get(name)]
        found[name] = {"time": slope(timed), "memory": slope(held)}
    return found


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Exponent of the power law nearest to positive points (x, y), by least squares of logarithms."""
    logs = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len({x for x, _ in logs}) < 2:
        return None
    mean_x, mean_y = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    return float(covariance / sum((x - mean_x) ** 2 for x, _ in logs))
