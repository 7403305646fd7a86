"""A finished run on the test split: what `efnet evaluate` would report, and which data it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from efnet.data.layouts import open_split
from efnet.data.verify import verify
from efnet.devices import pick_device
from efnet.evaluation.evaluate import check_classes, evaluate
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import Report, build_report
from efnet.models.base import SegmentationModel
from efnet.models.checkpoint import load_checkpoint
from efnet.training.config import TrainConfig
from efnet.training.run_folder import RunFolder, fingerprint


def evaluate_run(config: TrainConfig, folder: RunFolder, progress: Callable[[int, int], None]) -> Report:
    """Score the checkpoint that a run chose on its validation split.

    Args:
        config: of the run; its protocol, else the data set's default.
        folder: of the run.
        progress: told the number of pairs done and of all.

    Returns:
        the report of `build_report`, as `data` the fingerprint of the test split, and as `training` how the
        checkpoint came about.

    Raises:
        InputError: there is no such split, or a file of it is wrong.
    """
    pairs = open_split(config.data.dataset, Path(config.data.root), "test")
    verify(pairs)
    model = load_checkpoint(folder.path)
    check_classes(model.classes, pairs)
    device = pick_device(config.device)
    tally = evaluate(
        model.to(device),
        replace(pairs, thermal_scale=model.input.thermal_scale),
        get_protocol(config.validation.protocol or pairs.protocol),
        device=device,
        precision=config.precision,
        workers=config.data.workers,
        input_size=model.input.size,
        progress=progress,
    )
    report = build_report(tally, _circumstances(config, folder, model))
    return {**report, "data": fingerprint(test=pairs), "training": _training(config)}


def _training(config: TrainConfig) -> dict[str, Any]:
    """What of the configuration a report tells."""
    return {
        "recipe": config.recipe,
        "epochs": config.schedule.epochs,
        "batch_size": config.data.batch_size * config.data.accumulate,
        "init": config.network.init,
        "seed": config.seed,
    }


def _circumstances(config: TrainConfig, folder: RunFolder, model: SegmentationModel) -> dict[str, Any]:
    """What decides the figure beside the protocol; the keys are those of `efnet evaluate`."""
    return {
        "dataset": config.data.dataset,
        "split": "test",
        "checkpoint": str(folder.path),
        "model": model.name,
        "modality": model.modality,
        "selected_on": model.training_summary.get("selected_on"),
        "input_size": list(model.input.size) if model.input.size else None,
        "tta": None,
        "precision": config.precision,
    }
