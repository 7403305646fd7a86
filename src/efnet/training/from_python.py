"""`efnet.train`: a training run from Python, the same as that of the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.items import PREFIX as ITEMS
from efnet.data.items import item_set
from efnet.training import launch
from efnet.training.config import TrainConfig
from efnet.training.logs import Reporter
from efnet.training.options import make_config, resumed_config, start_config
from efnet.training.run_folder import RunSummary
from efnet.training.stopping import Callbacks, EpochEnd, Validated


def train(
    config: TrainConfig | None = None,
    *,
    out: str | Path,
    resume: bool = False,
    recipe: str | None = None,
    dataset: Any = None,
    val_dataset: Any = None,
    classes: ClassSet | None = None,
    on_epoch_end: Callable[[EpochEnd], bool | None] | None = None,
    on_validation: Callable[[Validated], bool | None] | None = None,
    quiet: bool = False,
    **options: Any,
) -> RunSummary:
    """Train a network, as `efnet train` does with the same options, bit for bit.

    Args:
        config: the whole configuration; None: that of `recipe`. The options override it.
        out: folder of the run; new, unless `resume`.
        resume: go on with the run in `out`; the options may change what may change.
        recipe: `paper` (also for None), `scratch`, `strong`, `strong-scratch`, or with a `model` `authors`.
        dataset: a layout's name or the path of a dataset.yaml, with `root`; or any torch Dataset whose items
            are (rgb, thermal, label), see `efnet.data.items.item_set`.
        val_dataset: the data set that chooses the best checkpoint, beside a torch Dataset.
        classes: names and colours of the classes, beside a torch Dataset.
        on_epoch_end: called after every epoch, on rank 0; the run ends after it if it returns True.
        on_validation: called after every validation, likewise.
        quiet: show no progress.
        **options: the options of the command, with underscores (`batch_size=4`), or sections of the
            configuration (`loss={"dice": 1}`, `loss=LossConfig(dice=1)`).

    Returns:
        The run: `miou`, `checkpoint`, `history` and others. The same facts are in its folder.

    Raises:
        InputError: an unknown option, a wrong value, or bad data (all faults at once).
        Interrupted: a `KeyboardInterrupt` after Ctrl-C, with the state saved; go on with `resume`.
    """
    if not isinstance(config, TrainConfig | None):
        raise InputError(
            f"`config` is a {type(config).__name__}; give a TrainConfig, such as "
            "efnet.training.get_recipe('scratch'), or options by name"
        )
    splits = None
    if dataset is None or isinstance(dataset, str | Path):
        if val_dataset is not None or classes is not None:
            raise InputError("`val_dataset` and `classes` go with a `dataset` that is a torch Dataset")
        if dataset is not None:
            options["dataset"] = str(dataset)
    else:
        if val_dataset is None or classes is None:
            raise InputError("a `dataset` that is a torch Dataset needs `val_dataset` and `classes` too")
        splits = item_set(dataset, classes, "train"), item_set(val_dataset, classes, "val")
        options["dataset"] = splits[0].dataset
    if resume:
        if config is not None or recipe is not None:
            raise InputError("a resumed run has its configuration in its folder; leave `config` and `recipe`")
        config = resumed_config(out, options)
    elif config is not None:
        if recipe is not None:
            raise InputError("give a `config` or the name of a `recipe`, not both")
        config = make_config(config, options)
    else:
        config = start_config(recipe, options)
    if splits is None and config.data.dataset.startswith(ITEMS):
        raise InputError(
            f"the data of this run was the object {config.data.dataset.removeprefix(ITEMS)}; give it again "
            "as `dataset`, with `val_dataset` and `classes`"
        )
    callbacks = Callbacks(on_validation, on_epoch_end)
    return launch.train(config, out, resume, Reporter(quiet), callbacks, splits)
