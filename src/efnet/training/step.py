"""Running statistics of batch norms, which a forward pass changes even where its step is not made.

What a training step changes: the network, its optimizer, and the average of its weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from efnet.core.distributed import Group
from efnet.data.dataset import Item
from efnet.models.base import SegmentationModel
from efnet.training.config import TrainConfig
from efnet.training.ema import WeightAverage
from efnet.training.loss import Objective
from efnet.training.optimizer import learning_rate, make_optimizer, set_rate
from efnet.training.parallel import Whole, make_fabric
from efnet.training.sampler import pass_seed
from efnet.training.state import Progress, load_state, save_state


class RunningStatistics:
    """A copy of the running statistics of a network, to go back to.

    Args:
        network: whose; one without batch norms has none, and nothing is done.
    """

    def __init__(self, network: nn.Module) -> None:
        norms = [module for module in network.modules() if isinstance(module, _NormBase)]
        self._values = [value for norm in norms for value in norm.buffers()]
        self._kept: list[Tensor] = []

    def keep(self) -> None:
        """Copy them."""
        self._kept = [value.clone() for value in self._values]

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the copy."""
        for value, kept in zip(self._values, self._kept, strict=True):
            value.copy_(kept)


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        loss: of the batch, over all processes.
        fault: why nothing was changed; None: the step was made.
        pairs: where there is a fault, the numbers of the pairs that it may come from.
    """

    loss: float
    fault: str | None = None
    pairs: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Part:
    """What one pass sees, on the device, and its share in the mean over the batch of all processes."""

    rgb: Tensor
    thermal: Tensor
    label: Tensor
    pairs: list[int]
    share: float


class Learner:
    """A network in training, in one process or in one of several.

    Args:
        config: the recipe.
        network: to be trained; it moves to the recipe's device.
        fresh: names of its parameters that no file filled.
        unscored: label values that carry no supervision.
        steps_per_epoch: for the learning rate.
        fabric: what it runs on; None: what the recipe says.

    Attributes:
        objective: the loss; to be replaced before the first step where it needs the classes' frequencies.
        group: the processes that learn together.

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
        fabric: Fabric | None = None,
    ) -> None:
        self.config = config
        self.network = network
        self.steps_per_epoch = steps_per_epoch
        self.objective = Objective(config.loss, unscored)
        self.fabric = fabric or make_fabric(config.device, config.precision, config.parallel)
        self.group = Group(self.fabric.device)
        self.average = WeightAverage(network, config.ema) if config.ema.decay is not None else None
        is_spread = self.group.size > 1 and config.parallel.strategy == "fsdp"
        self.whole = Whole(network) if is_spread else None
        # On its device before any state is loaded: the optimizer's state follows its parameters.
        self.model: Any = self.fabric.setup(network)
        self.optimizer: Any = self.fabric.setup_optimizers(make_optimizer(network, config.optimizer, fresh))
        for other in (self.average, self.whole):
            if other is not None:
                other.network.to(self.fabric.device)
        self._statistics = RunningStatistics(network)

    def chosen(self) -> SegmentationModel:
        """The network that is validated and saved: that of the averaged weights, if there is one.

        In one piece; every process must call this.
        """
        return self._collected() if self.average is None else self.average.network

    def _collected(self) -> SegmentationModel:
        return self.network if self.whole is None else self.whole.collect(self.network)

    def rate(self, step: int) -> float:
        """Base learning rate of a step, counted from 0."""
        return learning_rate(step, self.steps_per_epoch, self.config.optimizer.lr, self.config.schedule)

    def step(self, batch: Item, number: int) -> Outcome:
        """Step `number` of the optimizer, counted from 0, on this process's part of the batch.

        Where the loss or the gradient is not finite nothing is changed, running statistics included.
        """
        set_rate(self.optimizer, self.rate(number))
        self.optimizer.zero_grad(set_to_none=True)
        self._statistics.keep()
        loss, suspects = self._accumulate(batch, number)
        finite = math.isfinite(loss)
        if not finite or not self._gradient_is_finite():
            self._statistics.restore()
            self.optimizer.zero_grad(set_to_none=True)
            found = self.group.gather(batch["index"].tolist() if finite else suspects)
            fault = "the gradient is not finite" if finite else "the loss is not finite"
            return Outcome(loss, fault, tuple(pair for pairs in found for pair in pairs))
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self._collected(), number + 1)
        return Outcome(loss)

    def _accumulate(self, batch: Item, number: int) -> tuple[float, list[int]]:
        """Sum up the gradients of all passes.

        Returns:
            the loss over all processes, and the pairs of the passes here that have no finite one.
        """
        total, suspects = 0.0, []
        parts = list(self._parts(batch))
        for place, part in enumerate(parts):
            # Dropped paths follow from the step and the pass, whichever process computes it: a resumed run,
            # and one of other processes, drops the same ones.
            seed = pass_seed(self.config.seed, number, self.group.rank * len(parts) + place)
            torch.manual_seed(seed)
            with self._quietly(place < len(parts) - 1):
                loss = part.share * self.objective(self.model(part.rgb, part.thermal), part.label)
                # What the processes have is averaged in the backward pass; it is to be added up.
                self.fabric.backward(loss * self.group.size)
            value = float(loss.detach())
            total += value
            suspects += [] if math.isfinite(value) else part.pairs
        return self.group.sum([total])[0], suspects

    def _quietly(self, enabled: bool) -> AbstractContextManager[Any]:
        """Keep the gradient of a pass to this process: the last one sends the sum."""
        if self.group.size == 1:
            return nullcontext()
        return self.fabric.no_backward_sync(self.model, enabled=enabled)

    def _gradient_is_finite(self) -> bool:
        """Clip the gradient, if the recipe says so, and look at its norm: the same in all processes.

        A norm that overflows counts too: its square would stay in Adam's second moment for ever.
        """
        clip = self.config.optimizer.clip
        if clip is not None:
            norm = self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=clip, error_if_nonfinite=False
            )
        else:
            gradients = (parameter.grad for parameter in self.network.parameters())
            norm = torch.nn.utils.get_total_norm([value for value in gradients if value is not None])
        assert norm is not None
        # Of spread weights every process has a part.
        return math.isfinite(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm))

    def _parts(self, batch: Item) -> Iterator[_Part]:
        """This process's part of the batch in passes of `batch_size`."""
        size, device = self.config.data.batch_size, self.fabric.device
        parts = [batch[key].split(size) for key in ("rgb", "thermal", "label", "index")]
        alone = len(parts[2]) == 1 and self.group.size == 1
        masses = [1.0] if alone else [self.objective.mass(label) for label in parts[2]]
        total = self.group.sum([sum(masses)])[0] or 1.0
        for mass, *images, index in zip(masses, *parts, strict=True):
            rgb, thermal, label = (tensor.to(device, non_blocking=True) for tensor in images)
            yield _Part(rgb, thermal, label, index.tolist(), mass / total)

    def save(self, path: Path, progress: Progress) -> None:
        """Write what `restore` goes on from: the main process does, and every process must call this.

        Raises:
            InputError: the file cannot be written; the state before is still there.
        """
        network, optimizer = self._collected(), self.optimizer
        if self.whole is not None:
            optimizer = self.whole.collect_optimizer(self.network, self.optimizer.optimizer)
        average = None if self.average is None else self.average.network
        self.group.once(lambda: save_state(path, network, optimizer, progress, average))

    def restore(self, path: Path) -> tuple[Progress, str | None]:
        """Go back to what `save` wrote, or wrote before if that is damaged; and what was damaged.

        Raises:
            InputError: the file is damaged or of another network.
        """
        if self.whole is None:
            return self._load(path, self.network, self.optimizer)
        optimizer = self.whole.collect_optimizer(self.network, self.optimizer.optimizer)
        result = self._load(path, self.whole.network, optimizer)
        self.whole.spread(self.network, self.optimizer.optimizer, optimizer)
        return result

    def _load(
        self, path: Path, network: SegmentationModel, optimizer: torch.optim.Optimizer
    ) -> tuple[Progress, str | None]:
        """Load a state in every process; the main one first, which may put the one before in its place."""
        average = None if self.average is None else self.average.network
        result = self.group.once(lambda: load_state(path, network, optimizer, average))
        if self.group.is_main:
            return result
        return load_state(path, network, optimizer, average)[0], result[1]
