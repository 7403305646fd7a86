"""Training, from a configuration to a run folder."""

from __future__ import annotations

from pathlib import Path

from efnet.data.layouts import open_split
from efnet.data.verify import verify
from efnet.training.config import TrainConfig
from efnet.training.logs import Reporter
from efnet.training.run_folder import RunFolder
from efnet.training.summary import Interrupted, RunSummary
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
