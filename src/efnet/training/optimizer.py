"""The optimizer and its learning rate over a run."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from efnet.training.config import OptimizerConfig, ScheduleConfig


def parameter_groups(
    model: nn.Module, weight_decay: float, fresh: Collection[str] = (), fresh_lr: float = 1.0
) -> list[dict[str, Any]]:
    """Two groups: weights of layers, which decay, and everything else, which does not.

    Norms and biases are one-dimensional. Class tokens and positions are places, not slopes: decay would
    draw them to the origin.

    Args:
        model: whose parameters.
        weight_decay: of the first group.
        fresh: names of parameters that no file filled.
        fresh_lr: multiplies their rate; unless it is 1 they get two groups of their own, with this value as
            `lr_scale`.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_place = "class_tokens" in name or ".position." in name
        key = (fresh_lr != 1 and name in fresh, parameter.ndim <= 1 or is_place)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": groups[key], "weight_decay": 0.0 if key[1] else weight_decay}
        | ({"lr_scale": fresh_lr} if key[0] else {})
        for key in sorted(groups)
    ]


def make_optimizer(
    model: nn.Module, config: OptimizerConfig, fresh: Collection[str] = ()
) -> torch.optim.AdamW:
    """AdamW over the groups of `parameter_groups`."""
    groups = parameter_groups(model, config.weight_decay, fresh, config.fresh_lr)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the rate of a step, times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def learning_rate(step: int, steps_per_epoch: int, base: float, config: ScheduleConfig) -> float:
    """Learning rate of a step, counted from 0: a linear warm-up, then polynomial decay to zero."""
    total = config.epochs * steps_per_epoch
    # A short trial with a long recipe's warm-up would never reach its rate.
    warmup = min(config.warmup_epochs, config.epochs / 10) * steps_per_epoch
    if step < warmup:
        return base * (step + 1) / (warmup + 1)
    return float(base * (1 - (step - warmup) / max(1.0, total - warmup)) ** config.power)
