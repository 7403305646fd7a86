"""`--mode forward` and `--mode train`: networks against each other, with their limits and their parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from efnet.benchmark.agreement import agreements, classes_seen, missing_references
from efnet.benchmark.machine import describe
from efnet.benchmark.memory import peak_of
from efnet.benchmark.parts import breakdown
from efnet.benchmark.subject import Network, Subject, make_work, named_shortage, open_model
from efnet.benchmark.timing import Progress, Spread, Work, gemm_contestants, gemm_rates, interleave
from efnet.models.base import SegmentationModel
from efnet.models.complexity import count
from efnet.models.registry import ARCHITECTURES

PASSES = {False: 1, True: 3}
"""Forward passes that a pass, or a step of training, is worth in multiply-adds: the backward pass computes
two products for each of the forward's."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        runs: rounds that count.
        warmup: rounds before.
        parts: whether to break a pass down into parts.
        memory: whether to measure peak memory.
    """

    runs: int = 10
    warmup: int = 2
    parts: bool = True
    memory: bool = True


def steps(subjects: Sequence[Subject], plan: Plan) -> int:
    """How often `compare` tells its progress."""
    gemms = 2 if subjects[0].precision == "bf16" else 1
    plain = sum(_broken_down(subject) for subject in subjects)
    turns = (len(subjects) + gemms) * (plan.runs + plan.warmup)
    given = [subject for subject in subjects if subject.pairs]
    turns += sum(subject.passes for subject in [*given, *missing_references(given)])
    return turns + plan.parts * plain * (plan.runs + 1) + plan.memory * len(subjects)


def compare(
    subjects: Sequence[Subject],
    plan: Plan,
    progress: Progress = lambda: None,
    failed: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Measure contestants of one size, batch, device and precision.

    Args:
        subjects: at least one; all with the same pairs, or none with any.
        plan: how much.
        progress: told `steps(subjects, plan)` times.
        failed: labels of contestants that are known not to work, and why.

    Returns:
        plain values: `machine`, `gemm` (operations per second by type), and `rows`, one per contestant, with
        `error` instead of figures where a variant (compile, cuda-graph, an exported file) does not work here,
        and with pairs `agreement`, see `efnet.benchmark.agreement.agreements`.

    Raises:
        InputError: a model that is not there, or too little memory.
    """
    device = torch.device(subjects[0].device)
    errors = dict(failed or {})
    models = {each.label: open_model(each.source) for each in subjects if each.label not in errors}
    works, seen = _ready(subjects, models, errors, progress)
    agreement = agreements(list(seen), seen, progress)
    gemms, operations = gemm_contestants(device, subjects[0].precision)
    times = interleave({**works, **gemms}, device, plan.runs, plan.warmup, progress)
    rates = gemm_rates(times, operations)
    rows = []
    for subject in subjects:
        if subject.label in errors:
            rows.append({**_head(subject), "error": errors[subject.label]})
            continue
        row = _row(subject, models[subject.label], times[subject.label], rates)
        if subject in agreement:
            row["agreement"] = agreement[subject]
        if plan.memory:
            peak = peak_of({"kind": "network", "subject": subject.to_dict()})
            row["memory"] = None if peak is None else peak.to_dict()
            progress()
        model = models[subject.label]
        if plan.parts and _broken_down(subject) and isinstance(model, SegmentationModel):
            row["breakdown"] = breakdown(subject, model, plan.runs, progress)
        rows.append(row)
    _relate(rows)
    return {"machine": describe(device), "gemm": rates, "rows": rows}


def _broken_down(subject: Subject) -> bool:
    """Whether it shows its parts: compiled and captured networks run none of our code."""
    return subject.variant == "plain" and not subject.dense


def _ready(
    subjects: Sequence[Subject], models: dict[str, Network], errors: dict[str, str], progress: Progress
) -> tuple[dict[str, Work], dict[Subject, Tensor]]:
    """The contestants, each tried once or on every pair, and the classes that they see in pairs.

    Why one does not work goes to `errors`.
    """
    works: dict[str, Work] = {}
    seen: dict[Subject, Tensor] = {}
    for subject in subjects:
        if subject.label in errors:
            continue
        with named_shortage(subject):
            try:
                work = make_work(subject, models[subject.label])
                if subject.pairs:
                    seen[subject] = classes_seen(subject, work, progress)
                else:
                    work()
            # What a compiler or a capture raises is beyond counting, and plain works all the same.
            except Exception as error:
                if subject.variant == "plain":
                    raise
                lines = str(error).strip().splitlines()
                errors[subject.label] = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
                continue
        works[subject.label] = work
    return works, seen


def _head(subject: Subject) -> dict[str, Any]:
    """What a row is about; of a file its name alone, since its folder may be gone, of pairs their number."""
    file = None if subject.file is None else Path(subject.file).name
    return {"label": subject.label, **subject.to_dict(), "file": file, "pairs": len(subject.pairs)}


def _row(subject: Subject, model: Network, spread: Spread, rates: dict[str, float]) -> dict[str, Any]:
    with torch.device("meta"):
        counted = count(ARCHITECTURES[model.architecture](model.config), subject.size)
    one = counted.layers + counted.attention
    rate = rates["bfloat16" if subject.precision == "bf16" else "float32"]
    limit = 2 * one * subject.batch * PASSES[subject.training] / rate
    return {
        **_head(subject),
        "seconds": spread.to_dict(),
        "pairs_per_second": subject.batch / spread.median,
        "parameters": counted.parameters,
        "multiply_adds": one,
        "times_limit": spread.median / limit,
        "share_of_limit": limit / spread.median,
    }


def _relate(rows: Sequence[dict[str, Any]]) -> None:
    """Add `times_plain`: a median over that of the same model as it is; None where that was not measured."""
    done = [row for row in rows if "error" not in row]
    plain = {row["model"]: row for row in done if row["variant"] == "plain" and not row["dense"]}
    for row in done:
        beside = plain.get(row["model"])
        row["times_plain"] = beside and row["seconds"]["median"] / beside["seconds"]["median"]
