"""Steps that changed nothing, because the loss or the gradient was not finite: counted, named, bounded."""

from __future__ import annotations

from collections.abc import Sequence

from efnet.errors import InputError
from efnet.training.learner import Outcome
from efnet.training.run_folder import RunFolder
from efnet.training.state import Progress

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
