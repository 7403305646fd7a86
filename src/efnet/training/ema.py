"""An exponential moving average of a network's weights: what is validated and saved in its place."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

from efnet.core.errors import InputError

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class EmaConfig:
    """Averaging of the weights over the steps."""

    decay: float | None = None
    """Share of the average that a step keeps, such as 0.999; null: no averaging (the paper names none)."""
    warmup: float = 10.0
    """Step t, from 1, keeps (1 + t) / (warmup + t) until that reaches `decay`: the start soon fades."""

    def __post_init__(self) -> None:
        if self.decay is not None and not 0 <= self.decay < 1:
            raise InputError(f"ema.decay is {self.decay}; give a number from 0, below 1, or null for none")
        if not 1 <= self.warmup < float("inf"):
            raise InputError(f"ema.warmup is {self.warmup}; give 1 (no warm-up) or more")

    def kept(self, step: int) -> float:
        """Share of the average that a step, counted from 1, keeps."""
        return min(self.decay or 0.0, (1 + step) / (self.warmup + step))


class WeightAverage(Generic[Network]):
    """The average of a network's weights, as a network of its own.

    Args:
        network: whose present weights are the start; it is copied.
        config: how fast the average follows.
    """

    def __init__(self, network: Network, config: EmaConfig) -> None:
        self.config = config
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Draw the average towards the network after step `step`, counted from 1.

        Running statistics are averaged alike; counters are copied.
        """
        share = 1 - self.config.kept(step)
        theirs = network.state_dict()
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(theirs[name], share)
            else:
                value.copy_(theirs[name])
