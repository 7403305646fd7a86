"""Training, from a configuration to a run folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from efnet.core.distributed import Group
from efnet.core.errors import InputError
from efnet.data.layouts import open_split
from efnet.data.verify import verify
from efnet.training.config import TrainConfig
from efnet.training.logs import Reporter
from efnet.training.parallel import make_fabric
from efnet.training.run_folder import Interrupted, RunFolder, RunSummary
from efnet.training.trainer import Trainer

__all__ = ["Interrupted", "RunSummary", "Trainer", "train"]


def train(
    config: TrainConfig, out: str | Path, resume: bool = False, reporter: Reporter | None = None
) -> RunSummary:
    """Train a network and leave a run folder that describes itself.

    Args:
        config: the recipe.
        out: folder of the run; new, unless `resume`.
        resume: go on from the folder's last state.
        reporter: told of the progress; by default stderr.

    Several processes, started by torchrun or srun or by the configuration, each call this; the main one
    writes the folder, and where the run ends early the others leave with `SystemExit`.

    Returns:
        the summary, also in the folder's `run.json`.

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
    fabric = make_fabric(config.device, config.precision, config.parallel)
    group = Group(fabric.device)
    if not group.is_main:
        reporter = Reporter(quiet=True)
    data = config.data
    train_set, val_set = (
        open_split(data.dataset, Path(data.root), name) for name in (data.train_split, data.val_split)
    )
    # The network first: a misspelt option shows before thousands of files are read.
    trainer = Trainer(config, folder, (train_set, val_set), reporter, fabric)
    for split in (train_set, val_set):
        reporter.say(f"checking {len(split)} pairs of {split.dataset} {split.split}")
        group.once(partial(verify, split))
    try:
        trainer.begin(resume)
        return trainer.run()
    except RuntimeError as error:
        if not group.lost(error):
            raise
        raise InputError(
            f"another of the {group.size} processes died or did not answer for {config.parallel.timeout} s "
            f"({_first_line(error)}); its own message says why, if it had time for one. Go on with: efnet "
            f"train --out {folder.path} --resume"
        ) from error


def _first_line(error: RuntimeError) -> str:
    return str(error).partition("\n")[0]
