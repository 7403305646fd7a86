"""From the files of a run, an evaluation and a prediction folder to the report's plain data."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import efnet
from efnet.data.images import read_label
from efnet.data.layouts import open_split
from efnet.data.pairs import PairSet
from efnet.data.sample import read_sample
from efnet.demo.report import Epoch, GallerySample, RunReport, Step, duration
from efnet.evaluation.protocols import Protocol, get_protocol
from efnet.evaluation.score import score_predictions
from efnet.evaluation.sheet import choose_rows
from efnet.models.checkpoint import load_checkpoint
from efnet.training.run_folder import RunFolder


def collect_report(
    *,
    run: Path,
    data: Path,
    evaluation: Mapping[str, Any],
    predictions: Path,
    steps: Sequence[Step] = (),
    seconds: float | None = None,
    pictures: int = 6,
    dataset: str = "mfnet",
    split: str = "test",
) -> RunReport:
    """Gather what the page shows.

    Args:
        run: folder of the training run.
        data: root of the data set.
        evaluation: what `efnet evaluate --json` wrote for the split.
        predictions: index maps of the split.
        steps: commands with their times.
        seconds: all of them together.
        pictures: pairs in the gallery, from well to badly segmented.
        dataset: layout of `data`.
        split: of the evaluation and the predictions.

    Raises:
        InputError: a file is missing or does not fit.
    """
    model = load_checkpoint(run)
    pairset = open_split(dataset, data, split)
    protocol = get_protocol(evaluation["protocol"]["name"])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    epochs = read_epochs(RunFolder(run).metrics_jsonl)
    trained = model.training_summary
    took = f" in {duration(seconds)} altogether" if seconds is not None else ""
    facts = {
        "network": f"{model.name}, {parameters / 1e6:.2f} M parameters",
        "checkpoint": f"epoch {trained['epoch']} of {trained['epochs']}, chosen on {trained['selected_on']}",
        "scenes": f"{trained['train_pairs']} to train on, {len(pairset)} to test on",
        "efnet": efnet.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {usable_cores()} cores, {device_name()}",
    }
    summary = (
        f"{model.name} ({parameters / 1e6:.2f} M parameters), trained from scratch on "
        f"{trained['train_pairs']} generated pairs, day and night, and tested on {len(pairset)} pairs that "
        f"it never saw{took}."
    )
    return RunReport(
        title="EFNet demo: RGB-thermal street scenes, segmented",
        summary=summary,
        evaluation=evaluation,
        classes=pairset.classes,
        protocol=protocol,
        epochs=epochs,
        samples=gallery(predictions, pairset, protocol, pictures),
        steps=steps,
        facts=facts,
    )


def read_epochs(metrics: Path) -> list[Epoch]:
    """The training curve from a run's `metrics.jsonl`."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return [Epoch(row["epoch"], row["loss"], row.get("val_miou")) for row in rows]


def gallery(predictions: Path, pairset: PairSet, protocol: Protocol, count: int) -> list[GallerySample]:
    """Pairs that show the range of a split: by condition, from the best to the worst.

    Args:
        predictions: folder of index maps named after the pairs.
        pairset: the split.
        protocol: by which a pair counts as good or bad.
        count: of pairs.
    """
    tally, _ = score_predictions(predictions, pairset, protocol)
    miou = tally.pair_miou()
    samples = []
    for place in choose_rows(tally, count):
        pair = tally.pairs[place].pair
        sample = read_sample(pair, pairset.classes, pairset.thermal_scale)
        assert sample.label is not None
        samples.append(
            GallerySample(
                name=pair.name,
                rgb=sample.rgb,
                thermal=sample.thermal,
                prediction=read_label(predictions / f"{pair.name}.png", pairset.classes),
                truth=sample.label,
                condition=pair.condition,
                note=f"mIoU of this pair {100 * miou[place]:.1f}",
            )
        )
    return samples


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name() -> str:
    """The GPU that `--device auto` takes, or that there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
