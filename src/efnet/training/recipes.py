"""Recipes by name: functions that return a whole configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from efnet.core.errors import InputError
from efnet.data.augment import AugmentConfig
from efnet.training.config import OptimizerConfig, ScheduleConfig, TrainConfig
from efnet.training.ema import EmaConfig
from efnet.training.loss import LossConfig


def paper() -> TrainConfig:
    """Section III-B of the paper, its gaps filled as `efnet.training.config` says."""
    return TrainConfig()


def scratch() -> TrainConfig:
    """For fresh weights and little data: a higher rate with clipping, milder scales, a short warm-up."""
    return dataclasses.replace(
        TrainConfig(recipe="scratch"),
        optimizer=OptimizerConfig(lr=5e-4, weight_decay=0.02, clip=5.0),
        schedule=ScheduleConfig(epochs=60, warmup_epochs=2),
        augment=AugmentConfig(scale=(0.75, 1.5)),
    )


def strong() -> TrainConfig:
    """For a network that starts from weights: `paper`, clipped, with what `_strengthen` adds.

    What is new gets ten times the rate, as the decoder does in SegFormer's published configurations.
    """
    base = TrainConfig(recipe="strong", optimizer=OptimizerConfig(clip=5.0, fresh_lr=10.0))
    return _strengthen(base)


def strong_scratch() -> TrainConfig:
    """For fresh weights: `scratch` with what `_strengthen` adds."""
    return _strengthen(dataclasses.replace(scratch(), recipe="strong-scratch"))


def _strengthen(base: TrainConfig) -> TrainConfig:
    """A Dice term, which helped in the study (docs/training.md), and averaged weights, for long runs."""
    return dataclasses.replace(base, loss=LossConfig(dice=1.0), ema=EmaConfig(decay=0.999))


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "paper": paper,
    "scratch": scratch,
    "strong": strong,
    "strong-scratch": strong_scratch,
}


def get_recipe(name: str) -> TrainConfig:
    """The recipe of that name.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
