"""Trackers: TensorBoard, CSV, Weights & Biases and MLflow, through Lightning's loggers."""

from __future__ import annotations

import contextlib
import importlib
import os
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from efnet.core.errors import InputError
from efnet.training.config import TrackConfig, Tracker, TrainConfig, flatten, to_values
from efnet.training.run_folder import RunFolder

_EXTRAS = {"tensorboard": "tensorboard", "csv": None, "wandb": "track", "mlflow": "track"}
_PACKAGES = {
    "tensorboard": ("tensorboard",),
    "csv": (),
    "wandb": ("pytorch_lightning", "wandb"),
    "mlflow": ("pytorch_lightning", "mlflow"),
}
"""Packages that a tracker needs beyond our own dependencies; `_EXTRAS` names the extra that brings them."""


def check_trackers(config: TrackConfig) -> None:
    """Raise InputError unless the packages of all chosen trackers are installed."""
    for name in config.trackers or ():
        for package in _PACKAGES[name]:
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise InputError(
                    f"`track.trackers` {name} needs {package} ({error}): pip install 'efnet[{_EXTRAS[name]}]'"
                ) from error


class Trackers:
    """The chosen trackers of one run, on rank 0.

    Identifiers of the run there are kept in `run.json`, so that a resumed run continues the same one. A
    tracker that fails later (a server that went away) is reported by `say` and left; the training goes on.

    Raises:
        InputError: a package is not installed, or a tracker cannot be started.
    """

    def __init__(self, config: TrainConfig, folder: RunFolder, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._loggers: dict[str, Any] = {}
        check_trackers(config.track)
        facts = folder.read_facts()
        known = dict(facts.get("trackers", {}))
        chosen = _usual() if config.track.trackers is None else config.track.trackers
        for name in chosen:
            try:
                logger, identifier = _START[name](config.track, folder, known.get(name))
                if name != "csv" and not (name == "mlflow" and name in known):  # neither can change values
                    logger.log_hyperparams(flatten(to_values(config)))
                self._loggers[name] = logger
            except Exception as error:  # each service raises its own kinds
                raise InputError(
                    f"`track.trackers` {name}: cannot be started ({error}); correct its settings, or leave "
                    "it out"
                ) from error
            if identifier is not None:
                known[name] = identifier
        if known != facts.get("trackers", {}):
            folder.write_facts({**facts, "trackers": known})

    def log(self, figures: Mapping[str, float], epoch: int, only: Tracker | None = None) -> None:
        """Log the figures of an epoch in every tracker, or in one."""

        def add(name: str, logger: Any) -> None:
            if only in (None, name):
                logger.log_metrics(dict(figures), step=epoch)

        self._each(add)

    def picture(self, sheet: Image.Image, path: Path, epoch: int) -> None:
        """Log the picture sheet of a validation, which is also the file `path`."""

        def add(name: str, logger: Any) -> None:
            if name == "tensorboard":
                logger.experiment.add_image("validation", np.asarray(sheet), epoch, dataformats="HWC")
            elif name == "wandb":
                logger.log_image("validation", [sheet], step=epoch)
            elif name == "mlflow":
                logger.experiment.log_artifact(logger.run_id, str(path), "samples")

        self._each(add)

    def finish(self, checkpoint: Path, done: bool) -> None:
        """Store the best checkpoint of a run that is `done` as an artefact, and end the trackers."""

        def end(name: str, logger: Any) -> None:
            if done and name == "wandb":
                import wandb

                artifact = wandb.Artifact(f"checkpoint-{logger.experiment.id}", type="model")
                artifact.add_dir(str(checkpoint))
                logger.experiment.log_artifact(artifact)
            elif done and name == "mlflow":
                logger.experiment.log_artifacts(logger.run_id, str(checkpoint), "checkpoint")
            # An interrupted run is continued under the same identifier.
            if name == "mlflow":
                logger.experiment.set_terminated(logger.run_id, "FINISHED" if done else "KILLED")
            elif name == "wandb":
                logger.experiment.finish(exit_code=0 if done else 1)
            else:
                logger.finalize("success" if done else "aborted")

        self._each(end)

    def _each(self, action: Callable[[str, Any], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                action(name, logger)
            except Exception as error:  # a tracker must not cost the run
                self._say(f"{name}: {type(error).__name__}: {error}; the run goes on without this tracker")
                del self._loggers[name]


def _usual() -> tuple[str, ...]:
    """TensorBoard, if it is installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorboard")
        return ("tensorboard",)
    return ()


Started = tuple[Any, Any]  # logger, and the identifier of the run there (None: it has none)


def _start_tensorboard(config: TrackConfig, folder: RunFolder, known: Any) -> Started:
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    name = folder.tensorboard.name
    return TensorBoardLogger(folder.path, name=name, version="", default_hp_metric=False), None


def _start_csv(config: TrackConfig, folder: RunFolder, known: Any) -> Started:
    from lightning_fabric.loggers.csv_logs import CSVLogger

    warnings.filterwarnings("ignore", "Experiment logs directory")  # a resumed run logs its rows again
    return CSVLogger(folder.path, name="csv", version="", flush_logs_every_n_steps=1), None


def _start_wandb(config: TrackConfig, folder: RunFolder, known: Any) -> Started:
    from pytorch_lightning.loggers import WandbLogger

    identifier = known or uuid.uuid4().hex[:12]
    folder.path.mkdir(parents=True, exist_ok=True)
    logger = WandbLogger(
        name=config.name or folder.path.name,
        project=config.project,
        save_dir=folder.path,
        id=identifier,
        resume="allow",
    )
    return logger, logger.experiment.id


def _start_mlflow(config: TrackConfig, folder: RunFolder, known: Any) -> Started:
    from pytorch_lightning.loggers import MLFlowLogger

    store = f"sqlite:///{folder.path.absolute() / 'mlflow.db'}"
    own = config.address is None and "MLFLOW_TRACKING_URI" not in os.environ
    logger = MLFlowLogger(
        experiment_name=config.project,
        run_name=config.name or folder.path.name,
        tracking_uri=config.address or os.environ.get("MLFLOW_TRACKING_URI") or store,
        run_id=known,
        # A store in the run's folder keeps its artefacts there too, wherever the command runs.
        artifact_location=f"file://{folder.path.absolute() / 'mlflow'}" if own else None,
    )
    if known:
        logger.experiment.set_terminated(known, "RUNNING")
    return logger, logger.run_id


_START: dict[str, Callable[[TrackConfig, RunFolder, Any], Started]] = {
    "tensorboard": _start_tensorboard,
    "csv": _start_csv,
    "wandb": _start_wandb,
    "mlflow": _start_mlflow,
}
