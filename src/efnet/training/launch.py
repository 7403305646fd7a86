"""A run from its configuration: open and check the data, then train."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from efnet.core.distributed import Group, world_size
from efnet.core.errors import InputError
from efnet.data.layouts import open_split
from efnet.data.pairs import PairSet
from efnet.data.verify import verify
from efnet.training.batch_size import settle_batch_size
from efnet.training.config import TrainConfig
from efnet.training.logs import Reporter
from efnet.training.parallel import start_fabric
from efnet.training.run_folder import RunFolder, RunSummary
from efnet.training.state import first_line
from efnet.training.stopping import Callbacks
from efnet.training.tracking import check_trackers
from efnet.training.trainer import Trainer

Splits = tuple[PairSet, PairSet]
"""The split to train on, and the one that chooses the best checkpoint."""


def open_splits(config: TrainConfig) -> Splits:
    """Open the two splits that a configuration names, with its thermal scale if it gives one."""
    data, root = config.data, Path(config.data.root)
    train, val = (open_split(data.dataset, root, split) for split in (data.train_split, data.val_split))
    if data.thermal_scale is None:
        return train, val
    return replace(train, thermal_scale=data.thermal_scale), replace(val, thermal_scale=data.thermal_scale)


def prepare_trainer(config: TrainConfig, reporter: Reporter) -> Trainer:
    """Return the trainer of a short trial that writes nothing, its data checked.

    Raises InputError: several processes, or errors as of `train`.
    """
    if config.parallel.devices * config.parallel.nodes > 1 or world_size() > 1:
        raise InputError("this is measured in one process; leave `parallel.devices` and torchrun out")
    fabric, splits = start_fabric(config), open_splits(config)
    config, _ = settle_batch_size(config, splits, fabric, reporter)
    trainer = Trainer(config, RunFolder("."), splits, reporter, fabric)
    verify(splits[0])
    if trainer.unlabelled is not None:
        verify(trainer.unlabelled, require_labels=False)
    return trainer


def train(
    config: TrainConfig,
    out: str | Path,
    resume: bool = False,
    reporter: Reporter | None = None,
    callbacks: Callbacks | None = None,
    splits: Splits | None = None,
) -> RunSummary:
    """Train a network and leave a run folder that describes itself.

    Args:
        config: the recipe.
        out: folder of the run; new, unless `resume`.
        resume: go on from the folder's last state.
        reporter: shows the progress; by default on stderr.
        callbacks: called after validations and epochs.
        splits: the data; None: what the configuration names.

    Several processes, started by torchrun or srun or by the configuration, each call this. Only rank 0 writes
    files and logs; where the run ends early the others exit with `SystemExit`.

    Returns:
        The summary, also in the folder's `run.json`.

    Raises:
        InputError: bad configuration or data (all faults at once), nothing to resume, or another process of
            the run died.
        Interrupted: after Ctrl-C or SIGTERM, the state saved.
    """
    folder = RunFolder(out)
    reporter = reporter or Reporter()
    if resume:
        folder.require_resumable()
    else:
        folder.refuse_existing()
    check_trackers(config.track)
    fabric = start_fabric(config)
    group = Group(fabric.device)
    if not group.is_main:
        reporter = Reporter(quiet=True)
    splits = splits or open_splits(config)
    config, found = settle_batch_size(config, splits, fabric, reporter)
    # The network first: a misspelt option shows before thousands of files are read.
    trainer = Trainer(config, folder, splits, reporter, fabric, callbacks)
    trainer.facts |= found
    for split in splits:
        reporter.say(f"checking {len(split)} pairs of {split.dataset} {split.split}")
        group.once(partial(verify, split))
    if trainer.unlabelled is not None:
        reporter.say(f"checking {len(trainer.unlabelled)} pairs without masks")
        group.once(partial(verify, trainer.unlabelled, require_labels=False))
    try:
        trainer.begin(resume)
        return trainer.run()
    except RuntimeError as error:
        if not group.lost(error):
            raise
        raise InputError(
            f"another of the {group.size} processes died or did not answer for {config.parallel.timeout} s "
            f"({first_line(error)}); its own message says why, if it had time for one. Go on with `resume` "
            f"and `out` {folder.path}"
        ) from error
