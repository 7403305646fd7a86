"""The folder of a run: it describes itself, so that anyone can tell later what made its figures.

config.yaml      the whole configuration; feeding it back repeats the run
run.json         versions, machine, data fingerprint, best checkpoint
metrics.csv      a row per epoch; metrics.jsonl holds the same and per-class IoU
best/            checkpoint of the best validation (safetensors and JSON)
last/state.pt    what `--resume` goes on from; state.previous.pt the one before (a finished run of an
                 experiment has neither)
samples/         picture sheets of validations
tensorboard/     the same for TensorBoard

What a run says of itself, and how it ends: with a summary, or interrupted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import yaml

from efnet import __version__
from efnet.core.errors import InputError
from efnet.core.files import write_json, write_text
from efnet.core.safe_parse import parse_json
from efnet.data.archive import file_bytes
from efnet.data.pairs import PairSet
from efnet.training.config import TrainConfig
from efnet.training.state import previous


class RunFolder:
    """Names and contents of a run's files.

    Args:
        path: the folder; need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.facts = self.path / "run.json"
        self.metrics_csv = self.path / "metrics.csv"
        self.metrics_jsonl = self.path / "metrics.jsonl"
        self.best = self.path / "best"
        self.state = self.path / "last" / "state.pt"
        self.samples = self.path / "samples"
        self.tensorboard = self.path / "tensorboard"

    def refuse_existing(self) -> None:
        """A new run never writes over an old one.

        Raises:
            InputError: the folder holds a run.
        """
        # One that was killed before its first state was written has nothing to lose.
        if self.config.exists() and self.has_state():
            raise InputError(
                f"{self.path}: holds a run already; add --resume to go on with it, or choose another --out"
            )
        if self.is_finished():
            raise InputError(f"{self.path}: holds a finished run; choose another --out")

    def require_resumable(self) -> None:
        """Raise InputError unless there is a run to go on with."""
        if self.is_finished() and not self.has_state():
            raise InputError(
                f"{self.path}: a finished run whose state was dropped (efnet experiment does so); start "
                f"another from its weights with --init {self.path} and another --out"
            )
        for needed, there in ((self.config, self.config.is_file()), (self.state, self.has_state())):
            if not there:
                raise InputError(
                    f"{needed}: not there, so there is no run to resume in {self.path}; "
                    "start it without --resume"
                )
        for leftover in self.state.parent.glob(".state-*"):  # of a process that was killed
            leftover.unlink(missing_ok=True)

    def is_finished(self) -> bool:
        """Whether it has its best checkpoint and says what it came to."""
        return self.best.is_dir() and "result" in self.read_facts()

    def has_state(self) -> bool:
        """Whether there is something to go on from."""
        return self.state.is_file() or previous(self.state).is_file()

    def drop_state(self) -> None:
        """Forget what a run would go on from; its best checkpoint stays."""
        for path in (self.state, previous(self.state), *self.state.parent.glob(".state-*")):
            path.unlink(missing_ok=True)

    def write_config(self, config: TrainConfig) -> None:
        """Write the configuration as YAML that `--config` reads."""
        values = json.loads(json.dumps(dataclasses.asdict(config)))
        write_text(self.config, yaml.safe_dump(values, sort_keys=False))

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Write what is known about the run."""
        write_json(self.facts, facts)

    def read_facts(self) -> dict[str, Any]:
        """Read what `write_facts` wrote; empty if there is none."""
        if not self.facts.is_file():
            return {}
        try:
            facts = parse_json(self.facts.read_text(encoding="utf-8"))
            if not isinstance(facts, dict):
                raise ValueError("it holds no facts")
        except ValueError as error:
            raise InputError(f"{self.facts}: damaged ({error}); delete it to go on without it") from error
        return facts


def environment() -> dict[str, str]:
    """Versions of what computes."""
    versions = {
        "efnet": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "platform": platform.platform(),
    }
    if torch.cuda.is_available():
        versions["gpu"] = torch.cuda.get_device_name()
    return versions


def fingerprint(**splits: PairSet) -> dict[str, Any]:
    """What tells one state of a data set from another.

    Returns:
        for each keyword the split's name, its number of pairs, and the SHA-256 over their names and the
        bytes of all their files.
    """
    return {
        role: {"split": split.split, "pairs": len(split), "sha256": _digest(split)}
        for role, split in splits.items()
    }


def _digest(split: PairSet) -> str:
    digest = hashlib.sha256()
    for pair in split.pairs:
        digest.update(pair.name.encode())
        for path in (pair.rgb, pair.thermal, pair.label):
            if path is not None:
                digest.update(file_bytes(path))
    return digest.hexdigest()


@dataclass(frozen=True)
class RunSummary:
    """What a finished run says of itself.

    Attributes:
        out: the run folder.
        epochs: finished.
        best_miou: best validation mIoU, a fraction.
        best_epoch: epoch of it, counted from 1.
        seconds: spent training and validating, over all resumptions.
        skipped: steps that changed nothing, because loss or gradient was not finite.
    """

    out: Path
    epochs: int
    best_miou: float
    best_epoch: int
    seconds: float
    skipped: int = 0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C after the state was saved; the message says how to go on."""


def describe_training(config: TrainConfig, pairs: int, epoch: int, report: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its training.

    Args:
        config: the recipe.
        pairs: number of them in the training split.
        epoch: the one that ended, counted from 1.
        report: of the validation.
    """
    data = config.data
    facts = {
        "recipe": config.recipe,
        "dataset": data.dataset,
        "train_split": data.train_split,
        "train_pairs": pairs,
        "selected_on": data.val_split,
        "selection_protocol": report["protocol"]["name"],
        "selection_miou": report["miou"],
        "epoch": epoch,
        "epochs": config.schedule.epochs,
        "seed": config.seed,
    }
    dropped = [camera for camera in ("rgb", "thermal") if getattr(config.augment, f"drop_{camera}")]
    if dropped:
        facts["dropped"] = dropped
    if config.ema.decay is not None:
        facts["ema"] = config.ema.decay
    return facts


def describe_stop(config: TrainConfig, epoch: int, out: Path) -> str:
    """Where a run stands that was asked to stop, and how it goes on."""
    return (
        f"stopped in epoch {epoch} of {config.schedule.epochs}; everything is saved. Go on with: "
        f"efnet train --out {out} --resume"
    )


def describe_processes(config: TrainConfig, processes: int) -> str:
    """How several processes share a batch, for the opening line; nothing for one."""
    if processes == 1:
        return ""
    size, passes = config.data.batch_size, config.data.accumulate
    return (
        f", {processes} processes ({config.parallel.strategy}); a step has {processes * passes * size} "
        f"pairs: {processes} processes x {passes} passes x {size}"
    )
