"""The optimizer, its learning rate over a run, and the average of the weights."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from efnet.core.errors import InputError
from efnet.models.baselines.resnet import ResNet
from efnet.models.baselines.segformer import MiT
from efnet.training.config import EmaConfig, OptimizerConfig, ScheduleConfig

Network = TypeVar("Network", bound=nn.Module)


_UNDECAYED = {"class_tokens", "position", "score_position"}
"""Parts of the names of class tokens and positions, which are places: decay would draw them to the origin."""


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    fresh: Collection[str] = (),
    fresh_lr: float = 1.0,
    spare: bool = True,
) -> list[dict[str, Any]]:
    """Return two groups: the weights of layers, which decay, and norms, biases and places, which do not.

    Unless these are to `spare`: then everything is in the first.

    `fresh_lr` multiplies the rate of the parameters `fresh`, which no file filled; unless it is 1 they get
    two groups of their own, with this value as `lr_scale`.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_place = not _UNDECAYED.isdisjoint(name.split("."))
        key = (fresh_lr != 1 and name in fresh, spare and (parameter.ndim <= 1 or is_place))
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": groups[key], "weight_decay": 0.0 if key[1] else weight_decay}
        | ({"lr_scale": fresh_lr} if key[0] else {})
        for key in sorted(groups)
    ]


def group_as_saved(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Group parameters as in a saved state: runs of older versions go on with a decayed `score_position`."""
    groups, saved = optimizer.param_groups, state["param_groups"]
    if [len(group["params"]) for group in groups] == [len(group["params"]) for group in saved]:
        return
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    order = {name: number for number, name in enumerate(names.values())}
    for decayed, kept in itertools.pairwise(groups):
        if decayed.get("lr_scale") == kept.get("lr_scale"):
            moved = [value for value in kept["params"] if "score_position" in names[id(value)]]
            ids = {id(value) for value in moved}
            kept["params"] = [value for value in kept["params"] if id(value) not in ids]
            together = [*decayed["params"], *moved]
            decayed["params"] = sorted(together, key=lambda value: order[names[id(value)]])


class Ranger(torch.optim.RAdam):
    """RAdam of centred gradients, with slow weights beside the fast ones.

    The gradient of a tensor of two or more dimensions loses its mean over all but the first dimension
    (gradient centralisation, arXiv 2004.01461). RAdam (arXiv 1908.03265) follows, with weight decay apart
    from the gradient; it is plain momentum in the first steps, whose variance it cannot rectify. After every
    `LOOKAHEAD` steps the slow weights move `SLOW` of the way to the fast ones, which go on from there
    (Lookahead, arXiv 1907.08610). Slow weights are part of the state, so a resumed run has the same bits.
    """

    LOOKAHEAD = 6
    SLOW = 0.5

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.95, 0.999)) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=1e-5, decoupled_weight_decay=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make a step of all parameters that have a gradient; return the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moved = [value for group in self.param_groups for value in group["params"] if value.grad is not None]
        # RAdam makes its own state of a parameter while it has none.
        starts = {value: value.detach().clone() for value in moved if not self.state[value]}
        for value in moved:
            if value.ndim > 1:
                value.grad.sub_(value.grad.mean(tuple(range(1, value.ndim)), keepdim=True))
        super().step()
        for value in moved:
            state = self.state[value]
            slow = state.setdefault("slow", starts.get(value))
            if int(state["step"]) % self.LOOKAHEAD == 0:
                value.copy_(slow.lerp_(value, self.SLOW))
        return loss


def make_optimizer(
    model: nn.Module, config: OptimizerConfig, fresh: Collection[str] = ()
) -> torch.optim.Optimizer:
    """Make the optimizer over the groups of `parameter_groups`.

    Raises InputError if the decoder gets another rate and the network has no ResNet or MiT.
    """
    scale = config.fresh_lr
    if config.decoder_lr != 1:
        fresh, scale = _outside_encoders(model), config.decoder_lr
    groups = parameter_groups(model, config.weight_decay, fresh, scale, spare=config.kind == "adamw")
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    if config.kind == "ranger":
        return Ranger(groups, config.lr, config.betas)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def _outside_encoders(model: nn.Module) -> set[str]:
    """Names of the parameters that no ResNet or MiT within a network holds."""
    encoders = [name for name, module in model.named_modules() if isinstance(module, ResNet | MiT)]
    if not encoders:
        raise InputError("optimizer.decoder_lr needs a network with a ResNet or a MiT; leave it out")
    inside = tuple(f"{name}." for name in encoders)
    return {name for name, _ in model.named_parameters() if not name.startswith(inside)}


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate to that of a step, times the group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def learning_rate(step: int, steps_per_epoch: int, base: float, config: ScheduleConfig) -> float:
    """Return the rate of a step, counted from 0: linear warm-up, then decay.

    The decay is polynomial to zero, by steps or by epochs, or by the factor `gamma` after each epoch.
    """
    total = config.epochs * steps_per_epoch
    # Otherwise a short trial with a long recipe's warm-up would never reach its rate.
    warmup = min(config.warmup_epochs, config.epochs / 10) * steps_per_epoch
    if step < warmup:
        return base * config.warmup_from + (1 - config.warmup_from) * (base * (step + 1) / (warmup + 1))
    if config.gamma is not None:
        return float(base * config.gamma ** (step // steps_per_epoch))
    if config.from_start:
        warmup = 0
    if config.by_epoch:
        step = max(math.ceil(warmup), step - step % steps_per_epoch)
    return float(base * (1 - (step - warmup) / max(1.0, total - warmup)) ** config.power)


class WeightAverage(Generic[Network]):
    """The average of a network's weights, as a network of its own that starts as a copy."""

    def __init__(self, network: Network, config: EmaConfig) -> None:
        self.config = config
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average, running statistics too, towards the network after a step, counted from 1."""
        share = 1 - self.config.kept(step)
        current = network.state_dict()
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], share)
            else:
                value.copy_(current[name])
