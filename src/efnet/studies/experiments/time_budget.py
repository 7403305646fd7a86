"""How many epochs of a row a budget of time allows: measured before its first run, then kept."""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efnet.core.errors import InputError
from efnet.core.files import write_json
from efnet.data.layouts import open_split
from efnet.data.pairs import PairSet
from efnet.training.config import TrainConfig
from efnet.training.logs import Reporter, read_rows
from efnet.training.run_folder import RunFolder
from efnet.training.trainer import Trainer

PACE = "pace.json"
"""What was measured and what follows from it, in the folder of the experiments."""

ROUNDS = 2
"""How often all rows take their turn, so that a busy minute does not hit one row alone."""

_STEPS = 4
"""Steps of an epoch of the measurement; the pairs of so many batches are used."""

_EPOCHS = 2
"""The first one warms up and does not count."""

_VALIDATED = 8
"""Pairs of the validation split that are used."""


@dataclass(frozen=True)
class Timing:
    """What one turn measured.

    Attributes:
        training: seconds per pair of each epoch but the first: reading, augmentation and step.
        validation: seconds per pair.
    """

    training: tuple[float, ...]
    validation: float


@dataclass(frozen=True)
class Pace:
    """What a budget of time means for a row.

    Attributes:
        epochs: that it allows, at least one.
        training: seconds per pair, median over all turns.
        validation: likewise.
    """

    epochs: int
    training: float
    validation: float

    @classmethod
    def of(cls, timings: Sequence[Timing], pairs: tuple[int, int], every: int, minutes: float) -> Pace:
        """From what was measured.

        Args:
            timings: of all turns.
            pairs: that an epoch trains on, and that a validation scores.
            every: epochs between validations.
            minutes: to be spent on training and validation.
        """
        training = statistics.median(value for timing in timings for value in timing.training)
        validation = statistics.median(timing.validation for timing in timings)
        epoch = pairs[0] * training + pairs[1] * validation / every
        return cls(max(1, round(60 * minutes / epoch)), training, validation)


def fix_epochs(
    out: Path,
    minutes: float,
    configs: Mapping[str, TrainConfig],
    reporter: Reporter,
    bar: Callable[[str], AbstractContextManager[Callable[[int, int], None]]],
) -> dict[str, int]:
    """The epochs of every row: those fixed before, and for other rows what a measurement says.

    A measurement is a run in small, in a folder that goes away: few pairs, two epochs, one validation.

    Args:
        out: folder of the experiments.
        minutes: budget of each run.
        configs: of the rows, by the name of their configuration.
        reporter: told what came out.
        bar: opens a progress bar.

    Raises:
        InputError: the data cannot be used, or the file of earlier measurements is damaged.
        KeyboardInterrupt: stopped; nothing of it is kept.
    """
    known = _read(out)
    new = {name: config for name, config in configs.items() if name not in known}
    timings: dict[str, list[Timing]] = {name: [] for name in new}
    with bar("measuring steps") as advance:
        for turn in range(ROUNDS * len(new)):
            advance(turn, ROUNDS * len(new))
            name = list(new)[turn % len(new)]
            timings[name].append(_measure(new[name], out))
    for name, config in new.items():
        known[name] = Pace.of(timings[name], _pairs(config), config.validation.every, minutes)
        reporter.say(
            f"{name}: {known[name].training:.3f} s per pair, so {known[name].epochs} epochs in "
            f"{minutes:g} minutes"
        )
    if new:
        known |= _read(out)  # what another process measured meanwhile stays: runs of it may have begun
        write_json(out / PACE, {name: dataclasses.asdict(pace) for name, pace in known.items()})
    return {name: known[name].epochs for name in configs}


def _read(out: Path) -> dict[str, Pace]:
    if not (out / PACE).is_file():
        return {}
    try:
        values: dict[str, Any] = json.loads((out / PACE).read_text(encoding="utf-8"))
        return {name: Pace(**pace) for name, pace in values.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{out / PACE}: damaged ({error}); choose another folder") from error


def _splits(config: TrainConfig) -> tuple[PairSet, PairSet]:
    data = config.data
    train, val = (
        open_split(data.dataset, Path(data.root), name) for name in (data.train_split, data.val_split)
    )
    return train, val


def _pairs(config: TrainConfig) -> tuple[int, int]:
    """Pairs that an epoch trains on (whole batches alone), and that a validation scores."""
    train, val = _splits(config)
    batch = min(len(train), config.data.batch_size * config.data.accumulate)
    return len(train) // batch * batch, len(val)


def _measure(config: TrainConfig, out: Path) -> Timing:
    """Train on the first pairs for a moment."""
    train, val = _splits(config)
    few = _STEPS * config.data.batch_size * config.data.accumulate
    short = dataclasses.replace(
        config,
        schedule=dataclasses.replace(config.schedule, epochs=_EPOCHS),
        validation=dataclasses.replace(config.validation, every=_EPOCHS),
    )
    splits = (
        dataclasses.replace(train, pairs=train.pairs[:few]),
        dataclasses.replace(val, pairs=val.pairs[:_VALIDATED]),
    )
    with tempfile.TemporaryDirectory(prefix=".pace-", dir=out) as name:
        folder = RunFolder(name)
        trainer = Trainer(short, folder, splits, Reporter(quiet=True))
        try:
            trainer.begin(resume=False)
            trainer.run()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "stopped while steps were measured; the same command starts anew"
            ) from None
        rows = read_rows(folder, _EPOCHS)
    pairs = trainer.order.batches_per_epoch * trainer.order.batch_size
    training = tuple(1 / row["pairs_per_second"] for row in rows[1:])
    spent = rows[-1]["seconds"] - rows[-2]["seconds"] - pairs * training[-1]
    return Timing(training, max(0.0, spent) / len(splits[1]))
