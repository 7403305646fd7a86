"""Time of each part of a network.

Parts nest: a stage holds its clustering. The clock charges the innermost open part, so parts and `other` add
up to the whole.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from efnet.models import dbtc
from efnet.models.base import SegmentationModel
from efnet.models.efnet import EFNet
from efnet.studies.benchmark.dense import clustering_by
from efnet.studies.benchmark.measure import Step, synchronize
from efnet.studies.benchmark.subject import Subject, TrainingStep, make_work

OTHER = "other"
CLUSTERING = "clustering"


class PartClock:
    """Add up the time for which each part was the innermost; wait for the device at every change."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._open = [OTHER]
        self._since = 0.0

    def start(self) -> None:
        """Begin a run, and reset the times."""
        self.seconds.clear()
        self._open = [OTHER]
        synchronize(self.device)
        self._since = time.perf_counter()

    def stop(self) -> dict[str, float]:
        """End the run and return seconds by part."""
        self._charge()
        return dict(self.seconds)

    def enter(self, part: str) -> None:
        """Begin a part."""
        self._charge()
        self._open.append(part)

    def leave(self) -> None:
        """End the innermost part."""
        self._charge()
        self._open.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charge the block to a part."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    @property
    def innermost(self) -> str:
        """Name of the innermost part."""
        return self._open[-1]

    def _charge(self) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now


def named_parts(model: SegmentationModel) -> dict[str, str]:
    """Return the label of each module that counts as a part, by the module's name."""
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
    """Let a forward pass charge its parts, among them normalising the images and resizing the logits."""
    modules = dict(model.named_modules())
    parts = [(modules[name], label) for name, label in named_parts(model).items()]
    score_cells = model.score_cells

    def score(*args: Any, **options: Any) -> Any:
        clock.leave()
        with clock.part(OTHER):
            scores = score_cells(*args, **options)
        clock.enter("final resize")
        return scores

    def entering(label: str) -> Callable[..., None]:
        return lambda *_: clock.enter(label)

    handles = []
    for module, label in [*parts, (model, "normalised input")]:
        handles.append(module.register_forward_pre_hook(entering(label)))
        handles.append(module.register_forward_hook(lambda *_: clock.leave(), always_call=True))
    vars(model)["score_cells"] = score
    with clustering_watched(clock):
        try:
            yield
        finally:
            del vars(model)["score_cells"]
            for handle in handles:
                handle.remove()


@contextmanager
def clustering_watched(clock: PartClock) -> Iterator[None]:
    """Charge clusterings to parts of their own, named after the DBTC that they are part of."""
    inner = vars(dbtc)["dpc_knn"]

    def clustered(*args: Any, **options: Any) -> Any:
        words = clock.innermost.split()
        with clock.part(f"{CLUSTERING} {words[1]}" if words[0] == "DBTC" else CLUSTERING):
            return inner(*args, **options)

    with clustering_by(clustered):
        yield


def breakdown(
    subject: Subject, model: SegmentationModel, runs: int, step: Step = lambda: None
) -> dict[str, Any]:
    """Measure each part of a pass, or each phase of a step, of a plain contestant.

    Returns `seconds` of the whole, `parts` (name, seconds, share of it) and `clustering_share`: medians of
    `runs` runs, after one that does not count.
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
        step()
    return _summary(taken)


def _watched_step(step: TrainingStep, clock: PartClock) -> None:
    """Run a step; clusterings that the backward pass computes again count as clusterings."""
    with clustering_watched(clock):
        with clock.part("forward without clustering"):
            logits = step.forward()
        with clock.part("loss"):
            loss = step.loss(logits)
        with clock.part("backward"):
            step.backward(loss)
        with clock.part("optimizer"):
            step.update()


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
