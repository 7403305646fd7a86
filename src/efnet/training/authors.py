"""Recipe `authors`: how the authors of a network trained it on MFNet, as far as their code states it.

Optimizer, learning rate, batch, epochs, augmentation and losses are those of their code. `NOTES` state what
it leaves open and what differs here; a run logs them. Networks whose authors do not state their optimizer or
losses are refused with the reason.
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


_SISTERS = AugmentConfig(scale=(0.5, 2.0), brightness=0.5, contrast=0.5, saturation=0.5, hue=0.0)
"""LASNet's, SGFNet's, EGFNet's, GMNet's and MDRNet's, whose authors share it."""

_ENET = (1.5105, 16.6591, 29.4238, 34.6315, 40.0845, 41.4357, 47.9794, 45.3725, 44.9000)
"""Class weights in the code of the same authors, for the nine classes of MFNet."""


def _ranger(name: str, batch: int, epochs: int, lovasz: float = 0.0) -> TrainConfig:
    """Ranger, the rate falling by epoch, and losses of the further outputs."""
    return TrainConfig(
        data=DataConfig(batch_size=batch),
        network=NetworkConfig(name=name),
        loss=LossConfig(heads=True, lovasz=lovasz, class_weights=_ENET),
        augment=_SISTERS,
        optimizer=OptimizerConfig(kind="ranger", lr=5e-5, weight_decay=5e-4, betas=(0.95, 0.999)),
        schedule=ScheduleConfig(epochs=epochs, warmup_epochs=0.0, by_epoch=True),
        recipe="authors",
    )


def _cmnext(name: str) -> TrainConfig:
    """CMNeXt's configuration of B4 for MFNet, with the steps of four GPUs."""
    return TrainConfig(
        data=DataConfig(batch_size=4, accumulate=4),
        network=NetworkConfig(name=name),
        augment=dataclasses.replace(_SISTERS, brightness=0.0, contrast=0.0, saturation=0.0),
        schedule=ScheduleConfig(epochs=500, warmup_epochs=10.0, warmup_from=0.1),
        recipe="authors",
    )


def _mdrnet() -> TrainConfig:
    """The segmenter's part of MDRNet+, whose pipeline does not mirror."""
    return TrainConfig(
        data=DataConfig(batch_size=2),
        network=NetworkConfig(name="mdrnet"),
        loss=LossConfig(class_weights=_ENET),
        augment=dataclasses.replace(_SISTERS, flip=0.0),
        optimizer=OptimizerConfig(kind="sgd", lr=0.001, weight_decay=5e-4),
        schedule=ScheduleConfig(epochs=500, warmup_epochs=0.0, by_epoch=True),
        recipe="authors",
    )


def _rsfnet() -> TrainConfig:
    return TrainConfig(
        data=DataConfig(batch_size=8),
        network=NetworkConfig(name="rsfnet"),
        loss=LossConfig(heads=True, class_weights="enet", class_offset=1.05),
        augment=dataclasses.replace(_BORDERS, borders=0.0),
        optimizer=OptimizerConfig(kind="sgd", lr=0.001, weight_decay=5e-4, decoder_lr=10.0),
        schedule=ScheduleConfig(epochs=200, warmup_epochs=0.0),
        recipe="authors",
    )


def _segformer(name: str) -> TrainConfig:
    """SegFormer's configuration for ADE20K: 160,000 steps of 16 images, 1500 of warm-up."""
    steps = 784 // 16  # per epoch of MFNet
    return TrainConfig(
        data=DataConfig(batch_size=16),
        network=NetworkConfig(name=name, modality="rgb"),
        augment=dataclasses.replace(_SISTERS, brightness=32 / 255, hue=18 / 360),
        optimizer=OptimizerConfig(decoder_lr=10.0),
        schedule=ScheduleConfig(
            epochs=round(160_000 / steps), warmup_epochs=1500 / steps, power=1.0, from_start=True
        ),
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
    "cmnext_b2": _cmnext("cmnext_b2"),
    "cmnext_b4": _cmnext("cmnext_b4"),
    "lasnet": _ranger("lasnet", 4, 200, lovasz=1.0),
    "sgfnet": _ranger("sgfnet", 2, 250, lovasz=1.0),
    "egfnet": _ranger("egfnet", 4, 400),
    "gmnet": _ranger("gmnet", 4, 400),
    "mdrnet": _mdrnet(),
    "rsfnet": _rsfnet(),
    "segformer_b0": _segformer("segformer_b0"),
    "segformer_b2": _segformer("segformer_b2"),
}
"""The recipe of each network that has one."""

_GEOMETRY = (
    "thermal images are resized bilinearly, theirs by nearest neighbour; padding does not count, theirs is "
    "class 0"
)
_OTHER_DATA = "the authors publish this configuration for another data set ({})"
_RARE = "colour jitter and blur of a fifth of the images are left out"

NOTES = {
    "rtfnet50": "its author stopped by hand; the number of epochs is ours",
    "rtfnet152": "its author stopped by hand; the number of epochs is ours",
    "cmx_b2": _OTHER_DATA.format("NYU Depth v2"),
    "cmx_b4": _OTHER_DATA.format("NYU Depth v2"),
    "cmnext_b2": f"this is the authors' configuration of B4; {_RARE}",
    "cmnext_b4": _RARE,
    "lasnet": _GEOMETRY,
    "sgfnet": _GEOMETRY,
    "egfnet": "the losses are those that the paper names, with weights of 1: the released training script is "
    f"that of another network; {_GEOMETRY}",
    "gmnet": "its authors publish no training; optimizer, schedule and losses are those of their group's "
    f"code for another network with the same outputs; {_GEOMETRY}",
    "mdrnet": "the segmenter's part alone: translation of the images, its discriminators and their losses "
    f"are left out; {_GEOMETRY}",
    "rsfnet": "the loss of the gates, whose targets are saliency maps, and blur are left out; crops have the "
    "whole size, theirs 256x512",
    "segformer_b0": _OTHER_DATA.format("ADE20K, one camera, crops of 512x512"),
    "segformer_b2": _OTHER_DATA.format("ADE20K, one camera, crops of 512x512"),
}
"""Differences of a recipe from the authors' code, beyond those that all runs here share."""

_REFUSED = {
    "pstnet": "its authors publish inference alone",
    "mmsmcnet": "its authors publish neither the optimizer nor the losses",
    "eaefnet_pst900": "its authors do not state its optimizer",
    "cmx_b0": "its authors publish no network of this size",
    **dict.fromkeys(("tuni_t", "tuni_s", "tuni_b", "tuni_v1_s"), "its authors do not name the optimizer"),
}


def authors_recipe(network: str | None) -> TrainConfig:
    """Return the recipe of a network's authors; raises InputError if there is none, with those there are."""
    if network not in RECIPES:
        named = "name the network with it" if network is None else f"there is none for {network}"
        reason = f" ({_REFUSED[network]})" if network in _REFUSED else ""
        known = ", ".join(RECIPES)
        raise InputError(f"`recipe` authors: {named}{reason}; the authors' recipe is known for {known}")
    return RECIPES[network]
