"""Whether contestants see the same classes in the user's pairs as their network in PyTorch and float32.

Accuracy of the models that are measured, from the reports of other commands.

`--mode forward` and `--mode train`: networks against each other, with their limits and their parts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from efnet.core.errors import InputError
from efnet.export.agreement import shares
from efnet.inference.runtime import is_exported
from efnet.models.base import SegmentationModel
from efnet.models.complexity import count
from efnet.models.registry import ARCHITECTURES
from efnet.studies.benchmark.measure import (
    Progress,
    Spread,
    Work,
    describe,
    gemm_contestants,
    gemm_rates,
    interleave,
    peak_of,
)
from efnet.studies.benchmark.parts import breakdown
from efnet.studies.benchmark.subject import Network, Subject, make_work, named_shortage, open_model


def reference_of(subject: Subject) -> Subject | None:
    """The contestant that others of its model are compared with; None: an exported file alone has none."""
    if is_exported(subject.model):
        return None
    return replace(subject, precision="32", variant="plain", dense=False, file=None)


def missing_references(subjects: Sequence[Subject]) -> list[Subject]:
    """References that are no contestants themselves."""
    wanted = dict.fromkeys(map(reference_of, subjects))
    return [one for one in wanted if one is not None and one not in subjects]


def classes_seen(subject: Subject, work: Work, progress: Progress) -> Tensor:
    """The class of every pixel of the subject's pairs, (N, H, W) uint8, by a work that has not run yet."""
    found = []
    for _ in range(subject.passes):
        logits = work()
        assert isinstance(logits, Tensor)
        found.append(logits.argmax(1).to("cpu", torch.uint8))
        progress()
    return torch.cat(found)[: len(subject.pairs)]


def agreements(
    subjects: Sequence[Subject], seen: Mapping[Subject, Tensor], progress: Progress
) -> dict[Subject, dict[str, Any]]:
    """What each contestant has in common with its reference.

    Args:
        subjects: the contestants, with pairs.
        seen: what `classes_seen` found of those that work.
        progress: told `subject.passes` times for each of `missing_references`.

    Returns:
        `pairs` (how many), `overall` (share of all pixels with the same class) and `worst` (that of the worst
        pair); both None where a contestant is the reference, or has none.
    """
    known = dict(seen)
    for missing in missing_references(subjects):
        work = make_work(missing, open_model(missing.model))
        known[missing] = classes_seen(missing, work, progress)
    found = {}
    for subject, classes in seen.items():
        reference = reference_of(subject)
        overall, worst = None, None
        if reference is not None and reference != subject:
            overall, worst = shares(list((classes == known[reference]).unbind()))
        found[subject] = {"pairs": len(subject.pairs), "overall": overall, "worst": worst}
    return found


def read_accuracy(path: str) -> dict[str, float]:
    """The mIoU of each model, a fraction.

    Args:
        path: JSON of `efnet experiment` (rows of modality rgbt, mean over seeds), of `efnet evaluate`, or
            plain values such as `{"efnet_light": 0.51}`.

    Raises:
        InputError: it cannot be read, or says nothing of any model.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        found = dict(_found(values))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"--accuracy {path}: cannot be read ({error}); give the JSON report of efnet experiment or efnet "
            'evaluate, or {"model": mIoU}'
        ) from error
    for model, miou in found.items():
        if not 0 <= miou <= 1:
            raise InputError(f"--accuracy {path}: {model} has {miou:g}; give fractions from 0 to 1")
    if not found:
        raise InputError(f"--accuracy {path}: has the mIoU of no model")
    return found


def _found(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    if "rows" in values:
        for row in values["rows"]:
            if row["model"] is not None and row["modality"] == "rgbt" and row["miou"] is not None:
                yield row["model"], float(row["miou"]["mean"])
    elif "protocol" in values:
        yield values["protocol"]["model"], float(values["miou"])
    else:
        for model, miou in values.items():
            yield model, float(miou)


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
        and with pairs `agreement`, see `efnet.studies.benchmark.networks.agreements`.

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
