"""The largest batch that fits into memory, found with real training steps before the run."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from efnet.core.distributed import Group
from efnet.core.errors import InputError
from efnet.core.memory import measured, resident, usable_memory
from efnet.data.dataset import collate
from efnet.data.pairs import PairSet
from efnet.training.config import TrainConfig
from efnet.training.logs import Reporter
from efnet.training.run_folder import RunFolder
from efnet.training.trainer import Trainer

_SHARE = {"cuda": 0.9, "cpu": 0.8}
"""Part of the usable memory that steps may take: the rest is for fragments, workers and validation."""

_GROWTH = 4  # the next batch tried is at most so many times the last one, whatever a line through both says

_ITEMS = 8  # pairs read for the trial; larger batches repeat them


@dataclass(frozen=True)
class Trial:
    """A batch size that was tried."""

    pairs: int
    peak: int | None  # bytes held at most; None: the step ran out of memory


def largest_batch(step: Callable[[int], Trial], budget: int, most: int) -> tuple[int, list[Trial]]:
    """Return the largest number of pairs up to `most` whose step stays within `budget` bytes.

    Memory grows linearly with the batch, so each trial is placed where the line through the last two meets
    the budget; every size that is returned has been tried. Returns also the trials, in their order.

    Raises:
        InputError: a single pair does not fit.
    """
    trials = [step(1)]
    fits, fails = 0, most + 1
    while True:
        last = trials[-1]
        if last.peak is not None and last.peak <= budget:
            fits = max(fits, last.pairs)
        else:
            fails = min(fails, last.pairs)
        if fails <= 1:
            raise InputError(
                f"a batch of one pair needs more than the {budget / 1e9:.2f} GB that may be used; give a "
                "smaller `size`, a smaller `model` or `network.checkpoint_activations` true"
            )
        if fails - fits <= 1:
            return fits, trials
        trials.append(step(_next(trials, budget, fits, fails)))


def _next(trials: list[Trial], budget: int, fits: int, fails: int) -> int:
    """Return the next size to try, above `fits` and below `fails`."""
    known = sorted((trial.pairs, trial.peak) for trial in trials if trial.peak is not None)
    wanted = 2 * fits
    if len(known) > 1:
        (fewer, less), (more, largest) = known[-2:]
        slope = max(1.0, (largest - less) / (more - fewer))
        wanted = more + int((budget - largest) / slope)
    wanted = min(wanted, _GROWTH * fits)
    if len(known) == len(trials) and known[-1][1] <= budget:  # nothing failed: `fails` is only the end
        wanted = min(wanted, fails - 1)
    if not fits < wanted < fails:  # the line was wrong: halve the gap
        wanted = (fits + fails) // 2
    return wanted


def settle_batch_size(
    config: TrainConfig, splits: tuple[PairSet, PairSet], fabric: Fabric, reporter: Reporter
) -> tuple[TrainConfig, dict[str, Any]]:
    """Replace a batch size `auto` by the largest that fits; return the configuration and facts about it.

    A network of its own makes the steps, so the run has the same bits as one that was given the number.

    Raises:
        InputError: several processes, or not even one pair fits.
    """
    if config.data.batch_size != "auto":
        return config, {}
    if Group(fabric.device).size > 1:
        raise InputError(
            "`batch_size` auto is found in one process; find it with one device, then give the number"
        )
    device = fabric.device
    usable = usable_memory(device)
    if usable is None:
        raise InputError("`batch_size` auto: this system does not report its memory; give a number")
    held = torch.cuda.memory_reserved(device) if device.type == "cuda" else resident()
    most = max(1, len(splits[0]) // config.data.accumulate)
    reporter.say(f"looking for the largest batch within {_SHARE[device.type]:.0%} of {usable / 1e9:.1f} GB")
    trainer = Trainer(_with_batch(config, 1), RunFolder("."), splits, Reporter(quiet=True), fabric)
    budget = held + int(_SHARE[device.type] * (usable - _cache_bytes(trainer)))
    try:
        with trainer.stop:
            found, trials = largest_batch(lambda pairs: _try(trainer, pairs), budget, most)
    finally:
        trainer.learner = None  # type: ignore[assignment]  # free its memory before the run's own
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    peak = next(trial.peak for trial in trials if trial.pairs == found)
    bound = "all pairs of the split" if found == most else f"{(peak or 0) / 1e9:.2f} GB at most"
    reporter.say(f"batch size {found} ({bound}, {len(trials)} sizes tried)")
    facts = {"pairs": found, "peak_bytes": peak, "budget_bytes": budget, "usable_bytes": usable}
    return _with_batch(config, found), {"batch_size_found": facts}


def _with_batch(config: TrainConfig, pairs: int) -> TrainConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=pairs))


def _try(trainer: Trainer, pairs: int) -> Trial:
    """Make two steps of so many pairs, the second with the optimizer's state in memory."""
    if trainer.stop.requested:
        raise KeyboardInterrupt("stopped while the batch size was sought; nothing was written")
    learner = trainer.learner
    learner.config = _with_batch(learner.config, pairs)
    learner.model.train()
    few = [trainer.dataset[number] for number in range(min(pairs, _ITEMS, len(trainer.dataset)))]
    batch = collate([few[number % len(few)] for number in range(pairs)])
    with measured(learner.fabric.device) as peak:
        try:
            for number in range(2):
                learner.step(batch, number)
        except (torch.OutOfMemoryError, MemoryError):
            return _failed(trainer, pairs)
        except RuntimeError as error:
            if "allocate memory" not in str(error):
                raise
            return _failed(trainer, pairs)
    return Trial(pairs, peak.bytes)


def _failed(trainer: Trainer, pairs: int) -> Trial:
    trainer.learner.optimizer.zero_grad(set_to_none=True)
    if trainer.learner.fabric.device.type == "cuda":
        torch.cuda.empty_cache()
    return Trial(pairs, None)


def _cache_bytes(trainer: Trainer) -> int:
    """Return the bytes that decoded images will take in main memory, if the recipe keeps them."""
    if not trainer.config.data.cache or trainer.learner.fabric.device.type == "cuda":
        return 0
    sample = trainer.dataset.read(0)
    label = 0 if sample.label is None else sample.label.nbytes
    one = sample.rgb.nbytes + sample.thermal.nbytes + label
    return one * (len(trainer.train_set) + len(trainer.val_set))
