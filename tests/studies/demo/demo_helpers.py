"""A report made of small drawn pairs and their real scores."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from efnet.data.layouts.public import MFNET_CLASSES
from efnet.data.pairs import Pair
from efnet.evaluation.metrics import Tally
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import build_report
from efnet.studies.demo_page import Epoch, GallerySample, RunReport, Step

PROTOCOL = get_protocol("native")


def make_sample(seed: int, height: int = 60, width: int = 80) -> GallerySample:
    """Boxes of a few classes; the prediction is the truth, three pixels to the right."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((height, width), np.uint8)
    for value in rng.choice(np.arange(1, 8), 4, replace=False):
        top, left = rng.integers(0, height - 20), rng.integers(0, width - 25)
        truth[top : top + rng.integers(8, 20), left : left + rng.integers(8, 25)] = value
    truth[0, :5] = 255
    condition = "night" if seed % 2 else "day"
    rgb = MFNET_CLASSES.colorize(truth) // (4 if condition == "night" else 1)
    thermal = (truth.astype(np.float32) / 255 * 20).clip(0, 1)
    prediction = np.where(truth == 255, 0, np.roll(truth, 3, axis=1)).astype(np.uint8)
    prediction[prediction == 255] = 0
    return GallerySample(
        f"{seed:05d}{condition[0].upper()}", rgb, thermal, prediction, truth, condition, "mIoU 50.0"
    )


def make_report(count: int = 4, **changes) -> RunReport:
    samples = [make_sample(seed) for seed in range(count)]
    tally = Tally(MFNET_CLASSES, PROTOCOL)
    for sample in samples:
        pair = Pair(sample.name, Path("x.png"), None, None, condition=sample.condition)
        tally.add(pair, sample.truth, sample.prediction)
    values = {
        "title": "A <small> network & its scenes",
        "summary": "Trained on drawn boxes.",
        "evaluation": build_report(tally, {"dataset": "mfnet", "split": "test"}),
        "classes": MFNET_CLASSES,
        "protocol": PROTOCOL,
        "epochs": [Epoch(n, 2 * math.exp(-n / 9), 0.6 - 0.5 * math.exp(-n / 12)) for n in range(1, 31)],
        "samples": samples,
        "steps": [
            Step("efnet data synthesize --out demo/data", 12.3),
            Step("efnet train --model efnet_tiny", 181),
        ],
        "facts": {"efnet": "0.1.0", "torch": "2.13.0", "machine": "2 cores"},
    }
    return RunReport(**(values | changes))
