"""The training loop, from a configuration to a run folder."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from efnet.data.dataset import (
    Item,
    ItemsOrFaults,
    PairDataset,
    collate_or_fault,
    leave_interrupts_to_parent,
)
from efnet.data.layouts import open_split
from efnet.data.pairs import PairSet
from efnet.data.verify import verify
from efnet.errors import InputError
from efnet.models.base import InputSpec
from efnet.training.config import TrainConfig
from efnet.training.fabric import make_fabric
from efnet.training.logs import Reporter, Row, RunLog, Steps, read_rows
from efnet.training.loss import cross_entropy
from efnet.training.network import build_network
from efnet.training.optimizer import learning_rate, make_optimizer
from efnet.training.order import EpochSampler, step_seed
from efnet.training.run_folder import RunFolder, environment, fingerprint
from efnet.training.state import Progress, load_state, save_state
from efnet.training.stop import Stopped, StopSignal
from efnet.training.validation import Validator


@dataclass(frozen=True)
class RunSummary:
    """What a finished run says of itself.

    Attributes:
        out: the run folder.
        epochs: finished.
        best_miou: best validation mIoU, a fraction.
        best_epoch: epoch of it, counted from 1.
        seconds: spent training and validating, over all resumptions.
    """

    out: Path
    epochs: int
    best_miou: float
    best_epoch: int
    seconds: float


class Interrupted(KeyboardInterrupt):
    """Ctrl-C after the state was saved; the message says how to go on."""


def train(
    config: TrainConfig, out: str | Path, resume: bool = False, reporter: Reporter | None = None
) -> RunSummary:
    """Train a network and leave a run folder that describes itself.

    Args:
        config: the recipe.
        out: folder of the run; new, unless `resume`.
        resume: go on from the folder's last state.
        reporter: told of the progress; by default stderr.

    Returns:
        the summary, also in the folder's `run.json`.

    Raises:
        InputError: bad configuration or data (all faults at once), or nothing to resume.
        Interrupted: after Ctrl-C or SIGTERM, the state saved.
    """
    folder = RunFolder(out)
    reporter = reporter or Reporter()
    if resume:
        folder.require_resumable()
    else:
        folder.refuse_existing()
    data = config.data
    train_set, val_set = (
        open_split(data.dataset, Path(data.root), name) for name in (data.train_split, data.val_split)
    )
    # The network first: a misspelt option shows before thousands of files are read.
    trainer = Trainer(config, folder, (train_set, val_set), reporter)
    for split in (train_set, val_set):
        reporter.say(f"checking {len(split)} pairs of {split.dataset} {split.split}")
        verify(split)
    trainer.begin(resume)
    return trainer.run()


class Trainer:
    """A run: network, optimizer, data and logs, and the loop over them.

    Args:
        config: the recipe.
        folder: of the run.
        splits: to learn from, and to choose the best checkpoint on.
        reporter: told of the progress.
    """

    def __init__(
        self, config: TrainConfig, folder: RunFolder, splits: tuple[PairSet, PairSet], reporter: Reporter
    ) -> None:
        self.config = config
        self.folder = folder
        self.train_set, self.val_set = splits
        self.reporter = reporter
        self.progress = Progress()
        self.stop = StopSignal(reporter.say)
        self.fabric = make_fabric(config.device, config.precision)
        torch.manual_seed(config.seed)
        scale = config.data.thermal_scale or self.train_set.thermal_scale
        self.network, self.init_report = build_network(config.network, self.train_set.classes)
        self.network.input = InputSpec(config.data.size, scale)
        # On its device before any state is loaded: the optimizer's state follows its parameters.
        self.model: Any
        self.optimizer: Any
        self.model, self.optimizer = self.fabric.setup(
            self.network, make_optimizer(self.network, config.optimizer)
        )
        self.dataset = PairDataset(
            self.train_set, config.data.size, config.augment, scale, config.seed, cache=config.data.cache
        )
        self.order = EpochSampler(len(self.train_set), config.data.batch_size, config.seed)
        self.validator = Validator(config, self.val_set, scale)
        self.log: RunLog | None = None

    def begin(self, resume: bool) -> None:
        """Restore the last state or write down a new run, and say what this run is."""
        data = fingerprint(train=self.train_set, val=self.val_set)
        known = self.folder.read_facts() if resume else {}
        if known.get("data", data) != data:
            raise InputError(
                f"{self.config.data.root}: the data is not what this run began with; restore it, or start "
                "a new run with another --out"
            )
        if resume:
            self._restore()
        self.folder.write_config(self.config)
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        facts = {"environment": environment(), "data": data, "parameters": parameters}
        self.folder.write_facts({"init": self.init_report, **known, **facts})
        if not resume:
            self._save()  # from here on the run can be resumed, whatever happens
        network = self.config.network
        self.reporter.say(
            f"{network.name} ({parameters / 1e6:.2f} M parameters, {network.modality}), "
            f"{self.config.schedule.epochs} epochs of {self.order.batches_per_epoch} batches on "
            f"{self.fabric.device}"
        )
        if self.init_report and not resume:
            self.reporter.say(self.init_report)

    def _restore(self) -> None:
        self.progress = load_state(self.folder.state, self.network, self.optimizer)
        if self.progress.epoch >= self.config.schedule.epochs:
            raise InputError(
                f"{self.folder.path}: all {self.config.schedule.epochs} epochs are done; "
                "give a larger --epochs to go on"
            )

    def run(self) -> RunSummary:
        """All epochs that are left."""
        epochs, batches = self.config.schedule.epochs, self.order.batches_per_epoch
        self.log = RunLog(self.folder, read_rows(self.folder, self.progress.epoch))
        done = self.progress.epoch * batches + self.progress.batch
        try:
            with self.stop, self.reporter.steps(epochs * batches, done) as steps:
                if self.config.data.cache:
                    self.dataset.preload()
                loader = self._loader()
                while self.progress.epoch < epochs:
                    self._epoch(loader, steps)
        except Stopped:
            self._save()
            raise Interrupted(
                f"stopped in epoch {self.progress.epoch + 1} of {epochs}; everything is saved. Go on with: "
                f"efnet train --out {self.folder.path} --resume"
            ) from None
        finally:
            self.log.close()
        return self._finish()

    def _epoch(self, loader: DataLoader[Item | InputError], steps: Steps) -> None:
        """One pass over the training split, then validation, logs and checkpoints."""
        progress, epochs = self.progress, self.config.schedule.epochs
        started, first = time.monotonic(), progress.batch
        self._train_batches(loader, steps)
        trained = time.monotonic() - started
        pairs = (progress.batch - first) * self.order.batch_size
        row: Row = {
            "epoch": progress.epoch + 1,
            "loss": progress.loss_sum / max(1, progress.batch),
            "lr": self._learning_rate(progress.batch - 1),
            "pairs_per_second": pairs / trained,
        }
        if row["epoch"] % self.config.validation.every == 0 or row["epoch"] == epochs:
            row |= self._validate(row["epoch"])
        progress.seconds += time.monotonic() - started
        row["seconds"] = progress.seconds
        progress.epoch, progress.batch, progress.loss_sum = row["epoch"], 0, 0.0
        assert self.log is not None
        self.log.add(row)
        self._save()
        score = f", val mIoU {100 * row['val_miou']:.2f}" if row.get("val_miou") is not None else ""
        self.reporter.say(
            f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}{score}, "
            f"{row['pairs_per_second']:.1f} pairs/s, {progress.seconds / 60:.1f} min"
        )
        self.stop.check()

    def _train_batches(self, loader: DataLoader[Item | InputError], steps: Steps) -> None:
        """The batches that are left of an epoch."""
        progress, config = self.progress, self.config
        self.model.train()
        self.order.set_epoch(progress.epoch, progress.batch)
        self.dataset.set_epoch(progress.epoch)
        for batch in loader:
            self.stop.check()
            if isinstance(batch, InputError):
                self._save()
                raise batch
            value = self._step(batch)
            progress.batch += 1
            progress.loss_sum += value
            steps.advance(progress.epoch + 1, config.schedule.epochs, value, self.order.batch_size)
        self.stop.check()

    def _step(self, batch: Item) -> float:
        """One step of the optimizer; returns the loss."""
        progress, config = self.progress, self.config
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(progress.batch)
        # Dropped paths follow from the step, so that a resumed run drops the same ones.
        torch.manual_seed(
            step_seed(config.seed, progress.epoch * self.order.batches_per_epoch + progress.batch)
        )
        loss = self._loss(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(self._diverged(batch))
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if config.optimizer.clip is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=config.optimizer.clip)
        self.optimizer.step()
        return value

    def _learning_rate(self, batch: int) -> float:
        """The rate at a batch of the present epoch."""
        batches, config = self.order.batches_per_epoch, self.config
        step = self.progress.epoch * batches + batch
        return learning_rate(step, batches, config.optimizer.lr, config.schedule)

    def _loader(self) -> DataLoader[Item | InputError]:
        """One for the whole run: its workers live on from epoch to epoch."""
        workers = self.config.data.workers
        return DataLoader(
            ItemsOrFaults(self.dataset),
            batch_sampler=self.order,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collate_or_fault,
            pin_memory=self.fabric.device.type == "cuda",
            worker_init_fn=leave_interrupts_to_parent,
        )

    def _loss(self, batch: Item) -> Tensor:
        rgb, thermal, label = (
            batch[key].to(self.fabric.device, non_blocking=True) for key in ("rgb", "thermal", "label")
        )
        return cross_entropy(self.model(rgb, thermal), label, self.train_set.unscored)

    def _diverged(self, batch: Item) -> str:
        names = ", ".join(self.train_set.pairs[int(index)].name for index in batch["index"])
        return (
            f"the loss is not finite in epoch {self.progress.epoch + 1} (pairs {names}); start again with a "
            f"lower --lr, --optimizer.clip 1 or --precision 32. The last good state is in {self.folder.state}"
        )

    def _validate(self, epoch: int) -> Row:
        """Score the validation split; keep the network if it is the best so far."""
        report, sheet = self.validator(self.network, self.fabric.device, self.stop.check)
        if sheet is not None and self.log is not None:
            self.validator.write_sheet(sheet, self.folder.samples / f"epoch_{epoch:04d}.jpg")
            self.log.picture(sheet, epoch)
        miou = report["miou"]
        if miou is not None and miou > self.progress.best_miou:
            self._save_best(epoch, report)
            # After the files: a run that dies between the two finds this epoch best once more.
            self.progress.best_miou, self.progress.best_epoch = miou, epoch
        row: Row = {"val_miou": miou, "val_macc": report["macc"], "val_iou": report["iou"]}
        return row | {f"val_{part}": report[part]["miou"] for part in ("day", "night") if part in report}

    def _save_best(self, epoch: int, report: dict[str, Any]) -> None:
        data = self.config.data
        self.network.training_summary = {
            "recipe": self.config.recipe,
            "dataset": data.dataset,
            "train_split": data.train_split,
            "train_pairs": len(self.train_set),
            "selected_on": data.val_split,
            "selection_protocol": report["protocol"]["name"],
            "selection_miou": report["miou"],
            "epoch": epoch,
            "epochs": self.config.schedule.epochs,
            "seed": self.config.seed,
        }
        self.network.write(self.folder.best)

    def _save(self) -> None:
        save_state(self.folder.state, self.network, self.optimizer, self.progress)

    def _finish(self) -> RunSummary:
        progress = self.progress
        if progress.best_epoch == 0:
            raise InputError(
                f"{self.config.data.root}: no class of split {self.config.data.val_split} counts under its "
                "protocol, so no checkpoint could be chosen; give another --val-split"
            )
        summary = RunSummary(
            self.folder.path, progress.epoch, progress.best_miou, progress.best_epoch, progress.seconds
        )
        result = {key: value for key, value in dataclasses.asdict(summary).items() if key != "out"}
        self.folder.write_facts({**self.folder.read_facts(), "result": result})
        return summary
