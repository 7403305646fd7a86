"""A run, step by step and epoch by epoch.

Ctrl-C and SIGTERM, heard between steps: never in the middle of one, so that what is saved is whole.

Steps that changed nothing, because the loss or the gradient was not finite: counted, named, bounded.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from lightning_fabric import Fabric
from PIL import Image
from torch.utils.data import DataLoader

from efnet.core.distributed import Group
from efnet.core.errors import InputError
from efnet.data.dataset import Item, PairDataset
from efnet.data.pairs import PairSet
from efnet.models.base import InputSpec
from efnet.training.class_balance import balance_classes
from efnet.training.config import TrainConfig
from efnet.training.logs import Reporter, Row, RunLog, Steps, read_rows
from efnet.training.network import build_network
from efnet.training.parallel import make_fabric
from efnet.training.run_folder import (
    Interrupted,
    RunFolder,
    RunSummary,
    describe_processes,
    describe_stop,
    describe_training,
    environment,
    fingerprint,
)
from efnet.training.sampler import EpochSampler, make_loader, require_same_batch
from efnet.training.state import Progress
from efnet.training.step import Learner, Outcome
from efnet.training.validation import Validator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """While entered, the first signal only sets `requested`; a second Ctrl-C interrupts at once.

    Outside the main thread, where Python hands out no signals, it does nothing.

    Args:
        announce: told once that the run will stop.
    """

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.announce = announce
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._hear:  # not where the end of a group has changed it
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt("interrupted at once; the last saved state stays")
        if not self.requested:
            self.requested = True
            self.announce("stopping after this step (once more Ctrl-C: at once, without saving)")

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.requested:
            raise Stopped


class Stopped(Exception):  # noqa: N818  (not an error)
    """The run was asked to stop and stands between two steps."""


_SHOWN = 16


def count_step(progress: Progress, outcome: Outcome) -> None:
    """Enter a step into the progress of its run; the mean loss is over the steps that were made."""
    progress.batch += 1
    if outcome.fault is None:
        progress.loss_sum += outcome.loss
        progress.skipped_in_row = 0
        return
    progress.skipped += 1
    progress.skipped_in_epoch += 1
    progress.skipped_in_row += 1


def describe_skip(progress: Progress, outcome: Outcome, names: Sequence[str], bound: int) -> str:
    """A line for a step that was skipped."""
    return (
        f"epoch {progress.epoch + 1}, batch {progress.batch}: {outcome.fault}, step skipped "
        f"({progress.skipped_in_row} in succession, the run ends at {bound}; pairs {_listed(names)})"
    )


def too_many_skipped(
    progress: Progress, outcome: Outcome, names: Sequence[str], folder: RunFolder
) -> InputError:
    """The error that ends a run after too many in succession."""
    start = f"; --init {folder.path} starts from its best checkpoint" if folder.best.is_dir() else ""
    return InputError(
        f"{outcome.fault} in {progress.skipped_in_row} steps in succession, up to epoch {progress.epoch + 1} "
        f"(pairs {_listed(names)}). If other pairs fail too, start again with a lower --lr, --optimizer.clip "
        f"1 or --precision 32{start}. If it is always these, look at them. The last good state is in "
        f"{folder.state}"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


class Trainer:
    """A run: learner, data and logs, and the loop over them.

    Args:
        config: the recipe.
        folder: of the run.
        splits: to learn from, and to choose the best checkpoint on.
        reporter: told of the progress.
        fabric: what it runs on; None: what the recipe says.

    Attributes:
        group: the processes of the run; the main one writes the folder.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        splits: tuple[PairSet, PairSet],
        reporter: Reporter,
        fabric: Fabric | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.train_set, self.val_set = splits
        self.reporter = reporter
        self.progress = Progress()
        self.stop = StopSignal(reporter.say)
        fabric = fabric or make_fabric(config.device, config.precision, config.parallel)
        self.group = group = Group(fabric.device)
        torch.manual_seed(config.seed)
        data = config.data
        scale = data.thermal_scale or self.train_set.thermal_scale
        network, self.init_report = build_network(config.network, self.train_set.classes)
        network.input = InputSpec(data.size, scale)
        global_batch = data.batch_size * data.accumulate * group.size
        self.order = EpochSampler(len(self.train_set), global_batch, config.seed, group.rank, group.size)
        fresh = self.init_report.fresh if self.init_report else ()
        self.learner = Learner(
            config, network, fresh, self.train_set.unscored, self.order.batches_per_epoch, fabric
        )
        self.dataset = PairDataset(
            self.train_set, data.size, config.augment, scale, config.seed, cache=data.cache
        )
        self.validator = Validator(config, self.val_set, scale, group)
        self.log: RunLog | None = None

    def begin(self, resume: bool) -> None:
        """Restore the last state or write down a new run, and say what this run is."""
        config = self.config
        data = self.group.once(lambda: fingerprint(train=self.train_set, val=self.val_set))
        known = self.group.once(self.folder.read_facts) if resume else {}
        if known.get("data", data) != data:
            raise InputError(
                f"{self.config.data.root}: the data is not what this run began with; restore it, or start "
                "a new run with another --out"
            )
        if resume:
            require_same_batch(known, self.order.batch_size, self.group.size)
            self._restore(finished="result" in known)
            known.pop("result", None)  # that of fewer epochs
        self.group.once(lambda: self.folder.write_config(self.config))
        balance = balance_classes(config, self.train_set, self.dataset, self.learner)
        parameters = sum(parameter.numel() for parameter in self.learner.network.parameters())
        facts = {"environment": environment(), "data": data, "parameters": parameters, **balance}
        facts |= {"processes": self.group.size, "global_batch": self.order.batch_size}
        init = str(self.init_report) if self.init_report else None
        self.group.once(lambda: self.folder.write_facts({"init": init, **known, **facts}))
        if not resume:
            self._save()  # from here on the run can be resumed, whatever happens
        network = self.config.network
        self.reporter.say(
            f"{network.name} ({parameters / 1e6:.2f} M parameters, {network.modality}), "
            f"{self.config.schedule.epochs} epochs of {self.order.batches_per_epoch} batches on "
            f"{self.learner.fabric.device}{describe_processes(self.config, self.group.size)}"
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
        if self.group.is_main:
            self.log = RunLog(self.folder, read_rows(self.folder, self.progress.epoch))
        try:
            with self.stop:
                try:
                    self._epochs()
                except Stopped:
                    self._save()  # still deaf to a second SIGTERM, which torchrun adds to that of srun
                    told = describe_stop(self.config, self.progress.epoch + 1, self.folder.path)
                    self.group.end(Interrupted(told), 130)
        finally:
            if self.log is not None:
                self.log.close()
        return self._finish()

    def _epochs(self) -> None:
        epochs, batches = self.config.schedule.epochs, self.order.batches_per_epoch
        done = self.progress.epoch * batches + self.progress.batch
        with self.reporter.steps(epochs * batches, done) as steps:
            if self.config.data.cache:
                self.dataset.preload()
            loader = make_loader(self.dataset, self.order, self.config.data.workers, self.group.device)
            while self.progress.epoch < epochs:
                self._epoch(loader, steps)

    def _epoch(self, loader: DataLoader[Item | InputError], steps: Steps) -> None:
        """One pass over the training split, then validation, logs and checkpoints."""
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
        progress.seconds += time.monotonic() - started
        row["seconds"] = progress.seconds
        progress.epoch, progress.batch, progress.loss_sum = row["epoch"], 0, 0.0
        progress.skipped_in_epoch = 0
        self.group.once(lambda: self._write(row))
        self._save()
        score = f", val mIoU {100 * row['val_miou']:.2f}" if row.get("val_miou") is not None else ""
        skipped = f", {row['skipped']} steps skipped" if row["skipped"] else ""
        self.reporter.say(
            f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}{score}{skipped}, "
            f"{row['pairs_per_second']:.1f} pairs/s, {progress.seconds / 60:.1f} min"
        )
        self._agree()

    def _write(self, row: Row) -> None:
        if self.log is not None:
            self.log.add(row)

    def _agree(self, fault: InputError | None = None) -> None:
        """End in all processes what a signal or a fault in one of them ends."""
        stop, faults = self.group.sum([float(self.stop.requested), float(fault is not None)])
        if stop:
            raise Stopped
        if faults:
            self._save()
            self.group.raise_first(fault)

    def _train_batches(self, loader: DataLoader[Item | InputError], steps: Steps) -> None:
        """The batches that are left of an epoch."""
        progress, config = self.progress, self.config
        self.learner.model.train()
        self.order.set_epoch(progress.epoch, progress.batch)
        self.dataset.set_epoch(progress.epoch)
        for batch in loader:
            self._agree(batch if isinstance(batch, InputError) else None)
            assert not isinstance(batch, InputError)
            outcome = self.learner.step(batch, self._step_number())
            count_step(progress, outcome)
            if outcome.fault:
                self._skip(outcome)
            steps.advance(progress.epoch + 1, config.schedule.epochs, outcome.loss, self.order.batch_size)
        self._agree()

    def _step_number(self) -> int:
        """The step that comes next, counted from 0 over the whole run."""
        return self.progress.epoch * self.order.batches_per_epoch + self.progress.batch

    def _skip(self, outcome: Outcome) -> None:
        """Name the pairs of a step that changed nothing; end the run after too many."""
        names = [self.train_set.pairs[index].name for index in outcome.pairs]
        bound = min(self.config.optimizer.max_skipped, self.order.batches_per_epoch)
        if self.progress.skipped_in_row >= bound:
            self.group.end(too_many_skipped(self.progress, outcome, names, self.folder), 2)
        self.reporter.say(describe_skip(self.progress, outcome, names, bound))

    def _validate(self, epoch: int) -> Row:
        """Score the validation split; keep the network if it is the best so far."""
        network = self.learner.chosen()
        report, sheet = self.validator(network, self.learner.fabric.device, self._agree)
        self.group.once(lambda: self._show(sheet, epoch))
        miou = report["miou"]
        if miou is not None and miou > self.progress.best_miou:
            network.training_summary = describe_training(self.config, len(self.train_set), epoch, report)
            self.group.once(lambda: network.write(self.folder.best))
            # After the files: a run that dies between the two finds this epoch best once more.
            self.progress.best_miou, self.progress.best_epoch = miou, epoch
        row: Row = {"val_miou": miou, "val_macc": report["macc"], "val_iou": report["iou"]}
        return row | {f"val_{part}": report[part]["miou"] for part in ("day", "night") if part in report}

    def _show(self, sheet: Image.Image | None, epoch: int) -> None:
        if sheet is not None and self.log is not None:
            self.validator.write_sheet(sheet, self.folder.samples / f"epoch_{epoch:04d}.jpg")
            self.log.picture(sheet, epoch)

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
            self.folder.path,
            progress.epoch,
            progress.best_miou,
            progress.best_epoch,
            progress.seconds,
            progress.skipped,
        )
        result = {key: value for key, value in dataclasses.asdict(summary).items() if key != "out"}
        self.group.once(lambda: self.folder.write_facts({**self.folder.read_facts(), "result": result}))
        return summary
