"""A training run, from its configuration to its folder: step by step and epoch by epoch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch.utils.data import DataLoader

from efnet.core.distributed import Group
from efnet.core.errors import InputError
from efnet.core.files import write_image
from efnet.data.dataset import Item, PairDataset
from efnet.data.pairs import PairSet
from efnet.data.unlabelled import SemiDataset
from efnet.evaluation.report import Report
from efnet.inference.resume import fingerprint as weights_fingerprint
from efnet.models.base import InputSpec
from efnet.training.authors import NOTES
from efnet.training.config import TrainConfig
from efnet.training.heads import EdgeDataset, Heads
from efnet.training.logs import Reporter, RunLog, Steps, read_rows
from efnet.training.parallel import start_fabric
from efnet.training.run_folder import (
    Interrupted,
    RunFolder,
    RunSummary,
    describe_training,
    environment,
    fingerprint,
)
from efnet.training.sampler import EpochSampler, make_loader
from efnet.training.state import Progress
from efnet.training.step import Learner, Outcome, balance_classes, build_network
from efnet.training.stopping import Callbacks, EpochEnd, Row, Stopped, StopSignal, Validated, early_stop
from efnet.training.teaching import open_teaching
from efnet.training.tracking import Trackers
from efnet.training.validation import Validator

_PAIRS_SHOWN = 16


class Trainer:
    """A run: learner, data and logs, and the loop over them."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        splits: tuple[PairSet, PairSet],  # to train on, and to choose the best checkpoint on
        reporter: Reporter,
        fabric: Fabric | None = None,  # what it runs on; None: as the recipe says
        callbacks: Callbacks | None = None,
    ) -> None:
        self.config = config
        self.callbacks = callbacks or Callbacks()
        self.facts: dict[str, Any] = {}  # for `run.json`, beside what is found here
        self.stopped: str | None = None  # why the run ends before its last epoch
        self.folder = folder
        self.train_set, self.val_set = splits
        self.reporter = reporter
        self.progress = Progress()
        self.stop = StopSignal(reporter.say)
        fabric = fabric or start_fabric(config)
        self.group = group = Group(fabric.device)  # the processes of the run; only rank 0 writes the folder
        torch.manual_seed(config.seed)
        data = config.data
        scale = data.thermal_scale or self.train_set.thermal_scale
        network, self.init_report = build_network(config.network, self.train_set.classes)
        network.input = InputSpec(data.size, scale)
        global_batch = data.pass_size * data.accumulate * group.size
        self.order = EpochSampler(len(self.train_set), global_batch, config.seed, group.rank, group.size)
        fresh = self.init_report.fresh if self.init_report else ()
        teaching, self.unlabelled = open_teaching(config, self.train_set, network)
        batches = self.order.batches_per_epoch
        self.learner = Learner(config, network, fresh, self.train_set.unscored, batches, fabric, teaching)
        settings: dict[str, Any] = {"size": data.size, "augment": config.augment, "thermal_scale": scale}
        settings |= {"seed": config.seed, "cache": data.cache}
        marks = config.loss.heads and Heads.need_edges(network.architecture)
        if marks and self.unlabelled is not None:
            raise InputError(
                f"loss.heads of {config.network.name} cannot be combined with `teach.unlabelled`"
            )
        if marks and config.augment.rare_crop:  # it would not find the pixels of a class at edges
            raise InputError(
                f"loss.heads of {config.network.name} cannot be combined with `augment.rare_crop`; "
                "set it to 0"
            )
        self.dataset = (
            (EdgeDataset if marks else PairDataset)(self.train_set, **settings)
            if self.unlabelled is None
            else SemiDataset(self.train_set, self.unlabelled, **settings)
        )
        self.validator = Validator(config, self.val_set, scale, group)
        self.log: RunLog | None = None

    def begin(self, resume: bool) -> None:
        """Restore the last state or start the folder of a new run, and describe the run."""
        config = self.config
        splits = {"train": self.train_set, "val": self.val_set}
        splits |= {} if self.unlabelled is None else {"unlabelled": self.unlabelled}
        data = self.group.once(lambda: fingerprint(**splits))
        teacher = None if self.learner.teaching is None else self.learner.teaching.own
        if teacher is not None:
            data["teacher"] = weights_fingerprint(teacher)
        known = self.group.once(self.folder.read_facts) if resume else {}
        if known.get("data", data) != data:
            raise InputError(
                f"{self.config.data.root}: the data or the teacher is not what this run began with; restore "
                "it, or start a new run with another `out`"
            )
        if resume:
            before, now = known.get("global_batch", self.order.batch_size), self.order.batch_size
            if before != now:
                raise InputError(
                    f"a step of this run has {before} pairs, but now {now}; choose `batch_size` and "
                    f"`accumulate` so that batch size x accumulate x processes ({self.group.size}) is "
                    f"{before}"
                )
            self.progress, fault = self.learner.restore(self.folder.state)
            if fault:
                done = self.progress.epoch
                self.reporter.say(f"{fault}; going on from the state before (epoch {done} done)")
            # A run that died after its last epoch still has to write its result.
            result = known.pop("result", None)
            if result and self.progress.epoch >= config.schedule.epochs:
                raise InputError(
                    f"{self.folder.path}: all {config.schedule.epochs} epochs are done; give a larger "
                    "`epochs` to go on"
                )
            stopped = early_stop(config.validation, self.progress)
            if result and stopped:
                raise InputError(
                    f"{self.folder.path}: ended early ({stopped}); give a larger `early_stopping` to go on"
                )
        self.group.once(lambda: self.folder.write_config(config))
        balance = balance_classes(config, self.train_set, self.dataset, self.learner)
        parameters = sum(parameter.numel() for parameter in self.learner.network.parameters())
        facts = {"environment": environment(), "data": data, "parameters": parameters, **balance}
        facts |= {**self.facts, "processes": self.group.size, "global_batch": self.order.batch_size}
        init = str(self.init_report) if self.init_report else None
        note = NOTES.get(config.network.name) if config.recipe == "authors" else None
        facts |= {} if note is None else {"recipe_note": note}
        self.group.once(lambda: self.folder.write_facts({"init": init, **known, **facts}))
        if not resume:
            self._save()  # from here on the run can be resumed, whatever happens
        shared, count = "", self.group.size
        if count > 1:
            size, passes = config.data.pass_size, config.data.accumulate
            shared = (
                f", {count} processes ({config.parallel.strategy}); a step has {count * passes * size} "
                f"pairs: {count} processes x {passes} passes x {size}"
            )
        self.reporter.say(
            f"{config.network.name} ({parameters / 1e6:.2f} M parameters, {config.network.modality}), "
            f"{config.schedule.epochs} epochs of {self.order.batches_per_epoch} batches on "
            f"{self.learner.fabric.device}{shared}"
        )
        if init and not resume:
            self.reporter.say(init)
        if note and not resume:
            self.reporter.say(f"recipe authors of {config.network.name}: {note}")

    def run(self) -> RunSummary:
        """Run the epochs that are left."""
        self.group.once(self._open_log)
        done = False
        try:
            with self.stop:
                try:
                    total = self.config.schedule.epochs * self.order.batches_per_epoch
                    with self.reporter.steps(total, self._step_number()) as steps:
                        if self.config.data.cache:
                            self.dataset.preload()
                        workers = self.config.data.workers
                        loader = make_loader(self.dataset, self.order, workers, self.group.device)
                        self.stopped = early_stop(self.config.validation, self.progress)
                        while self.progress.epoch < self.config.schedule.epochs and not self.stopped:
                            self._epoch(loader, steps)
                        done = True
                except Stopped:
                    self._save()  # a second SIGTERM, which torchrun adds to srun's, is still ignored
                    place = f"epoch {self.progress.epoch + 1} of {self.config.schedule.epochs}"
                    message = f"stopped in {place}; everything is saved. Go on with `resume`"
                    self.group.end(Interrupted(message), 130)
        finally:
            if self.log is not None:
                self.log.trackers.finish(self.folder.best, done and self.folder.best.is_dir())
        progress = self.progress
        if self.stopped and progress.epoch < self.config.schedule.epochs:
            self.reporter.say(f"ended early: {self.stopped}")
        if progress.best_epoch == 0:
            raise InputError(
                f"{self.config.data.root}: no class of split {self.config.data.val_split} counts under its "
                "protocol, so no checkpoint could be chosen; give another `val_split`"
            )
        best = progress.best_miou, progress.best_epoch
        stopped = self.stopped if progress.epoch < self.config.schedule.epochs else None
        spent = progress.seconds, progress.skipped
        summary = RunSummary(self.folder.path, progress.epoch, *best, *spent, stopped)
        result = {key: value for key, value in dataclasses.asdict(summary).items() if key != "out"}
        self.group.once(lambda: self.folder.write_facts({**self.folder.read_facts(), "result": result}))
        return summary

    def _open_log(self) -> None:
        trackers = Trackers(self.config, self.folder, self.reporter.say)
        self.log = RunLog(self.folder, read_rows(self.folder, self.progress.epoch), trackers)

    def _epoch(self, loader: DataLoader[Item | InputError], steps: Steps) -> None:
        """Pass over the training split once, then validate, log and save."""
        progress, epochs = self.progress, self.config.schedule.epochs
        started, first = time.monotonic(), progress.batch
        self._train_batches(loader, steps)
        trained = time.monotonic() - started
        pairs = (progress.batch - first) * self.order.batch_size
        row: Row = {
            "epoch": progress.epoch + 1,
            "loss": progress.loss_sum / max(1, progress.batch - progress.skipped_in_epoch),
            "lr": self.learner.rate(self._step_number() - 1),
            "pairs_per_second": pairs / trained,
            "skipped": progress.skipped_in_epoch,
        }
        if row["epoch"] % self.config.validation.every == 0 or row["epoch"] == epochs:
            row |= self._validate(row["epoch"])
        self._call_epoch_end(row)
        progress.seconds += time.monotonic() - started
        row["seconds"] = progress.seconds
        progress.epoch, progress.batch, progress.loss_sum = row["epoch"], 0, 0.0
        progress.skipped_in_epoch = 0
        self.group.once(lambda: self._write(row))
        self._save()
        self.stopped = early_stop(self.config.validation, progress) or self.stopped
        score = f", val mIoU {100 * row['val_miou']:.2f}" if row.get("val_miou") is not None else ""
        skipped = f", {row['skipped']} steps skipped" if row["skipped"] else ""
        self.reporter.say(
            f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}{score}{skipped}, "
            f"{row['pairs_per_second']:.1f} pairs/s, {progress.seconds / 60:.1f} min"
        )
        self._agree()

    def _call_epoch_end(self, row: Row) -> None:
        """Call the callback; where it ends the run, that epoch is validated as the last one always is."""
        callback = self.callbacks.on_epoch_end
        if callback is not None:
            end = EpochEnd(row["epoch"], self.config.schedule.epochs, dict(row), self.folder.path)
            self._call("on_epoch_end", lambda: callback(end))
        if self.stopped and "val_miou" not in row:
            row |= self._validate(row["epoch"])

    def _call(self, name: str, callback: Callable[[], bool | None]) -> None:
        """Call a callback on rank 0; if it returns True the run ends after this epoch, in all processes."""
        stops, error = False, None
        if self.group.is_main:
            try:
                answer: object = callback()
                # Not any truthy value: a callback may return something else, such as a figure.
                stops = isinstance(answer, bool | np.bool_) and bool(answer)
            except Exception as caught:
                error = caught
        asked, failed = self.group.sum([float(stops), float(error is not None)])
        if failed:
            self._save()
            self.group.end(error or RuntimeError(name), 1)
        if asked:
            self.stopped = f"{name} asked for it in epoch {self.progress.epoch + 1}"

    def _write(self, row: Row) -> None:
        if self.log is not None:
            self.log.add(row)

    def _agree(self, fault: InputError | None = None) -> None:
        """End the run in all processes if one of them received a signal or met a fault."""
        stop, faults = self.group.sum([float(self.stop.requested), float(fault is not None)])
        if stop:
            raise Stopped
        if faults:
            self._save()
            self.group.raise_first(fault)

    def _train_batches(self, loader: DataLoader[Item | InputError], steps: Steps) -> None:
        """Train on the batches that are left of an epoch."""
        progress, config = self.progress, self.config
        self.learner.model.train()
        self.order.set_epoch(progress.epoch, progress.batch)
        self.dataset.set_epoch(progress.epoch)
        for batch in loader:
            self._agree(batch if isinstance(batch, InputError) else None)
            assert not isinstance(batch, InputError)
            outcome = self.learner.step(batch, self._step_number())
            self._count(outcome)
            steps.advance(progress.epoch + 1, config.schedule.epochs, outcome.loss, self.order.batch_size)
        self._agree()

    def _step_number(self) -> int:
        """The next step, counted from 0 over the whole run."""
        return self.progress.epoch * self.order.batches_per_epoch + self.progress.batch

    def _count(self, outcome: Outcome) -> None:
        """Count a step; log a skipped one with its pairs, and end the run after too many in succession."""
        progress, folder = self.progress, self.folder
        progress.batch += 1
        if outcome.fault is None:
            progress.loss_sum += outcome.loss  # the mean is over the steps that were made
            progress.skipped_in_row = 0
            return
        progress.skipped += 1
        progress.skipped_in_epoch += 1
        progress.skipped_in_row += 1
        pairs = (*self.train_set.pairs, *(self.unlabelled.pairs if self.unlabelled else ()))
        names = [pairs[index].name for index in outcome.pairs]
        more = f" and {len(names) - _PAIRS_SHOWN} more" if len(names) > _PAIRS_SHOWN else ""
        shown = f"pairs {', '.join(names[:_PAIRS_SHOWN])}{more}"
        bound = min(self.config.optimizer.max_skipped, self.order.batches_per_epoch)
        if progress.skipped_in_row >= bound:
            start = f"; `init` {folder.path} starts from its best checkpoint" if folder.best.is_dir() else ""
            error = InputError(
                f"{outcome.fault} in {progress.skipped_in_row} steps in succession, up to epoch "
                f"{progress.epoch + 1} ({shown}). If other pairs fail too, start again with a lower `lr`, "
                f"`optimizer.clip` 1 or `precision` 32{start}. If it is always these, look at them. The last "
                f"good state is in {folder.state}"
            )
            self.group.end(error, 2)
        self.reporter.say(
            f"epoch {progress.epoch + 1}, batch {progress.batch}: {outcome.fault}, step skipped "
            f"({progress.skipped_in_row} in succession, the run ends at {bound}; {shown})"
        )

    def _validate(self, epoch: int) -> Row:
        """Score the validation split; keep the network if it is the best so far."""
        network = self.learner.chosen()
        report, sheet = self.validator(network, self.learner.fabric.device, self._agree)
        self.group.once(lambda: self._show(sheet, epoch))
        miou = report["miou"]
        if miou is not None and miou > self.progress.best_miou:
            network.training_summary = describe_training(self.config, len(self.train_set), epoch, report)
            self.group.once(lambda: network.write(self.folder.best))
            # After the files: a run that dies between the two will find this epoch best again.
            self.progress.best_miou, self.progress.best_epoch, self.progress.stale = miou, epoch, 0
        elif epoch > self.progress.validated:  # else it is repeated after an interruption
            self.progress.stale += 1
        self.progress.validated = epoch
        self._call_validated(report, epoch)
        row: Row = {"val_miou": miou, "val_macc": report["macc"], "val_iou": report["iou"]}
        return row | {f"val_{part}": report[part]["miou"] for part in ("day", "night") if part in report}

    def _call_validated(self, report: Report, epoch: int) -> None:
        callback = self.callbacks.on_validation
        if callback is not None:
            is_best = self.progress.best_epoch == epoch
            validated = Validated(epoch, report["miou"], report, is_best, self.folder.best)
            self._call("on_validation", lambda: callback(validated))

    def _show(self, sheet: Image.Image | None, epoch: int) -> None:
        if sheet is not None and self.log is not None:
            path = self.folder.samples / f"epoch_{epoch:04d}.jpg"
            write_image(path, sheet)
            self.log.trackers.picture(sheet, path, epoch)

    def _save(self) -> None:
        self.learner.save(self.folder.state, self.progress)
