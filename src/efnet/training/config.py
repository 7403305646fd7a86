"""A recipe: everything that decides a training run, as typed values with a reason for each default.

Where the paper (section III-B) is silent the comment says "ours".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from efnet.core.devices import Precision
from efnet.core.errors import InputError
from efnet.data.augment import AugmentConfig
from efnet.data.pairs import ThermalScale
from efnet.models.config import Decoder, Fusion, Merging, Modality, Position
from efnet.training.ema import EmaConfig
from efnet.training.loss import LossConfig


@dataclass(frozen=True)
class DataConfig:
    """Which pairs, and how they are read."""

    dataset: str = "mfnet"
    """Layout: mfnet, pst900, fmb, msrs, folders, or the path of a dataset.yaml."""
    root: str = "."
    """Folder of the data set."""
    train_split: str = "train"
    """Split to learn from."""
    val_split: str = "val"
    """Split that chooses the best checkpoint; a test split here is reported as such."""
    size: tuple[int, int] = (480, 640)
    """Height and width of the training crops and of the images at validation."""
    batch_size: int = 2
    """Pairs per pass and process; a step has so many, times `accumulate`, times the number of processes."""
    accumulate: int = 1
    """Passes per step and process: gradients of so many batches are summed up, as of one large batch."""
    workers: int = 2
    """Processes that read and augment; 0: the main one."""
    thermal_scale: ThermalScale | None = None
    """How raw thermal values become 0..1: auto, a raw range [low, high], or null for the data set's own."""
    cache: bool = False
    """Keep decoded images in memory."""

    def __post_init__(self) -> None:
        _at_least("data.batch_size", self.batch_size, 1)
        _at_least("data.accumulate", self.accumulate, 1)
        _at_least("data.workers", self.workers, 0)
        if min(self.size) < 32:
            raise InputError(f"data.size is {self.size[0]}x{self.size[1]}; give at least 32x32")
        if isinstance(self.thermal_scale, tuple) and not self.thermal_scale[0] < self.thermal_scale[1]:
            raise InputError(f"data.thermal_scale is {self.thermal_scale}; give low, high with low < high")


@dataclass(frozen=True)
class NetworkConfig:
    """Which network, and what it starts from."""

    name: str = "efnet_light"
    """Preset (`efnet models` lists them)."""
    fusion: Fusion = "mif"
    """Table IV: mif, add or cat."""
    position: Position = "pce"
    """Table V: none, pe or pce."""
    tau: tuple[float, float, float] = (0.3, 0.7, 1.0)
    """Table VI: balance of semantic and spatial distance in the three clusterings."""
    decoder: Decoder = "mfad"
    """Table VII: mfad, mlp or deeplab."""
    modality: Modality = "rgbt"
    """Which images the network looks at: rgbt, rgb or thermal."""
    merging: Merging = "dbtc"
    """How tokens become fewer: dbtc, or pool for 2x2 average pooling (ours)."""
    drop_path: float = 0.0
    """Stochastic depth; the paper names none."""
    checkpoint_activations: bool = False
    """Compute the blocks' activations again in the backward pass: less memory, more time, same gradients."""
    init: str | None = None
    """Weights to start from: an official TCFormer file, or a checkpoint of ours; null: fresh."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (section III-B)."""

    lr: float = 6e-5
    """Base learning rate (section III-B)."""
    weight_decay: float = 0.01
    """Section III-B; not on norms, biases and class tokens (ours)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Ours: the usual ones."""
    clip: float | None = None
    """Largest gradient norm; null: no clipping."""
    fresh_lr: float = 1.0
    """Multiplies the rate of the parameters that `network.init` left fresh; without `init` of none."""
    max_skipped: int = 10
    """A run ends after so many steps in succession, or a whole epoch, without a finite loss and gradient."""

    def __post_init__(self) -> None:
        _at_least("optimizer.max_skipped", self.max_skipped, 1)
        for name in ("lr", "fresh_lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"optimizer.{name} is {getattr(self, name)}; give a positive number")
        if not 0 <= self.weight_decay < float("inf"):
            raise InputError(f"optimizer.weight_decay is {self.weight_decay}; give 0 or more")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"optimizer.betas is {self.betas}; give two numbers from 0 to below 1")
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"optimizer.clip is {self.clip}; give a positive number, or null")


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, and the learning rate on the way (ours)."""

    epochs: int = 300
    """Passes over the training split."""
    warmup_epochs: float = 10.0
    """Linear rise from zero at the start; at most a tenth of the epochs is used."""
    power: float = 0.9
    """Of the polynomial decay to zero."""

    def __post_init__(self) -> None:
        _at_least("schedule.epochs", self.epochs, 1)
        if self.warmup_epochs < 0:
            raise InputError(f"schedule.warmup_epochs is {self.warmup_epochs}; give 0 or more")
        if self.power < 0:
            raise InputError(f"schedule.power is {self.power}; give 0 or more")


@dataclass(frozen=True)
class ValidationConfig:
    """When and how the validation split is scored."""

    every: int = 1
    """Epochs between validations; the last epoch is always validated."""
    protocol: str | None = None
    """Protocol; null: the data set's default."""
    samples: int = 4
    """Pairs shown in the picture sheet of a validation; 0: none."""

    def __post_init__(self) -> None:
        _at_least("validation.every", self.every, 1)
        _at_least("validation.samples", self.samples, 0)


@dataclass(frozen=True)
class ParallelConfig:
    """Several processes, each on a device of its own.

    Those that torchrun or srun started are counted; `devices` and `nodes` are for a run that starts its own.
    """

    devices: int = 1
    """Processes per machine."""
    nodes: int = 1
    """Machines; on each the same command, with NODE_RANK, MASTER_ADDR and MASTER_PORT set."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """ddp: the whole network on each device; fsdp: weights, gradients and moments are spread over them."""
    timeout: int = 1800
    """Seconds that one process waits for the others before the run ends with an error."""

    def __post_init__(self) -> None:
        for name in ("devices", "nodes", "timeout"):
            _at_least(f"parallel.{name}", getattr(self, name), 1)


@dataclass(frozen=True)
class TrainConfig:
    """A whole recipe. The defaults are recipe `paper`."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    recipe: str = "paper"
    """Name of the recipe that the defaults came from."""
    seed: int = 0
    """Of weights, order and augmentation."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    precision: Precision = "32"
    """32, or bf16 for autocast."""

    def __post_init__(self) -> None:
        _at_least("seed", self.seed, 0)
        if self.seed >= 2**63:
            raise InputError(f"seed is {self.seed}; give less than 2**63")
        for modality in ("rgb", "thermal"):
            name = f"drop_{modality}"
            if self.network.modality == modality and getattr(self.augment, name) > 0:
                raise InputError(
                    f"augment.{name} is {getattr(self.augment, name)}, but the network looks at {modality} "
                    f"alone; give --augment.{name} 0"
                )


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name} is {value}; give {least} or more")
