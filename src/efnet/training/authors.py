"""Recipe `authors`: how the authors of a network trained it on MFNet, as far as their code states it.

Optimizer, learning rate, batch, epochs, augmentation and losses are those of their code. What it leaves open
or what differs here is in the comments. Networks whose training needs an optimizer, targets or settings that
their code does not publish, or that this package does not have, are refused.
"""

from __future__ import annotations

import dataclasses

from efnet.core.errors import InputError
from efnet.data.augment import AugmentConfig
from efnet.training.config import (
    DataConfig,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)

_BORDERS = AugmentConfig(
    scale=(1.0, 1.0), brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, flip=0.5, borders=0.1
)
"""RTFNet's: mirrored half the time, and each border inwards by up to a tenth. Images are resized bilinearly;
theirs depends on the version of Pillow."""

_SIX_SCALES = dataclasses.replace(
    _BORDERS, borders=0.0, scale=(0.5, 1.75), scale_steps=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
)
"""CMX's."""

_HALVES = LossConfig(cross_entropy=0.5, dice=0.5, dice_over="all", label_smoothing=0.1)
"""FEANet's and EAEFNet's."""


def _descent(
    name: str, lr: float, gamma: float, batch: int, epochs: int, loss: LossConfig | None = None
) -> TrainConfig:
    """Stochastic gradient descent with momentum 0.9 and decay 5e-4, the rate falling by epoch."""
    return TrainConfig(
        data=DataConfig(batch_size=batch),
        network=NetworkConfig(name=name, mix_pairs=name.startswith("eaefnet")),
        loss=loss or LossConfig(),
        augment=_BORDERS,
        optimizer=OptimizerConfig(kind="sgd", lr=lr, weight_decay=5e-4),
        schedule=ScheduleConfig(epochs=epochs, warmup_epochs=0.0, gamma=gamma),
        recipe="authors",
    )


def _cmx(name: str) -> TrainConfig:
    """CMX's configuration for NYU Depth v2: none is published for MFNet."""
    return TrainConfig(
        data=DataConfig(batch_size=8),
        network=NetworkConfig(name=name),
        augment=_SIX_SCALES,
        schedule=ScheduleConfig(epochs=500, warmup_epochs=10.0, power=0.9, from_start=True),
        recipe="authors",
    )


RECIPES = {
    "mfnet": _descent("mfnet", 0.01, 0.95, 8, 100),
    # Until convergence, stopped by hand: the epochs are ours, after which the rate is 0.6 % of the first.
    "rtfnet50": _descent("rtfnet50", 0.01, 0.95, 3, 100),
    "rtfnet152": _descent("rtfnet152", 0.01, 0.95, 2, 100),
    "feanet": _descent("feanet", 0.03, 0.95, 5, 100, _HALVES),
    "eaefnet": _descent("eaefnet", 0.02, 0.95, 3, 100, dataclasses.replace(_HALVES, heads=True)),
    "eaefnet50": _descent("eaefnet50", 0.02, 0.95, 3, 100, dataclasses.replace(_HALVES, heads=True)),
    # 0.98 twice an epoch, as released.
    "sfafma": _descent("sfafma", 0.02, 0.98**2, 4, 200),
    "cmx_b2": _cmx("cmx_b2"),
    "cmx_b4": _cmx("cmx_b4"),
}
"""The recipe of each network that has one."""


def authors_recipe(network: str | None) -> TrainConfig:
    """Return the recipe of a network's authors; raises InputError if there is none, with those there are."""
    if network not in RECIPES:
        named = "name the network with it" if network is None else f"there is none for {network}"
        raise InputError(f"`recipe` authors: {named}; the authors' recipe is known for {', '.join(RECIPES)}")
    return RECIPES[network]
