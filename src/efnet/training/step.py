"""A training step, and all that it changes: the network, its optimizer, and the average of its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from efnet.core.classes import ClassSet
from efnet.core.distributed import Group
from efnet.core.errors import InputError
from efnet.data.dataset import Item, PairDataset
from efnet.data.frequency import count_classes
from efnet.data.pairs import PairSet
from efnet.data.unlabelled import PREFIX
from efnet.models.base import SegmentationModel
from efnet.models.baselines.eaefnet import EAEFNet
from efnet.models.efnet import EFNet
from efnet.models.pretrained import initialise
from efnet.models.registry import create_model, model_options
from efnet.models.weights import LoadReport
from efnet.training.config import ENET_OFFSET, NetworkConfig, TrainConfig
from efnet.training.heads import Heads, split_marks
from efnet.training.loss import Objective
from efnet.training.optimizer import WeightAverage, learning_rate, make_optimizer, set_rate
from efnet.training.parallel import Whole, start_fabric
from efnet.training.sampler import pass_seed
from efnet.training.state import Progress, load_state, save_state
from efnet.training.teaching import Teaching


def build_network(config: NetworkConfig, classes: ClassSet) -> tuple[SegmentationModel, LoadReport | None]:
    """Build the network of a recipe for a class set, and fill it from `config.init`.

    Returns the network, and what was loaded into it (None: nothing). Raises InputError: an unknown name or
    option, or weights that do not fit.
    """
    names, default = (*config.names(), "drop_path", "checkpoint_activations"), NetworkConfig()
    try:
        known = model_options(config.name)
        if "drop_path" in known:  # both are of transformer blocks
            known = (*known, "checkpoint_activations")
        changed = [name for name in names if getattr(config, name) != getattr(default, name)]
        if "decoder" not in known and config.decoder == "mfad":
            changed.remove("decoder")  # the default that runs of version 0.1 recorded for every network
        wrong = [f"network.{name}" for name in changed if name not in known]
        if wrong:
            raise InputError(f"{config.name} has no {', '.join(wrong)}; leave it out")
        options = {name: getattr(config, name) for name in changed if name != "checkpoint_activations"}
        network = create_model(config.name, classes=classes, **options)
    except ValueError as error:
        raise InputError(str(error)) from error
    if isinstance(network, EFNet):
        network.checkpoint_activations = config.checkpoint_activations
    if config.mix_pairs:
        if not isinstance(network, EAEFNet):
            raise InputError(f"{config.name} has no network.mix_pairs; leave it out")
        network.mix_pairs()
    source = config.init
    if source is None:
        return network, None
    return network, initialise(network, source)


@dataclass(frozen=True)
class Outcome:
    """Result of a step."""

    loss: float  # of the batch, over all processes
    fault: str | None = None  # why the step was skipped; None: it was made
    pairs: tuple[int, ...] = ()  # of a skipped step, the numbers of the pairs that may be the cause


@dataclass(frozen=True)
class _Part:
    """The images of one pass, on the device, and its share in the mean over the batch of all processes."""

    rgb: Tensor
    thermal: Tensor
    label: Tensor
    edges: Tensor | None  # bool (B, H, W), where the loss needs them
    pairs: list[int]
    share: float
    unlabelled: dict[str, Tensor]  # entries of `SemiDataset`, without their prefix


class Learner:
    """A network in training, in one process or in one of several.

    Replace `objective` before the first step where the loss needs the classes' frequencies. Raises InputError
    if the device is unknown or absent.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: SegmentationModel,  # to be trained; it moves to the recipe's device
        fresh: tuple[str, ...],  # names of its parameters that no file filled
        unscored: tuple[int, ...],  # label values that carry no supervision
        steps_per_epoch: int,  # for the learning rate
        fabric: Fabric | None = None,  # what it runs on; None: as the recipe says
        teaching: Teaching | None = None,  # what else it learns from
    ) -> None:
        self.heads = Heads(network) if config.loss.heads else None
        self.config = config
        self.network = network
        self.teaching = teaching
        self.schedule: Callable[[int], float] = lambda step: learning_rate(  # of a step, counted from 0
            step, steps_per_epoch, config.optimizer.lr, config.schedule
        )
        self.objective = Objective(config.loss, unscored)
        self.fabric = fabric or start_fabric(config)
        self.group = Group(self.fabric.device)  # the processes that train together
        self.average = WeightAverage(network, config.ema) if config.ema.decay is not None else None
        is_spread = self.group.size > 1 and config.parallel.strategy == "fsdp"
        self.whole = Whole(network) if is_spread else None
        # Moved to its device before any state is loaded: the optimizer's state follows its parameters.
        self.model: Any = self.fabric.setup(network)
        self.optimizer: Any = self.fabric.setup_optimizers(make_optimizer(network, config.optimizer, fresh))
        for other in (self.average, self.whole):
            if other is not None:
                other.network.to(self.fabric.device)
        if teaching is not None and teaching.own is not None:
            teaching.own.to(self.fabric.device)
            teaching.watch(network)  # after the average was copied from it
        norms = [module for module in network.modules() if hasattr(module, "running_mean")]
        self._statistics = [value for norm in norms for value in norm.buffers()]

    def chosen(self) -> SegmentationModel:
        """Return the network to validate and save, perhaps the averaged one; every process must call it."""
        return self._collected() if self.average is None else self.average.network

    def _collected(self) -> SegmentationModel:
        return self.network if self.whole is None else self.whole.collect(self.network)

    def rate(self, step: int) -> float:
        """Return the base learning rate of a step, counted from 0."""
        return self.schedule(step)

    def step(self, batch: Item, number: int) -> Outcome:
        """Make step `number` of the optimizer, counted from 0, on this process's part of the batch.

        If loss or gradient is not finite, nothing changes, running statistics included.
        """
        set_rate(self.optimizer, self.rate(number))
        self.optimizer.zero_grad(set_to_none=True)
        # A forward pass changes the batch statistics even where its step is skipped.
        statistics = [value.clone() for value in self._statistics]
        loss, suspects = self._accumulate(batch, number)
        finite = math.isfinite(loss)
        if not finite or not self._gradient_is_finite():
            with torch.no_grad():
                for value, before in zip(self._statistics, statistics, strict=True):
                    value.copy_(before)
            self.optimizer.zero_grad(set_to_none=True)
            found = self.group.gather(batch["index"].tolist() if finite else suspects)
            fault = "the gradient is not finite" if finite else "the loss is not finite"
            return Outcome(loss, fault, tuple(pair for pairs in found for pair in pairs))
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self._collected(), number + 1)
        return Outcome(loss)

    def _accumulate(self, batch: Item, number: int) -> tuple[float, list[int]]:
        """Sum the gradients of all passes; return the loss of all and own pairs without a finite one."""
        total = 0.0
        suspects: list[int] = []
        parts = list(self._parts(batch))
        for place, part in enumerate(parts):
            # Dropped paths depend only on step and pass: a resumed run, and one of other processes, drops
            # the same ones.
            seed = pass_seed(self.config.seed, number, self.group.rank * len(parts) + place)
            torch.manual_seed(seed)
            quiet: AbstractContextManager[Any] = nullcontext()
            if self.group.size > 1:  # gradients stay in this process; the last pass sends the sum
                is_last = place == len(parts) - 1
                quiet = self.fabric.no_backward_sync(self.model, enabled=not is_last)
            with quiet:
                labelled, others = self._loss(part, len(parts) * self.group.size)
                loss = labelled + others
                # The backward pass averages over the processes; the sum is needed.
                self.fabric.backward(loss * self.group.size)
            value = float(loss.detach())
            total += value
            if not math.isfinite(value):
                is_labelled = not math.isfinite(float(labelled.detach()))
                suspects += part.pairs if is_labelled else part.unlabelled["index"].tolist()
        return self.group.sum([total])[0], suspects

    def _loss(self, part: _Part, passes: int) -> tuple[Tensor, Tensor]:
        """The loss of one of the `passes` of a step: of pairs with masks, and of those without."""
        logits = self.model(part.rgb, part.thermal)
        if self.heads is None:
            supervised = self.objective(logits, part.label)
        else:
            supervised = self.heads.loss(self.objective, part.label, part.edges)
        labelled: Tensor = part.share * supervised
        others = labelled.new_zeros(())
        if self.teaching is not None:
            labelled = labelled + self.teaching.distil(logits, part.rgb, part.thermal) / passes
            if part.unlabelled:
                average = None if self.average is None else self.average.network
                others = self.teaching.semi_supervised(self.model, average, part.unlabelled) / passes
        return labelled, others

    def _gradient_is_finite(self) -> bool:
        """Clip the gradient, if the recipe does, and check its norm, which is the same in all processes.

        A norm that overflows is not finite either: its square would stay in Adam's second moment.
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
        # Each process has a part of sharded weights.
        return math.isfinite(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm))

    def _parts(self, batch: Item) -> Iterator[_Part]:
        """This process's part of the batch in passes of `batch_size`."""
        size, device = self.config.data.pass_size, self.fabric.device
        marks: Sequence[Tensor] | None = None
        if self.heads is not None and self.heads.need_edges(self.network.architecture):
            label, edges = split_marks(batch["label"])
            batch, marks = batch | {"label": label}, torch.split(edges, size)
        parts = [batch[key].split(size) for key in ("rgb", "thermal", "label", "index")]
        others = {key.removeprefix(PREFIX): batch[key].split(size) for key in batch if key.startswith(PREFIX)}
        alone = len(parts[2]) == 1 and self.group.size == 1
        masses = [1.0] if alone else [self.objective.mass(label) for label in parts[2]]
        total = self.group.sum([sum(masses)])[0] or 1.0
        for place, (mass, *images, index) in enumerate(zip(masses, *parts, strict=True)):
            rgb, thermal, label = (tensor.to(device, non_blocking=True) for tensor in images)
            unlabelled = {key: values[place].to(device) for key, values in others.items()}
            outline = None if marks is None else marks[place].to(device, non_blocking=True)
            yield _Part(rgb, thermal, label, outline, index.tolist(), mass / total, unlabelled)

    def save(self, path: Path, progress: Progress) -> None:
        """Write the state on rank 0; every process must call it. Raises InputError where it cannot."""
        network, optimizer = self._collected(), self.optimizer
        if self.whole is not None:
            optimizer = self.whole.collect_optimizer(self.network, self.optimizer.optimizer)
        average = None if self.average is None else self.average.network
        self.group.once(lambda: save_state(path, network, optimizer, progress, average))

    def restore(self, path: Path) -> tuple[Progress, str | None]:
        """Restore what `save` wrote, or the state before if that is damaged: progress and damage.

        Raises InputError: both files are damaged or of another network.
        """
        network, optimizer = self.network, self.optimizer
        if self.whole is not None:
            network = self.whole.network
            optimizer = self.whole.collect_optimizer(self.network, self.optimizer.optimizer)
        average = None if self.average is None else self.average.network
        # Rank 0 first, which may put the previous state in its place.
        progress, fault = self.group.once(lambda: load_state(path, network, optimizer, average))
        if not self.group.is_main:
            progress, _ = load_state(path, network, optimizer, average)
        if self.whole is not None:
            self.whole.spread(self.network, self.optimizer.optimizer, optimizer)
        return progress, fault


def balance_classes(
    config: TrainConfig, split: PairSet, dataset: PairDataset, learner: Learner
) -> dict[str, Any]:
    """Count the classes of the training split, if the recipe needs it, for loss weights and odds of crops.

    Returns pixels and weights of each class for the run's facts, or nothing. Raises InputError if a label
    cannot be read, or if the recipe has weights for another number of classes.
    """
    rule, names = config.loss.class_weights, split.classes.names
    facts: dict[str, Any] = {}
    weights: NDArray[np.float64] | None = None
    if isinstance(rule, tuple):
        if len(rule) != len(names):
            raise InputError(
                f"loss.class_weights has {len(rule)} weights, the data set {len(names)} classes; give one "
                "for each class, or enet"
            )
        weights = np.asarray(rule)
    if isinstance(rule, str) or config.augment.rare_crop:
        frequency = learner.group.once(lambda: count_classes(split))
        facts["class_pixels"] = dict(zip(names, frequency.pixels.tolist(), strict=True))
        if config.augment.rare_crop:
            dataset.class_odds = frequency.odds()
        if isinstance(rule, str):
            weights = frequency.weights(rule)
            if rule == "enet" and config.loss.class_offset != ENET_OFFSET:
                there, share = frequency.pixels > 0, frequency.pixels / max(1, frequency.pixels.sum())
                weights[there] = 1 / np.log(config.loss.class_offset + share[there])
    if weights is not None:
        learner.objective = Objective(config.loss, split.unscored, torch.tensor(weights, dtype=torch.float32))
        facts["class_weights"] = dict(zip(names, weights.round(4).tolist(), strict=True))
    return facts
