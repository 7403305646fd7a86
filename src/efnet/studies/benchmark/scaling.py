"""`--mode clustering`: `efnet.ops.dpc_knn` against the dense formulation.

`--mode growth`: time and memory of a forward pass against image size, ours and with dense clustering.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.ops.dpc_knn import dpc_knn
from efnet.studies.benchmark.dense import dense_bytes, dense_bytes_of_network, dense_dpc_knn
from efnet.studies.benchmark.measure import (
    Progress,
    Work,
    describe,
    free_memory,
    gemm_contestants,
    gemm_rates,
    interleave,
    peak_of,
)
from efnet.studies.benchmark.subject import Subject, make_work, named_shortage, open_model

NEIGHBORS = 5
CONTESTANTS = {"ours": dpc_knn, "dense": dense_dpc_knn}


@dataclass(frozen=True)
class Case:
    """One clustering.

    Attributes:
        name: of what network stage it is typical.
        batch: B.
        cells: (h, w) of the tokens; N is their product.
        channels: C.
        tau: balance of equation 1.
        regular: whether the tokens are known to be the cells of a regular grid, as in stage 2.
        device: as of `torch.device`.
    """

    name: str
    batch: int
    cells: tuple[int, int]
    channels: int
    tau: float
    regular: bool
    device: str = "cpu"

    @property
    def tokens(self) -> int:
        """N."""
        return math.prod(self.cells)

    @property
    def clusters(self) -> int:
        """M."""
        return math.ceil(self.tokens / 4)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Case:
        """Read what `dataclasses.asdict` made."""
        return replace(cls(**values), cells=(int(values["cells"][0]), int(values["cells"][1])))


def cases_of(size: tuple[int, int], batch: int, device: str) -> list[Case]:
    """The clusterings of a network of TCFormer's widths on images (H, W), and the first with tau = 1."""
    height, width = (math.ceil(side / 4) for side in size)
    at = f"{size[0]}x{size[1]}"
    half, quarter = ((math.ceil(height / n), math.ceil(width / n)) for n in (2, 4))
    return [
        Case(f"stage 2, {at}", batch, (height, width), 128, 0.3, True, device),
        Case(f"stage 2, {at}", batch, (height, width), 128, 1.0, True, device),
        Case(f"stage 3, {at}", batch, half, 320, 0.7, False, device),
        Case(f"stage 4, {at}", batch, quarter, 512, 1.0, False, device),
    ]


def standard_cases(device: str) -> list[Case]:
    """Those of 480x640, and a batch of small images."""
    return [*cases_of((480, 640), 1, device), cases_of((192, 256), 4, device)[0]]


def clustering_inputs(case: Case) -> tuple[Tensor, Tensor]:
    """Smooth layer-normalised features (B, N, C) with noise; positions (B, N, 2) in units of the pitch."""
    generator = torch.Generator().manual_seed(0)
    height, width = case.cells
    shape = (case.batch, case.channels, max(2, height // 6), max(2, width // 6))
    coarse = torch.randn(shape, generator=generator)
    fine = F.interpolate(coarse, case.cells, mode="bilinear", align_corners=True)
    fine = fine + 0.2 * torch.randn(fine.shape, generator=generator)
    features = F.layer_norm(fine.flatten(2).transpose(1, 2), (case.channels,))
    positions = torch.cartesian_prod(torch.arange(float(height)), torch.arange(float(width))) / 2
    return features.to(case.device), positions.expand(case.batch, -1, -1).to(case.device)


def clustering_work(case: Case, contestant: str) -> Work:
    """One clustering by `ours` or `dense`; it returns the clusters."""
    features, positions = clustering_inputs(case)
    function = CONTESTANTS[contestant]
    grid = case.cells if case.regular else None

    def work() -> object:
        with torch.inference_mode():
            return function(features, case.clusters, NEIGHBORS, positions, 1 - case.tau, grid)

    return work


def steps(cases: Sequence[Case], runs: int, warmup: int, memory: bool) -> int:
    """How often `compare_clusterings` tells its progress, if nothing is left out."""
    return len(cases) * ((runs + warmup) * 3 + 1 + 2 * memory)


def compare_clusterings(
    cases: Sequence[Case], runs: int, warmup: int, memory: bool = True, progress: Progress = lambda: None
) -> dict[str, Any]:
    """Time and memory of both, case by case, and how far they agree.

    Returns:
        plain values: `machine`, `gemm` and `rows`. Where the dense formulation does not fit into memory its
        figures are missing and `skipped` says so.
    """
    device = torch.device(cases[0].device)
    gemms, operations = gemm_contestants(device, "32")
    rows, rates = [], {}
    for case in cases:
        estimate, free = dense_bytes(case.batch, case.tokens), free_memory(device)
        fits = free is None or estimate < 0.9 * free
        works = {name: clustering_work(case, name) for name in CONTESTANTS if fits or name == "ours"}
        times = interleave({**works, **gemms}, device, runs, warmup, progress)
        rates = gemm_rates(times, operations)
        row: dict[str, Any] = {
            **asdict(case),
            "tokens": case.tokens,
            "clusters": case.clusters,
            "seconds": {name: times[name].to_dict() for name in works},
            "faster": times["dense"].median / times["ours"].median if fits else None,
            "gemm": rates,
            "skipped": None if fits else _too_large(estimate),
        }
        row["agreement"] = _agreement(works) if fits else None
        progress()
        row["memory"] = {}
        for name in works if memory else ():
            peak = peak_of({"kind": "clustering", "case": asdict(case), "contestant": name})
            row["memory"][name] = None if peak is None else peak.to_dict()
            progress()
        rows.append(row)
    return {"machine": describe(device), "gemm": rates, "rows": rows}


def _too_large(estimate: int) -> str:
    return f"dense left out: it would take about {estimate / 1e9:.0f} GB"


def _agreement(works: dict[str, Work]) -> dict[str, float]:
    """Shares of equal centres, and of tokens that join the same centre."""
    ours: Any = works["ours"]()
    dense: Any = works["dense"]()
    tokens = ours.assignment.shape[1]
    marks = [
        torch.zeros(len(found.centers), tokens, dtype=torch.bool, device=found.centers.device).scatter(
            1, found.centers, True
        )
        for found in (ours, dense)
    ]
    joined = [found.centers.gather(1, found.assignment) for found in (ours, dense)]
    return {
        "centers": float((marks[0] & marks[1]).sum() / ours.centers.numel()),
        "assignments": float((joined[0] == joined[1]).float().mean()),
    }


SIZES = ((240, 320), (480, 640), (720, 1280), (1080, 1920))


def growth_steps(subjects: Sequence[Subject], runs: int, warmup: int, memory: bool) -> int:
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
