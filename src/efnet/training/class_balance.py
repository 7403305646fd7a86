"""What a run does with the frequencies of the classes: weights in the loss, odds of crops."""

from __future__ import annotations

from typing import Any

import torch

from efnet.data.dataset import PairDataset
from efnet.data.frequency import count_classes
from efnet.data.pairs import PairSet
from efnet.training.config import TrainConfig
from efnet.training.loss import Objective
from efnet.training.step import Learner


def balance_classes(
    config: TrainConfig, split: PairSet, dataset: PairDataset, learner: Learner
) -> dict[str, Any]:
    """Count the classes of the training split, if the recipe asks for it, and hand the counts on.

    Returns:
        pixels and weights of each class for the run's facts; nothing where the recipe asks for none.

    Raises:
        InputError: a label cannot be read.
    """
    rule = config.loss.class_weights
    if rule is None and not config.augment.rare_crop:
        return {}
    frequency, names = learner.group.once(lambda: count_classes(split)), split.classes.names
    facts: dict[str, Any] = {"class_pixels": dict(zip(names, frequency.pixels.tolist(), strict=True))}
    if config.augment.rare_crop:
        dataset.class_odds = frequency.odds()
    if rule is not None:
        weights = frequency.weights(rule)
        learner.objective = Objective(config.loss, split.unscored, torch.tensor(weights, dtype=torch.float32))
        facts["class_weights"] = dict(zip(names, weights.round(4).tolist(), strict=True))
    return facts
