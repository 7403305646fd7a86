"""What a training step changes: the network, its optimizer, and the average of its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from efnet.data.dataset import Item
from efnet.models.base import SegmentationModel
from efnet.training.config import TrainConfig
from efnet.training.ema import WeightAverage
from efnet.training.fabric import make_fabric
from efnet.training.loss import Objective
from efnet.training.optimizer import learning_rate, make_optimizer, set_rate
from efnet.training.order import step_seed
from efnet.training.state import Progress, load_state, save_state


class Learner:
    """A network in training.

    Args:
        config: the recipe.
        network: to be trained; it moves to the recipe's device.
        fresh: names of its parameters that no file filled.
        unscored: label values that carry no supervision.
        steps_per_epoch: for the learning rate.

    Attributes:
        objective: the loss; to be replaced before the first step where it needs the classes' frequencies.

    Raises:
        InputError: the device is unknown or not there.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: SegmentationModel,
        fresh: tuple[str, ...],
        unscored: tuple[int, ...],
        steps_per_epoch: int,
    ) -> None:
        self.config = config
        self.network = network
        self.steps_per_epoch = steps_per_epoch
        self.objective = Objective(config.loss, unscored)
        self.fabric = make_fabric(config.device, config.precision)
        self.average = WeightAverage(network, config.ema) if config.ema.decay is not None else None
        # On its device before any state is loaded: the optimizer's state follows its parameters.
        self.model: Any
        self.optimizer: Any
        self.model, self.optimizer = self.fabric.setup(
            network, make_optimizer(network, config.optimizer, fresh)
        )
        if self.average is not None:
            self.average.network.to(self.fabric.device)

    @property
    def chosen(self) -> SegmentationModel:
        """The network that is validated and saved: that of the averaged weights, if there is one."""
        return self.network if self.average is None else self.average.network

    def rate(self, step: int) -> float:
        """Base learning rate of a step, counted from 0."""
        return learning_rate(step, self.steps_per_epoch, self.config.optimizer.lr, self.config.schedule)

    def step(self, batch: Item, number: int) -> float:
        """Step `number` of the optimizer, counted from 0.

        Returns:
            the loss; where it is not finite, nothing was changed.
        """
        config = self.config
        set_rate(self.optimizer, self.rate(number))
        # Dropped paths follow from the step, so that a resumed run drops the same ones.
        torch.manual_seed(step_seed(config.seed, number))
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for rgb, thermal, label, share in self._parts(batch):
            loss = share * self.objective(self.model(rgb, thermal), label)
            total += float(loss.detach())
            if not math.isfinite(total):
                return total
            self.fabric.backward(loss)
        if config.optimizer.clip is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=config.optimizer.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network, number + 1)
        return total

    def _parts(self, batch: Item) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
        """The batch in passes of `batch_size`, on the device, with the share of each in the whole's mean."""
        parts = [batch[key].split(self.config.data.batch_size) for key in ("rgb", "thermal", "label")]
        masses = [self.objective.mass(label) for label in parts[2]] if len(parts[2]) > 1 else [1.0]
        total = sum(masses) or 1.0
        for mass, *tensors in zip(masses, *parts, strict=True):
            rgb, thermal, label = (tensor.to(self.fabric.device, non_blocking=True) for tensor in tensors)
            yield rgb, thermal, label, mass / total

    def save(self, path: Path, progress: Progress) -> None:
        """Write what `restore` goes on from."""
        average = None if self.average is None else self.average.network
        save_state(path, self.network, self.optimizer, progress, average)

    def restore(self, path: Path) -> tuple[Progress, str | None]:
        """Go back to what `save` wrote, or wrote before if that is damaged; and what was damaged.

        Raises:
            InputError: the file is damaged or of another network.
        """
        average = None if self.average is None else self.average.network
        return load_state(path, self.network, self.optimizer, average)
