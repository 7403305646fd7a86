"""The optimizer and its learning rate over a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from efnet.training.config import OptimizerConfig, ScheduleConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: weights of layers, which decay, and everything else, which does not.

    Norms and biases are one-dimensional. Class tokens and positions are places, not slopes: decay would
    draw them to the origin.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_place = "class_tokens" in name or ".position." in name
        (kept if parameter.ndim <= 1 or is_place else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the groups of `parameter_groups`."""
    return torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.lr, betas=config.betas)


def learning_rate(step: int, steps_per_epoch: int, base: float, config: ScheduleConfig) -> float:
    """Learning rate of a step, counted from 0: a linear warm-up, then polynomial decay to zero."""
    total = config.epochs * steps_per_epoch
    # A short trial with a long recipe's warm-up would never reach its rate.
    warmup = min(config.warmup_epochs, config.epochs / 10) * steps_per_epoch
    if step < warmup:
        return base * (step + 1) / (warmup + 1)
    return float(base * (1 - (step - warmup) / max(1.0, total - warmup)) ** config.power)
