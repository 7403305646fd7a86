"""The folder of a run, which records everything that decides its figures.

config.yaml      the whole configuration; feeding it back repeats the run
run.json         versions, machine, data fingerprint, best checkpoint
metrics.csv      a row per epoch; metrics.jsonl holds the same and per-class IoU
best/            checkpoint of the best validation (safetensors and JSON)
last/state.pt    the state that `resume` starts from; state.previous.pt the one before (a finished run of
                 an experiment has neither)
samples/         picture sheets of validations
tensorboard/     the same for TensorBoard; csv/, wandb/, mlflow.db for other trackers
"""

from __future__ import annotations

import hashlib
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
from efnet.data.archive import file_bytes, file_of, tar_of
from efnet.data.items import PREFIX as ITEMS
from efnet.data.pairs import PairSet
from efnet.training.config import TrainConfig, flatten, to_values
from efnet.training.state import previous


class RunFolder:
    """Names and contents of a run's files; the folder need not exist."""

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
        """Raise InputError if the folder holds a run, which a new one would overwrite."""
        # A run that was killed before its first state was written has nothing to lose.
        if self.config.exists() and self.has_state():
            raise InputError(
                f"{self.path}: holds a run already; add `resume` to go on with it, or choose another `out`"
            )
        if self.is_finished():
            raise InputError(f"{self.path}: holds a finished run; choose another `out`")

    def require_resumable(self) -> None:
        """Raise InputError unless there is a run to go on with."""
        if self.is_finished() and not self.has_state():
            raise InputError(
                f"{self.path}: a finished run whose state was dropped (experiments do so); start "
                f"another from its weights with `init` {self.path} and another `out`"
            )
        for needed, there in ((self.config, self.config.is_file()), (self.state, self.has_state())):
            if not there:
                raise InputError(
                    f"{needed}: not there, so there is no run to resume in {self.path}; "
                    "start it without `resume`"
                )
        for leftover in self.state.parent.glob(".state-*"):  # of a process that was killed
            leftover.unlink(missing_ok=True)

    def is_finished(self) -> bool:
        """Whether the folder has a best checkpoint and a result."""
        return self.best.is_dir() and "result" in self.read_facts()

    def has_state(self) -> bool:
        """Whether there is a state to resume from."""
        return self.state.is_file() or previous(self.state).is_file()

    def drop_state(self) -> None:
        """Delete the states; the best checkpoint stays."""
        for path in (self.state, previous(self.state), *self.state.parent.glob(".state-*")):
            path.unlink(missing_ok=True)

    def write_config(self, config: TrainConfig) -> None:
        """Write the configuration as YAML."""
        write_text(self.config, yaml.safe_dump(to_values(config), sort_keys=False))

    def describe_changes(self, config: TrainConfig, free: tuple[str, ...]) -> str:
        """List the options that differ from the folder's, but those whose place begins with `free`."""
        # An option that is newer than the run had its default.
        before = flatten(to_values(TrainConfig()))
        before |= flatten(yaml.safe_load(self.config.read_text(encoding="utf-8")))
        return ", ".join(
            f"{place} was {before.get(place)}, now {value}"
            for place, value in flatten(to_values(config)).items()
            if before.get(place) != value and not place.startswith(free)
        )

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Write `run.json`."""
        write_json(self.facts, facts)

    def read_facts(self) -> dict[str, Any]:
        """Read `run.json`; empty if there is none."""
        if not self.facts.is_file():
            return {}
        try:
            facts = parse_json(self.facts.read_text(encoding="utf-8"))
            if not isinstance(facts, dict):
                raise ValueError("it is not a JSON object")
        except ValueError as error:
            raise InputError(f"{self.facts}: damaged ({error}); delete it to go on without it") from error
        return facts


def environment() -> dict[str, str]:
    """Return the versions of the software, and the GPU."""
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


_NOTE = "an object of Python: its items are not recorded, so config.yaml alone does not repeat the run"


def fingerprint(**splits: PairSet) -> dict[str, Any]:
    """Identify the data of the splits.

    Returns for each keyword the split's name, its number of pairs, and the SHA-256 over the names and the
    bytes of all its files; of an object of Python only its class.
    """
    facts: dict[str, Any] = {}
    for role, split in splits.items():
        if split.dataset.startswith(ITEMS):
            facts[role] = {"split": split.split, "pairs": len(split), "object": split.dataset, "note": _NOTE}
            continue
        digest = hashlib.sha256()
        for pair in split.pairs:
            digest.update(pair.name.encode())
            for path in (pair.rgb, pair.thermal, pair.label):
                if path is not None:
                    digest.update(file_bytes(path))
                    if tar_of(path) is None and file_of(path) != path:
                        digest.update(path.name.encode())  # the channels or the page of the file
        facts[role] = {"split": split.split, "pairs": len(split), "sha256": digest.hexdigest()}
    return facts


@dataclass(frozen=True)
class RunSummary:
    """Result of a finished run."""

    out: Path  # the run folder
    epochs: int  # finished
    best_miou: float  # best validation mIoU, a fraction
    best_epoch: int  # epoch of it, counted from 1
    seconds: float  # spent training and validating, over all resumptions
    skipped: int = 0  # steps skipped because loss or gradient was not finite
    stopped: str | None = None  # why it ended before its last epoch; None: it did not

    @property
    def miou(self) -> float:
        """Best validation mIoU, a fraction."""
        return self.best_miou

    @property
    def checkpoint(self) -> Path:
        """Folder of the best checkpoint, which `Predictor.from_pretrained` takes."""
        return RunFolder(self.out).best

    @property
    def facts(self) -> dict[str, Any]:
        """Contents of `run.json`: versions, hashes of the data, what was loaded, the result."""
        return RunFolder(self.out).read_facts()

    @property
    def history(self) -> tuple[dict[str, Any], ...]:
        """A row per epoch, as in `metrics.jsonl`."""
        text = RunFolder(self.out).metrics_jsonl.read_text(encoding="utf-8")
        return tuple(parse_json(line) for line in text.splitlines())


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after the state was saved."""


def describe_training(config: TrainConfig, pairs: int, epoch: int, report: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's facts about its training on so many pairs up to an epoch, counted from 1."""
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
    for name in ("teacher", "unlabelled"):
        if getattr(config.teach, name) is not None:
            facts[name] = Path(getattr(config.teach, name)).name
    if config.ema.decay is not None:
        facts["ema"] = config.ema.decay
    return facts
