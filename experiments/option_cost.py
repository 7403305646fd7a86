"""What the options of a recipe add to a training step: a Markdown table on stdout.

    python experiments/option_cost.py --model efnet_light --size 480x640 --batch-size 2 --threads 1

Medians over repetitions, forward and backward, on random images. Seconds of the processor's time and not the
clock's, so that other processes hardly matter; with one thread the two are alike on a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from efnet.cli.options import parse_size
from efnet.core.classes import ClassSet
from efnet.data.augment import AugmentConfig, augment
from efnet.data.sample import Sample
from efnet.models.registry import create_model
from efnet.training.config import EmaConfig
from efnet.training.loss import LossConfig, Objective
from efnet.training.optimizer import WeightAverage

LOSSES: dict[str, LossConfig] = {
    "cross-entropy alone": LossConfig(),
    "with OHEM": LossConfig(ohem=0.7),
    "with class weights": LossConfig(class_weights="enet"),
    "with label smoothing": LossConfig(label_smoothing=0.1),
    "with Dice": LossConfig(dice=1.0),
    "with Lovasz": LossConfig(lovasz=1.0),
}


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="efnet_light")
    parser.add_argument("--size", default="480x640")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--classes", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = measure(args.model, parse_size(args.size, 32), args.batch_size, args.classes, args.repeat)
    print(f"| {args.model}, {args.batch_size} x {args.size}, {args.threads} thread(s) | seconds |\n|---|---|")
    print("\n".join(f"| {name} | {seconds:.4f} |" for name, seconds in rows.items()))


def measure(name: str, size: tuple[int, int], batch: int, classes: int, repeat: int) -> dict[str, float]:
    """Seconds of the network, of each loss, of averaging, and of augmenting one pair."""
    model = create_model(name, classes=ClassSet.generic(classes)).train()
    rgb, thermal = torch.rand(batch, 3, *size), torch.rand(batch, 1, *size)
    # Blocks of one class each, as in label maps, most of them of class 0.
    coarse = torch.randint(-classes, classes, (batch, 1, 12, 16)).clamp_min(0).float()
    label = torch.nn.functional.interpolate(coarse, size).long()[:, 0]
    rows = {"network, forward and backward": seconds(lambda: model(rgb, thermal).mean().backward(), repeat)}
    logits = (model(rgb, thermal).detach() + torch.randn(batch, classes, *size)).requires_grad_()
    for title, config in LOSSES.items():
        weights = torch.rand(classes) + 0.5 if config.class_weights else None
        objective = Objective(config, (), weights)
        rows[title] = seconds(lambda objective=objective: objective(logits, label).backward(), repeat)  # type: ignore[misc]
    average = WeightAverage(model, EmaConfig(decay=0.999))
    rows["average of the weights"] = seconds(lambda: average.update(model, 1), repeat)
    rows |= measure_augmentation(rgb, thermal, label, repeat)
    return rows


def measure_augmentation(
    rgb: torch.Tensor, thermal: torch.Tensor, label: torch.Tensor, repeat: int
) -> dict[str, float]:
    """Seconds to augment one pair, as the paper's recipe does it and with what can be added."""
    colors = (255 * rgb[0]).permute(1, 2, 0).byte().contiguous().numpy()
    sample = Sample("random", colors, thermal[0, 0].numpy(), label[0].to(torch.uint8).numpy())
    added = AugmentConfig(rare_crop=1.0, thermal_gain=0.2, thermal_offset=0.1, drop_rgb=0.1, drop_thermal=0.1)

    def run(config: AugmentConfig) -> Callable[[], object]:
        return lambda: [
            augment(sample, config, tuple(rgb.shape[2:]), np.random.default_rng(seed))  # type: ignore[arg-type]
            for seed in range(10)
        ]

    plain, more = (seconds(run(config), repeat) / 10 for config in (AugmentConfig(), added))
    return {"augmenting a pair": plain, "augmenting a pair, all options": more}


def seconds(action: Callable[[], object], repeat: int) -> float:
    """Median processor time of an action, after one run to warm up."""
    action()
    times = []
    for _ in range(repeat):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
