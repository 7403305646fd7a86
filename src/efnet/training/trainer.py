"""A run, step by step and epoch by epoch."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import torch
from torch.utils.data import DataLoader

from efnet.data.dataset import (
    Item,
    ItemsOrFaults,
    PairDataset,
    collate_or_fault,
    leave_interrupts_to_parent,
)
from efnet.data.pairs import PairSet
from efnet.errors import InputError
from efnet.models.base import InputSpec
from efnet.training.balance import balance_classes
from efnet.training.config import TrainConfig
from efnet.training.learner import Learner
from efnet.training.logs import Reporter, Row, RunLog, Steps, read_rows
from efnet.training.network import build_network
from efnet.training.order import EpochSampler
from efnet.training.run_folder import RunFolder, environment, fingerprint
from efnet.training.state import Progress
from efnet.training.stop import Stopped, StopSignal
from efnet.training.summary import Interrupted, RunSummary
from efnet.training.validation import Validator


class Trainer:
    """A run: learner, data and logs, and the loop over them.

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
        torch.manual_seed(config.seed)
        data = config.data
        scale = data.thermal_scale or self.train_set.thermal_scale
        network, self.init_report = build_network(config.network, self.train_set.classes)
        network.input = InputSpec(data.size, scale)
        self.order = EpochSampler(len(self.train_set), data.batch_size * data.accumulate, config.seed)
        fresh = self.init_report.fresh if self.init_report else ()
        self.learner = Learner(config, network, fresh, self.train_set.unscored, self.order.batches_per_epoch)
        self.dataset = PairDataset(
            self.train_set, data.size, config.augment, scale, config.seed, cache=data.cache
        )
        self.validator = Validator(config, self.val_set, scale)
        self.log: RunLog | None = None

    def begin(self, resume: bool) -> None:
        """Restore the last state or write down a new run, and say what this run is."""
        config = self.config
        data = fingerprint(train=self.train_set, val=self.val_set)
        known = self.folder.read_facts() if resume else {}
        if known.get("data", data) != data:
            raise InputError(
                f"{self.config.data.root}: the data is not what this run began with; restore it, or start "
                "a new run with another --out"
            )
        if resume:
            self._restore(finished="result" in known)
            known.pop("result", None)  # that of fewer epochs
        self.folder.write_config(self.config)
        balance = balance_classes(config, self.train_set, self.dataset, self.learner)
        parameters = sum(parameter.numel() for parameter in self.learner.network.parameters())
        facts = {"environment": environment(), "data": data, "parameters": parameters, **balance}
        init = str(self.init_report) if self.init_report else None
        self.folder.write_facts({"init": init, **known, **facts})
        if not resume:
            self._save()  # from here on the run can be resumed, whatever happens
        network = self.config.network
        self.reporter.say(
            f"{network.name} ({parameters / 1e6:.2f} M parameters, {network.modality}), "
            f"{self.config.schedule.epochs} epochs of {self.order.batches_per_epoch} batches on "
            f"{self.learner.fabric.device}"
        )
        if init and not resume:
            self.reporter.say(init)

    def _restore(self, finished: bool) -> None:
        self.progress, fault = self.learner.restore(self.folder.state)
        if fault:
            self.reporter.say(f"{fault}; going on from the state before (epoch {self.progress.epoch} done)")
        # A run that died after its last epoch may still have to say what came of it.
        if finished and self.progress.epoch >= self.config.schedule.epochs:
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
            "lr": self.learner.rate(self._step_number() - 1),
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
        self.learner.model.train()
        self.order.set_epoch(progress.epoch, progress.batch)
        self.dataset.set_epoch(progress.epoch)
        for batch in loader:
            self.stop.check()
            if isinstance(batch, InputError):
                self._save()
                raise batch
            value = self.learner.step(batch, self._step_number())
            if not math.isfinite(value):
                raise InputError(self._diverged(batch))
            progress.batch += 1
            progress.loss_sum += value
            steps.advance(progress.epoch + 1, config.schedule.epochs, value, self.order.batch_size)
        self.stop.check()

    def _step_number(self) -> int:
        """The step that comes next, counted from 0 over the whole run."""
        return self.progress.epoch * self.order.batches_per_epoch + self.progress.batch

    def _loader(self) -> DataLoader[Item | InputError]:
        """One for the whole run: its workers live on from epoch to epoch."""
        workers = self.config.data.workers
        return DataLoader(
            ItemsOrFaults(self.dataset),
            batch_sampler=self.order,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collate_or_fault,
            pin_memory=self.learner.fabric.device.type == "cuda",
            worker_init_fn=leave_interrupts_to_parent,
        )

    def _diverged(self, batch: Item) -> str:
        names = ", ".join(self.train_set.pairs[int(index)].name for index in batch["index"])
        return (
            f"the loss is not finite in epoch {self.progress.epoch + 1} (pairs {names}); start again with a "
            f"lower --lr, --optimizer.clip 1 or --precision 32. The last good state is in {self.folder.state}"
        )

    def _validate(self, epoch: int) -> Row:
        """Score the validation split; keep the network if it is the best so far."""
        report, sheet = self.validator(self.learner.chosen, self.learner.fabric.device, self.stop.check)
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
        data, network = self.config.data, self.learner.chosen
        network.training_summary = {
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
        dropped = [camera for camera in ("rgb", "thermal") if getattr(self.config.augment, f"drop_{camera}")]
        if dropped:
            network.training_summary["dropped"] = dropped
        if self.learner.average is not None:
            network.training_summary["ema"] = self.config.ema.decay
        network.write(self.folder.best)

    def _save(self) -> None:
        self.learner.save(self.folder.state, self.progress)

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
