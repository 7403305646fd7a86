"""Recipes by name: functions that return a whole configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from efnet.data.augment import AugmentConfig
from efnet.errors import InputError
from efnet.training.config import OptimizerConfig, ScheduleConfig, TrainConfig


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


RECIPES: dict[str, Callable[[], TrainConfig]] = {"paper": paper, "scratch": scratch}


def get_recipe(name: str) -> TrainConfig:
    """The recipe of that name.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
