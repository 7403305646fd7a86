"""Ours against the dense formulation: clusterings (mode clustering), a network by size (mode growth)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from efnet.core.memory import free_memory
from efnet.core.progress import Progress, count_steps, no_progress
from efnet.ops.clustering.dpc_knn import dpc_knn
from efnet.studies.benchmark import measure
from efnet.studies.benchmark.dense import dense_bytes, dense_bytes_of_network, dense_dpc_knn
from efnet.studies.benchmark.measure import Step, Work
from efnet.studies.benchmark.subject import Subject, make_work, named_shortage, open_model

NEIGHBORS = 5
CONTESTANTS = {"ours": dpc_knn, "dense": dense_dpc_knn}

SIZES = ((240, 320), (480, 640), (720, 1280), (1080, 1920))
"""Default sizes of mode growth."""


@dataclass(frozen=True)
class Case:
    """One clustering."""

    name: str  # stage that it is typical of
    batch: int  # B
    cells: tuple[int, int]  # (h, w) of the tokens; N is their product
    channels: int  # C
    tau: float  # balance of equation 1
    regular: bool  # tokens are known to be the cells of a regular grid, as in stage 2
    device: str = "cpu"  # as of `torch.device`

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
        """Read the result of `dataclasses.asdict`."""
        return replace(cls(**values), cells=(int(values["cells"][0]), int(values["cells"][1])))


def cases_of(size: tuple[int, int], batch: int, device: str) -> list[Case]:
    """Return the clusterings of a network of TCFormer's widths on images (H, W), the first one twice."""
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
    """Return the clusterings of 480x640, and one of a batch of small images."""
    return [*cases_of((480, 640), 1, device), cases_of((192, 256), 4, device)[0]]


def clustering_inputs(case: Case) -> tuple[Tensor, Tensor]:
    """Make smooth layer-normalised features (B, N, C) with noise, and positions (B, N, 2) in pitches."""
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
    """Return one clustering by `ours` or `dense`, which returns the clusters."""
    features, positions = clustering_inputs(case)
    function = CONTESTANTS[contestant]
    grid = case.cells if case.regular else None

    def work() -> object:
        with torch.inference_mode():
            return function(features, case.clusters, NEIGHBORS, positions, 1 - case.tau, grid)

    return work


@dataclass(frozen=True)
class _Race:
    """Measures `ours` and, where it fits into memory, `dense`, case by case under the same settings."""

    device: torch.device
    gemms: tuple[dict[str, Work], dict[str, float]]
    runs: int
    warmup: int
    memory: bool
    step: Step

    def run(
        self, contestants: Mapping[str, tuple[Callable[[], Work], dict[str, Any]]], estimate: int
    ) -> tuple[dict[str, Any], dict[str, Work]]:
        """Measure one case; return `seconds`, `gemm`, `memory` and `skipped` of its row, and the works.

        Each contestant has a maker of its work and a task for `peak_of`; dense takes `estimate` bytes.
        """
        free = free_memory(self.device)
        fits = free is None or estimate < 0.9 * free
        works = {name: make() for name, (make, _) in contestants.items() if fits or name == "ours"}
        times = measure.interleave({**works, **self.gemms[0]}, self.device, self.runs, self.warmup, self.step)
        memory = {}
        for name in works if self.memory else ():
            memory[name] = measure.peak_of(contestants[name][1])
            self.step()
        return {
            "seconds": {name: asdict(times[name]) for name in works},
            "gemm": measure.gemm_rates(times, self.gemms[1]),
            "memory": memory,
            "skipped": None if fits else f"dense left out: it would take about {estimate / 1e9:.0f} GB",
        }, works


def compare_clusterings(
    cases: Sequence[Case], runs: int, warmup: int, memory: bool = True, progress: Progress = no_progress
) -> dict[str, Any]:
    """Measure time, memory and agreement of both formulations; return `machine`, `gemm` and `rows`.

    Where dense does not fit into memory, a row has no figures of it, and `skipped` names the reason.
    """
    device = torch.device(cases[0].device)
    step = count_steps(progress, len(cases) * ((runs + warmup) * 3 + 2 * memory))
    race = _Race(device, measure.gemm_contestants(device, "32"), runs, warmup, memory, step)
    rows = []
    for case in cases:
        task: dict[str, Any] = {"kind": "clustering", "case": asdict(case)}
        contestants = {
            name: (partial(clustering_work, case, name), task | {"contestant": name}) for name in CONTESTANTS
        }
        row, works = race.run(contestants, dense_bytes(case.batch, case.tokens))
        row |= {"tokens": case.tokens, "clusters": case.clusters, "faster": None, "agreement": None}
        if "dense" in works:
            row["faster"] = row["seconds"]["dense"]["median"] / row["seconds"]["ours"]["median"]
            row["agreement"] = _agreement(works)
        rows.append(asdict(case) | row)
    return {"machine": measure.describe(device), "gemm": rows[-1]["gemm"], "rows": rows}


def _agreement(works: dict[str, Work]) -> dict[str, float]:
    """Return the shares of equal centres, and of tokens that join the same centre."""
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


def measure_growth(
    subjects: Sequence[Subject],
    runs: int,
    warmup: int,
    memory: bool = True,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measure one network at several sizes, by plain contestants that differ in size alone.

    Returns `machine`, `rows` (one per size) and `slopes`: exponents of time, and of memory added to the
    process, against pixels; 1 is linear. Raises InputError for an unknown model, or if ours lacks memory.
    """
    device = torch.device(subjects[0].device)
    model = open_model(subjects[0].model)
    step = count_steps(progress, len(subjects) * ((runs + warmup) * 3 + 2 * memory))
    gemms = measure.gemm_contestants(device, subjects[0].precision)
    race = _Race(device, gemms, runs, warmup, memory, step)
    rows: list[dict[str, Any]] = []
    for subject in subjects:
        contestants: dict[str, tuple[Callable[[], Work], dict[str, Any]]] = {}
        for name, one in (("ours", subject), ("dense", replace(subject, dense=True))):
            task = {"kind": "network", "subject": one.to_dict()}
            contestants[name] = partial(make_work, one, model), task
        with named_shortage(subject):
            row, _ = race.run(contestants, dense_bytes_of_network(subject.batch, subject.size))
        rows.append({"size": list(subject.size), "pixels": math.prod(subject.size)} | row)
    slopes = {}
    for name in CONTESTANTS:
        timed = [(row["pixels"], row["seconds"][name]["median"]) for row in rows if name in row["seconds"]]
        held = [(row["pixels"], row["memory"][name]["added"]) for row in rows if row["memory"].get(name)]
        slopes[name] = {"time": slope(timed), "memory": slope(held)}
    return {
        "machine": measure.describe(device),
        "model": subjects[0].model,
        "batch": subjects[0].batch,
        "precision": subjects[0].precision,
        "rows": rows,
        "slopes": slopes,
    }


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Fit a power law to positive points (x, y) by least squares of logarithms; return its exponent.

    None: fewer than two different x.
    """
    logs = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len({x for x, _ in logs}) < 2:
        return None
    mean_x, mean_y = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    return float(covariance / sum((x - mean_x) ** 2 for x, _ in logs))
