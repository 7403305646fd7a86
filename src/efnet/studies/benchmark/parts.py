"""Which part of a network takes how much of its time.

Parts nest: a stage holds its clustering. A clock runs for the innermost part that is open, so the parts'
times add up to the whole; what belongs to none is `other`.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from efnet.models import dbtc
from efnet.models.base import SegmentationModel
from efnet.models.efnet import EFNet
from efnet.studies.benchmark.dense import clustering_by
from efnet.studies.benchmark.measure import Progress, synchronize
from efnet.studies.benchmark.subject import Subject, TrainingStep, make_work

OTHER = "other"
CLUSTERING = "clustering"


class PartClock:
    """Adds up the time for which each part was the innermost one.

    Args:
        device: waited for at every change of part.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._open = [OTHER]
        self._since = 0.0

    def start(self) -> None:
        """Begin a run: forget the last one."""
        self.seconds.clear()
        self._open = [OTHER]
        synchronize(self.device)
        self._since = time.perf_counter()

    def stop(self) -> dict[str, float]:
        """End the run; seconds by part."""
        self._charge()
        return dict(self.seconds)

    def enter(self, part: str) -> None:
        """A part begins."""
        self._charge()
        self._open.append(part)

    def leave(self) -> None:
        """The innermost part ends."""
        self._charge()
        self._open.pop()

    @property
    def innermost(self) -> str:
        """The part that is open."""
        return self._open[-1]

    def _charge(self) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now


def named_parts(model: SegmentationModel) -> dict[str, str]:
    """Label of each module that counts as a part, by the module's name."""
    if not isinstance(model, EFNet):
        return {name: name for name, _ in model.named_children()}
    parts: dict[str, str] = {}
    for modality in ("rgb", "thermal"):
        parts[f"{modality}.patch_embed"] = f"stem {modality}"
        parts[modality] = f"stage 1 blocks {modality}"
    parts["fusion"] = f"fusion ({model.config.fusion})"
    for index in range(3):
        parts[f"token_stages.{index}.dbtc"] = f"DBTC {index + 1} without clustering"
        parts[f"token_stages.{index}"] = f"stage {index + 2} blocks"
        parts[f"down.{index}"] = f"down path {index + 1}"
    parts["decoder"] = f"decoder ({model.config.decoder})"
    present = dict(model.named_modules())
    return {name: label for name, label in parts.items() if name in present}


@contextmanager
def watched(model: SegmentationModel, clock: PartClock) -> Iterator[None]:
    """Let the network tell the clock where it is."""
    modules = dict(model.named_modules())
    handles = []
    for name, label in named_parts(model).items():
        handles.append(modules[name].register_forward_pre_hook(_entering(clock, label)))
        handles.append(modules[name].register_forward_hook(lambda *_: clock.leave(), always_call=True))
    with clustering_watched(clock), _ends_watched(model, clock):
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _entering(clock: PartClock, label: str) -> Callable[..., None]:
    def enter(_module: nn.Module, _inputs: Any) -> None:
        clock.enter(label)

    return enter


@contextmanager
def clustering_watched(clock: PartClock) -> Iterator[None]:
    """Charge clusterings to parts of their own, named after the DBTC that they are part of."""
    inner = vars(dbtc)["dpc_knn"]

    def clustered(*args: Any, **options: Any) -> Any:
        words = clock.innermost.split()
        clock.enter(f"{CLUSTERING} {words[1]}" if words[0] == "DBTC" else CLUSTERING)
        try:
            return inner(*args, **options)
        finally:
            clock.leave()

    with clustering_by(clustered):
        yield


@contextmanager
def _ends_watched(model: SegmentationModel, clock: PartClock) -> Iterator[None]:
    """Charge what is before and after the scores: normalised images, and logits at the images' size."""
    inner = model.score_cells

    def score(*args: Any, **options: Any) -> Any:
        clock.leave()
        clock.enter(OTHER)
        try:
            return inner(*args, **options)
        finally:
            clock.leave()
            clock.enter("final resize")

    handles = [
        model.register_forward_pre_hook(_entering(clock, "normalised input")),
        model.register_forward_hook(lambda *_: clock.leave(), always_call=True),
    ]
    vars(model)["score_cells"] = score
    try:
        yield
    finally:
        del vars(model)["score_cells"]
        for handle in handles:
            handle.remove()


def breakdown(
    subject: Subject, model: SegmentationModel, runs: int, progress: Progress = lambda: None
) -> dict[str, Any]:
    """Time of each part of a pass, or of each phase of a step.

    Args:
        subject: a plain contestant.
        model: its network.
        runs: of which the medians are taken; one more goes before.
        progress: told after each run.

    Returns:
        `seconds` of the whole, `parts` (name, seconds, share of the whole) and `clustering_share`.
    """
    clock = PartClock(torch.device(subject.device))
    work = TrainingStep(subject, model) if subject.training else make_work(subject, model)
    taken: list[dict[str, float]] = []
    for turn in range(-1, runs):
        clock.start()
        if isinstance(work, TrainingStep):
            _watched_step(work, clock)
        else:
            with watched(model, clock):
                work()
        seconds = clock.stop()
        if turn >= 0:
            taken.append(seconds)
        progress()
    return _summary(taken)


def _watched_step(step: TrainingStep, clock: PartClock) -> None:
    """A step with its phases; clusterings computed again in the backward pass count as clusterings."""
    with clustering_watched(clock):
        clock.enter("forward without clustering")
        logits = step.forward()
        clock.leave()
        clock.enter("loss")
        loss = step.loss(logits)
        clock.leave()
        clock.enter("backward")
        step.backward(loss)
        clock.leave()
        clock.enter("optimizer")
        step.update()
        clock.leave()


def _summary(taken: list[dict[str, float]]) -> dict[str, Any]:
    names = [name for name in taken[0] if name != OTHER] + [OTHER]
    whole = statistics.median(sum(seconds.values()) for seconds in taken)
    parts = []
    for name in names:
        seconds = statistics.median(run.get(name, 0.0) for run in taken)
        parts.append({"name": name, "seconds": seconds, "share": seconds / whole})
    clustering = statistics.median(
        sum(seconds for name, seconds in run.items() if name.startswith(CLUSTERING)) / sum(run.values())
        for run in taken
    )
    return {"seconds": whole, "parts": parts, "clustering_share": clustering}
