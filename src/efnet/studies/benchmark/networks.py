"""Networks against each other (modes forward and train): time, limits, parts, agreement, exported files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from efnet.core.errors import InputError, one_of
from efnet.core.progress import Progress, count_steps, no_progress
from efnet.export.export import shares
from efnet.export.formats import PRECISIONS, SUFFIX, Precision
from efnet.inference.runtime import SUFFIXES, Runtime, check_runtime, is_exported
from efnet.models.base import SegmentationModel
from efnet.models.complexity import count
from efnet.models.registry import ARCHITECTURES
from efnet.reporting.tables import Quantiles
from efnet.studies.benchmark import measure
from efnet.studies.benchmark.measure import Step, Work
from efnet.studies.benchmark.parts import breakdown
from efnet.studies.benchmark.subject import Network, Subject, make_work, named_shortage, open_model

Target = tuple[Runtime, Precision]
"""A runtime (torch: the checkpoint itself), and the precision of the weights."""


def parse_target(word: str) -> Target:
    """Read a runtime with a precision, such as `onnx-int8`; raises InputError if there is none such."""
    name, _, bits = word.partition("-")
    runtime = check_runtime(name)
    return runtime, one_of(bits or "32", PRECISIONS[runtime], f"`runtime` {word}: {runtime} comes in")


def variant_for(target: Target) -> str:
    """Return the variant of a `Subject` that is exported for this target."""
    runtime, precision = target
    return runtime if precision == "32" else f"{runtime}-{precision}"


def variant_of(path: str) -> str:
    """Return the variant of a `Subject` that is this exported file."""
    runtime = SUFFIXES[Path(path).suffix.lower()]
    return "program" if runtime == "torch" else runtime


def export_for(
    model: str, target: Target, size: tuple[int, int], folder: Path, checks: Sequence[str] = ()
) -> tuple[Path, str | None]:
    """Export a checkpoint or preset for single pairs of size (H, W), in a new folder below `folder`.

    A process of its own does it: memory that tracing leaves behind would affect measurements of this one.
    `checks` are options of `efnet export` that name pairs to check the file on (empty: generated ones), or to
    calibrate int8 with.
    Returns the file, and the reason if it could not be written. Raises InputError if there is no such model.
    """
    runtime, precision = target
    # Checkpoints of two runs may have one name.
    folder = Path(tempfile.mkdtemp(dir=folder))
    name = f"{Path(model).name}_{size[0]}x{size[1]}"
    path = folder / f"{name}{SUFFIX[runtime]}"
    network = open_model(model)
    assert isinstance(network, SegmentationModel)
    network.write(folder / name)
    options = {"checkpoint": folder / name, "format": runtime, "precision": precision, "out": path}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    ran = measure.run_python(["efnet", "export", *words, "--size", f"{size[0]}x{size[1]}", *checks])
    if ran.returncode == 0:
        return path, None
    lines = ran.stderr.strip().splitlines() or [f"it ended with status {ran.returncode}"]
    return path, lines[-1].removeprefix("efnet: error: ")


def reference_of(subject: Subject) -> Subject | None:
    """Return the contestant that others of its model are compared with: PyTorch in float32."""
    if is_exported(subject.model):
        return None  # its network is not known
    return replace(subject, precision="32", variant="plain", dense=False, file=None)


def missing_references(subjects: Sequence[Subject]) -> list[Subject]:
    """Return the references that are not contestants themselves."""
    wanted = dict.fromkeys(map(reference_of, subjects))
    return [one for one in wanted if one is not None and one not in subjects]


def classes_seen(subject: Subject, work: Work, step: Step) -> Tensor:
    """Return the class of every pixel of the subject's pairs, (N, H, W) uint8, by a work that is new."""
    found = []
    for _ in range(subject.passes):
        logits = work()
        assert isinstance(logits, Tensor)
        found.append(logits.argmax(1).to("cpu", torch.uint8))
        step()
    return torch.cat(found)[: len(subject.pairs)]


def agreements(
    subjects: Sequence[Subject], seen: Mapping[Subject, Tensor], step: Step
) -> dict[Subject, dict[str, Any]]:
    """Compare the classes that each contestant predicts for the user's pairs with those of its reference.

    `seen` holds the results of `classes_seen`. Returns `pairs` (their number), `overall` (share of all pixels
    with the same class) and `worst` (share in the worst pair); both None for a reference or without one.
    """
    known = dict(seen)
    for missing in missing_references(subjects):
        work = make_work(missing, open_model(missing.model))
        known[missing] = classes_seen(missing, work, step)
    found = {}
    for subject, classes in seen.items():
        reference = reference_of(subject)
        overall, worst = None, None
        if reference is not None and reference != subject:
            overall, worst = shares(list((classes == known[reference]).unbind()))
        found[subject] = {"pairs": len(subject.pairs), "overall": overall, "worst": worst}
    return found


def read_accuracy(path: str) -> dict[str, float]:
    """Read the mIoU of each model, a fraction; raises InputError if the file is unreadable or has none.

    It is the JSON of `efnet experiment` (rows of modality rgbt, mean over seeds) or `efnet evaluate`, or
    plain values such as `{"efnet_light": 0.51}`.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        found = dict(_mious(values))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"`accuracy` {path}: cannot be read ({error}); give the JSON report of efnet experiment or efnet "
            'evaluate, or {"model": mIoU}'
        ) from error
    for model, miou in found.items():
        if not 0 <= miou <= 1:
            raise InputError(f"`accuracy` {path}: {model} has {miou:g}; give fractions from 0 to 1")
    if not found:
        raise InputError(f"`accuracy` {path}: has the mIoU of no model")
    return found


def _mious(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
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
"""Multiply-adds of a pass, or a training step, in forward passes: backward has two products for each."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    runs: int = 10  # rounds that count
    warmup: int = 2  # rounds before
    parts: bool = True  # break a pass down into parts
    memory: bool = True  # measure peak memory


def steps(subjects: Sequence[Subject], plan: Plan) -> int:
    """Return the number of steps that `compare` takes."""
    gemms = 2 if subjects[0].precision == "bf16" else 1
    plain = sum(_broken_down(subject) for subject in subjects)
    turns = (len(subjects) + gemms + 1) * (plan.runs + plan.warmup)
    given = [subject for subject in subjects if subject.pairs]
    turns += sum(subject.passes for subject in [*given, *missing_references(given)])
    return turns + plan.parts * plain * (plan.runs + 1) + plan.memory * len(subjects)


def compare(
    subjects: Sequence[Subject],
    plan: Plan,
    progress: Progress = no_progress,
    failed: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Measure contestants of one size, batch, device and precision, all with the same pairs or with none.

    `failed` holds the reasons of contestants that are known not to work, by label.

    Returns:
        plain values: `machine`, `gemm` (operations per second by type), `bandwidth` (bytes per second that a
        large copy reads and writes), and `rows`, one per contestant, with
        `error` instead of figures where a variant (compile, cuda-graph, an exported file) does not work here,
        and with pairs `agreement`, see `agreements`.

    Raises:
        InputError: a model that does not exist, or too little memory.
    """
    device = torch.device(subjects[0].device)
    step = count_steps(progress, steps(subjects, plan))
    errors = dict(failed or {})
    working = [each for each in subjects if each.label not in errors]
    models = {each.label: open_model(each.source, each.device) for each in working}
    works, seen = _ready(subjects, models, errors, step)
    agreement = agreements(list(seen), seen, step)
    gemms, operations = measure.gemm_contestants(device, subjects[0].precision)
    beside = {**gemms, **measure.copy_contestant(device)}
    times = measure.interleave({**works, **beside}, device, plan.runs, plan.warmup, step)
    rates, bandwidth = measure.gemm_rates(times, operations), measure.copy_rate(times)
    rows = []
    for subject in subjects:
        if subject.label in errors:
            rows.append({**_head(subject), "error": errors[subject.label]})
            continue
        model = models[subject.label]
        row = _row(subject, model, times[subject.label], rates, bandwidth)
        if subject in agreement:
            row["agreement"] = agreement[subject]
        if plan.memory:
            row["memory"] = measure.peak_of({"kind": "network", "subject": subject.to_dict()})
            step()
        if plan.parts and _broken_down(subject) and isinstance(model, SegmentationModel):
            row["breakdown"] = breakdown(subject, model, plan.runs, step)
        rows.append(row)
    _relate(rows)
    return {"machine": measure.describe(device), "gemm": rates, "bandwidth": bandwidth, "rows": rows}


def _broken_down(subject: Subject) -> bool:
    """Whether parts can be timed: compiled and captured networks run none of our code."""
    return subject.variant == "plain" and not subject.dense


def _ready(
    subjects: Sequence[Subject], models: dict[str, Network], errors: dict[str, str], step: Step
) -> tuple[dict[str, Work], dict[Subject, Tensor]]:
    """Try each contestant once, or on every pair; return works and classes. Reasons go to `errors`."""
    works: dict[str, Work] = {}
    seen: dict[Subject, Tensor] = {}
    for subject in subjects:
        if subject.label in errors:
            continue
        with named_shortage(subject):
            try:
                work = make_work(subject, models[subject.label])
                if subject.pairs:
                    seen[subject] = classes_seen(subject, work, step)
                else:
                    work()
            # Compilers and captures raise all kinds of exceptions, and the plain variant works all the same.
            except Exception as error:
                if subject.variant == "plain":
                    raise
                lines = str(error).strip().splitlines()
                errors[subject.label] = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
                continue
        works[subject.label] = work
    return works, seen


def _head(subject: Subject) -> dict[str, Any]:
    file = None if subject.file is None else Path(subject.file).name  # its folder may be temporary
    return {"label": subject.label, **subject.to_dict(), "file": file, "pairs": len(subject.pairs)}


def _row(
    subject: Subject, model: Network, times: Quantiles, rates: dict[str, float], bandwidth: float
) -> dict[str, Any]:
    """Return the figures of a contestant; its limit is the larger of two, by products and by memory."""
    with torch.device("meta"):
        counted = count(ARCHITECTURES[model.architecture](model.config), subject.size)
    one = counted.layers + counted.attention
    half = subject.precision == "bf16"
    rate = rates["bfloat16" if half else "float32"]
    activations = (counted.moved - counted.parameters) * subject.batch
    moved = (activations + counted.parameters) * (2 if half else 4) * PASSES[subject.training]
    limits = {
        "products": 2 * one * subject.batch * PASSES[subject.training] / rate,
        "memory": moved / bandwidth,
    }
    limited_by = max(limits, key=lambda name: limits[name])
    limit = limits[limited_by]
    return {
        **_head(subject),
        "seconds": asdict(times),
        "pairs_per_second": subject.batch / times.median,
        "parameters": counted.parameters,
        "multiply_adds": one,
        "bytes_moved": moved,
        "limits": limits,
        "limited_by": limited_by,
        "times_limit": times.median / limit,
        "share_of_limit": limit / times.median,
    }


def _relate(rows: Sequence[dict[str, Any]]) -> None:
    """Add `times_plain`: a median over that of the same model as it is; None where that was not measured."""
    done = [row for row in rows if "error" not in row]
    plain = {row["model"]: row for row in done if row["variant"] == "plain" and not row["dense"]}
    for row in done:
        beside = plain.get(row["model"])
        row["times_plain"] = beside and row["seconds"]["median"] / beside["seconds"]["median"]
