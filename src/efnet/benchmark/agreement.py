"""Whether contestants see the same classes in the user's pairs as their network in PyTorch and float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from efnet.benchmark.subject import Subject, make_work, open_model
from efnet.benchmark.timing import Progress, Work
from efnet.export.check import shares
from efnet.prediction.runtime import is_exported


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
