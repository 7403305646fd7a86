"""A recipe: everything that decides a training run, as typed values with a reason for each default.

Where the paper (section III-B) is silent the comment says "ours". Recipes by name are at the end, and how a
configuration is written to and read from plain values.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, get_args

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from efnet.core.devices import Precision, check_precision
from efnet.core.errors import InputError, plain_fault
from efnet.data.augment import AugmentConfig
from efnet.data.false_color import check_scale
from efnet.data.frequency import ClassWeighting
from efnet.data.pairs import ThermalScale
from efnet.models.config import NetworkOptions, require_choice, require_drop_path


def _require(name: str, value: object, holds: bool, remedy: str) -> None:
    """Raise InputError unless the condition on a value holds; the remedy says what to give."""
    if not holds:
        raise InputError(f"{name} is {value}; give {remedy}")


def _require_least(section: str, values: object, least: int, *names: str) -> None:
    """Raise InputError for a value of a section that is below `least`."""
    for name in names:
        value = getattr(values, name)
        _require(f"{section}{name}", value, value >= least, f"{least} or more")


@dataclass(frozen=True)
class DataConfig:
    """Which pairs, and how they are read."""

    dataset: str = "mfnet"
    """Layout: mfnet, pst900, fmb, msrs, cart, sus, semanticrt, kaist, folders, or a dataset.yaml."""
    root: str = "."
    """Folder of the data set."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str = "val"
    """Split that chooses the best checkpoint; a test split here is reported as such."""
    size: tuple[int, int] = (480, 640)
    """Height and width of the training crops and of the images at validation."""
    batch_size: int | Literal["auto"] = 2
    """Pairs per pass and process; a step has this many, times `accumulate`, times the number of processes.
    auto: the most that the memory holds, found before the run."""
    accumulate: int = 1
    """Passes per step and process: their gradients are summed, as of one large batch."""
    workers: int = 2
    """Processes that read and augment; 0: the main one."""
    thermal_scale: ThermalScale | None = None
    """Raw thermal values to 0..1: auto, a raw range [low, high], palette:NAME; null: the data set's own."""
    cache: bool = False
    """Keep decoded images in memory."""

    def __post_init__(self) -> None:
        if self.batch_size != "auto":
            _require_least("data.", self, 1, "batch_size")
        _require_least("data.", self, 1, "accumulate")
        _require_least("data.", self, 0, "workers")
        size, scale = self.size, self.thermal_scale
        _require("data.size", "x".join(map(str, size)), min(size) >= 32, "at least 32x32")
        ordered = not isinstance(scale, tuple) or scale[0] < scale[1]
        _require("data.thermal_scale", scale, ordered, "low, high with low < high")
        if isinstance(scale, str):
            check_scale(scale)

    @property
    def pass_size(self) -> int:
        """Pairs per pass and process, once `auto` was replaced by what was found."""
        if self.batch_size == "auto":
            raise InputError("`batch_size` auto is found by a run of its own; give a number here")
        return self.batch_size


@dataclass(frozen=True)
class _Preset:
    name: str = "efnet_light"
    """Preset (`efnet models` lists them)."""


@dataclass(frozen=True)
class NetworkConfig(NetworkOptions, _Preset):
    """Which network, its options, and the weights it starts from."""

    drop_path: float = 0.0
    """Stochastic depth; the paper names none."""
    mix_pairs: bool = False
    """Whether eaefnet* exchanges gates among the pairs of a batch in training, as its authors' code does."""
    checkpoint_activations: bool = False
    """Recompute the blocks' activations in the backward pass: less memory, more time, same gradients."""
    init: str | None = None
    """Weights to start from: a checkpoint of ours; a file, hub name or https address of the encoder's
    authors; or imagenet for the installed ones of the edge presets (`efnet[pretrained]`); null: fresh."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_drop_path(self.drop_path)


ENET_OFFSET = 1.02  # ENet's own


@dataclass(frozen=True)
class LossConfig:
    """Terms and weights over supervised pixels; OHEM, class weights and smoothing are the cross-entropy's."""

    cross_entropy: float = 1.0
    """Weight of the cross-entropy (section III-B)."""
    dice: float = 0.0
    """Weight of the soft Dice term."""
    dice_over: Literal["present", "all"] = "present"
    """Classes of the mean: present ones, or all, where absent ones count zero (FEANet, EAEFNet)."""
    heads: bool = False
    """Train the network's further outputs too, each with its authors' loss; else the main output alone."""
    lovasz: float = 0.0
    """Weight of the Lovasz-softmax term."""
    ohem: float | None = None
    """Only pixels whose true class has at most this probability count (0.7 is usual); null: all."""
    ohem_least: float = 0.0625
    """Share of the pixels that OHEM keeps at least, the hardest first: a sixteenth, as is usual."""
    class_weights: ClassWeighting | tuple[float, ...] | None = None
    """From the pixels of the training split: enet (at most 50) or median; or one per class; null: none."""
    class_offset: float = ENET_OFFSET
    """The c of enet's 1 / ln(c + share of the class)."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""

    def __post_init__(self) -> None:
        for name in ("cross_entropy", "dice", "lovasz"):
            weight = getattr(self, name)
            _require(f"loss.{name}", weight, 0 <= weight < float("inf"), "a weight, 0 or more")
        if self.cross_entropy + self.dice + self.lovasz == 0:
            raise InputError(
                "loss.cross_entropy, loss.dice and loss.lovasz are all 0; give one of them a weight"
            )
        require_choice("loss.dice_over", self.dice_over, ("present", "all"))
        ohem, least, smoothing = self.ohem, self.ohem_least, self.label_smoothing
        is_probability = ohem is None or 0 < ohem < 1
        _require("loss.ohem", ohem, is_probability, "a probability between 0 and 1, or null for none")
        _require("loss.ohem_least", least, 0 < least <= 1, "a share above 0, at most 1")
        _require("loss.label_smoothing", smoothing, 0 <= smoothing < 1, "a share from 0, below 1")
        weights, offset = self.class_weights, self.class_offset
        if isinstance(weights, str):
            require_choice("loss.class_weights", weights, get_args(ClassWeighting))
        elif weights is not None:
            usable = all(0 <= weight < float("inf") for weight in weights) and sum(weights) > 0
            _require("loss.class_weights", weights, usable, "a weight for each class, 0 or more")
        _require("loss.class_offset", offset, 1 < offset < float("inf"), "a number above 1")
        for name in ("ohem", "class_weights", "label_smoothing"):
            if getattr(self, name) and not self.cross_entropy:
                raise InputError(f"loss.{name} changes the cross-entropy, but loss.cross_entropy is 0")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (section III-B), or the optimizers of networks from other papers."""

    kind: Literal["adamw", "sgd", "ranger"] = "adamw"
    """adamw; sgd, with momentum 0.9 and a decay that is part of the gradient; or ranger (RAdam, lookahead,
    centred gradients). sgd and ranger decay all parameters."""
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
    decoder_lr: float = 1.0
    """Multiplies the rate of all parameters outside the ResNets or MiTs of a network from another paper."""
    max_skipped: int = 10
    """The run ends after this many steps in succession, or an epoch, without finite loss and gradient."""

    def __post_init__(self) -> None:
        require_choice("optimizer.kind", self.kind, ("adamw", "sgd", "ranger"))
        _require_least("optimizer.", self, 1, "max_skipped")
        for name in ("lr", "fresh_lr", "decoder_lr"):
            rate = getattr(self, name)
            _require(f"optimizer.{name}", rate, 0 < rate < float("inf"), "a positive number")
        both = self.fresh_lr != 1 and self.decoder_lr != 1
        _require("optimizer.fresh_lr", self.fresh_lr, not both, "it or optimizer.decoder_lr, not both")
        decay = self.weight_decay
        _require("optimizer.weight_decay", decay, 0 <= decay < float("inf"), "0 or more")
        within = all(0 <= beta < 1 for beta in self.betas)
        _require("optimizer.betas", self.betas, within, "two numbers from 0 to below 1")
        positive = self.clip is None or self.clip > 0
        _require("optimizer.clip", self.clip, positive, "a positive number, or null")


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, and the learning rate on the way (ours)."""

    epochs: int = 300
    """Passes over the training split."""
    warmup_epochs: float = 10.0
    """Linear rise at the start; at most a tenth of the epochs."""
    warmup_from: float = 0.0
    """Share of the rate from which it rises (CMNeXt: 0.1)."""
    power: float = 0.9
    """Power of the polynomial decay to zero."""
    from_start: bool = False
    """Count the polynomial decay from the first step, not from the end of the warm-up (CMX)."""
    by_epoch: bool = False
    """The polynomial decay changes the rate after each epoch, not after each step (LASNet, SGFNet)."""
    gamma: float | None = None
    """Factor of the rate after each epoch, in place of the polynomial decay; null: that."""

    def __post_init__(self) -> None:
        factor = self.gamma is None or 0 < self.gamma <= 1
        _require("schedule.gamma", self.gamma, factor, "a factor above 0, at most 1, or null")
        share = self.warmup_from
        _require("schedule.warmup_from", share, 0 <= share < 1, "a share from 0, below 1")
        _require_least("schedule.", self, 1, "epochs")
        _require_least("schedule.", self, 0, "warmup_epochs", "power")


@dataclass(frozen=True)
class EmaConfig:
    """Averaging of the weights over the steps."""

    decay: float | None = None
    """Share of the average that a step keeps, such as 0.999; null: no averaging (the paper names none)."""
    warmup: float = 10.0
    """Step t, from 1, keeps (1 + t) / (warmup + t) until that reaches `decay`: the start soon fades."""

    def __post_init__(self) -> None:
        decay, warmup = self.decay, self.warmup
        is_share = decay is None or 0 <= decay < 1
        _require("ema.decay", decay, is_share, "a number from 0, below 1, or null for none")
        _require("ema.warmup", warmup, 1 <= warmup < float("inf"), "1 (no warm-up) or more")

    def kept(self, step: int) -> float:
        """Share of the average that a step, counted from 1, keeps."""
        return min(self.decay or 0.0, (1 + step) / (self.warmup + step))


@dataclass(frozen=True)
class TeachConfig:
    """Learning from another network, and from pairs without masks."""

    teacher: str | None = None
    """Run or checkpoint of the same classes whose probabilities the network learns too; null: none."""
    weight: float = 1.0
    """Weight of that term, beside the loss of the labels."""
    temperature: float = 2.0
    """Softens the probabilities of both networks (arXiv 1503.02531)."""
    features: float = 0.0
    """Weight of the difference of both networks' similarities of cells (arXiv 1903.04197); efnet_* only."""
    unlabelled: str | None = None
    """Folder of pairs without masks: rgb, thermal and perhaps pseudo-labels in labels; null: none."""
    unlabelled_weight: float = 1.0
    """Weight of the term of these pairs; every step sees as many of them as labelled ones."""
    confidence: float = 0.9
    """A pixel without a mask counts where the teacher's class has at least this probability."""

    def __post_init__(self) -> None:
        for name in ("weight", "features", "unlabelled_weight"):
            weight = getattr(self, name)
            _require(f"teach.{name}", weight, 0 <= weight < float("inf"), "a weight, 0 or more")
        temperature, confidence = self.temperature, self.confidence
        _require("teach.temperature", temperature, 0 < temperature < float("inf"), "a positive number")
        if self.features and self.teacher is None:
            raise InputError("`teach.features` needs `teach.teacher`, whose stages it compares")
        _require("teach.confidence", confidence, 0 <= confidence <= 1, "a probability from 0 to 1")


@dataclass(frozen=True)
class ValidationConfig:
    """When and how the validation split is scored."""

    every: int = 1
    """Epochs between validations; the last epoch is always validated."""
    protocol: str | None = None
    """Protocol; null: the data set's default."""
    samples: int = 4
    """Pairs shown in the picture sheet of a validation; 0: none."""
    early_stopping: int | None = None
    """The run ends after this many validations in succession without a better mIoU; null: never early."""

    def __post_init__(self) -> None:
        _require_least("validation.", self, 1, "every")
        if self.early_stopping is not None:
            _require_least("validation.", self, 1, "early_stopping")
        _require_least("validation.", self, 0, "samples")


@dataclass(frozen=True)
class ParallelConfig:
    """Several processes, a device each; without torchrun or srun a run starts `devices` x `nodes` itself."""

    devices: int = 1
    """Processes per machine."""
    nodes: int = 1
    """Machines; on each the same command, with NODE_RANK, MASTER_ADDR and MASTER_PORT set."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """ddp: the whole network on each device; fsdp: weights, gradients and moments are sharded."""
    timeout: int = 1800
    """Seconds that a process waits for the others before the run ends with an error."""

    def __post_init__(self) -> None:
        _require_least("parallel.", self, 1, "devices", "nodes", "timeout")
        require_choice("parallel.strategy", self.strategy, ("ddp", "fsdp"))


Tracker = Literal["tensorboard", "csv", "wandb", "mlflow"]


@dataclass(frozen=True)
class TrackConfig:
    """Programs that follow the run beside the metrics files that every run has."""

    trackers: tuple[Tracker, ...] | None = None
    """Any of tensorboard, csv, wandb and mlflow; null: tensorboard if it is installed."""
    project: str = "efnet"
    """Project of Weights & Biases, experiment of MLflow."""
    name: str | None = None
    """Name of the run there; null: the name of its folder."""
    address: str | None = None
    """MLflow's tracking server or store; null: MLFLOW_TRACKING_URI, else mlflow.db in the run's folder."""

    def __post_init__(self) -> None:
        for tracker in self.trackers or ():
            require_choice("track.trackers", tracker, get_args(Tracker))
        repeated = len(set(self.trackers or ())) < len(self.trackers or ())
        _require("track.trackers", self.trackers, not repeated, "each tracker once")


@dataclass(frozen=True)
class TrainConfig:
    """A whole recipe. The defaults are recipe `paper`: section III-B of the paper, its gaps filled."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    teach: TeachConfig = field(default_factory=TeachConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    recipe: str = "paper"
    """Name of the recipe that the defaults came from."""
    seed: int = 0
    """Seed of weights, order and augmentation."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    precision: Precision = "32"
    """32, or bf16 for autocast."""

    def __post_init__(self) -> None:
        _require_least("", self, 0, "seed")
        _require("seed", self.seed, self.seed < 2**63, "less than 2**63")
        check_precision(self.precision)
        kind = self.optimizer.kind
        if kind != "adamw" and self.parallel.strategy == "fsdp":
            raise InputError(
                f"optimizer.kind {kind} goes with `parallel.strategy` ddp; fsdp shards adamw alone"
            )
        for modality in ("rgb", "thermal"):
            name = f"drop_{modality}"
            if self.network.modality == modality and getattr(self.augment, name) > 0:
                raise InputError(
                    f"augment.{name} is {getattr(self.augment, name)}, but the network uses {modality} "
                    f"alone; give `augment.{name}` 0"
                )


def scratch() -> TrainConfig:
    """For little data: a higher rate with clipping, milder scales, a short warm-up.

    Behind weights of `network.init`, fresh parameters get ten times the rate: a decoder that starts near zero
    would otherwise need a third of a short run to follow.
    """
    return dataclasses.replace(
        TrainConfig(recipe="scratch"),
        optimizer=OptimizerConfig(lr=5e-4, weight_decay=0.02, clip=5.0, fresh_lr=10.0),
        schedule=ScheduleConfig(epochs=60, warmup_epochs=2.0),
        augment=AugmentConfig(scale=(0.75, 1.5)),
    )


def strong() -> TrainConfig:
    """For a network that starts from weights: `paper`, clipped, with the additions of `_strengthen`.

    Fresh parameters get ten times the rate, as the decoder does in SegFormer's published configurations.
    """
    base = TrainConfig(recipe="strong", optimizer=OptimizerConfig(clip=5.0, fresh_lr=10.0))
    return _strengthen(base)


def strong_scratch() -> TrainConfig:
    """For fresh weights: `scratch` with the additions of `_strengthen`."""
    return _strengthen(dataclasses.replace(scratch(), recipe="strong-scratch"))


def _strengthen(base: TrainConfig) -> TrainConfig:
    """Add a Dice term, which helped in the study (docs/training.md), and averaged weights, for long runs."""
    return dataclasses.replace(base, loss=LossConfig(dice=1.0), ema=EmaConfig(decay=0.999))


RECIPES = {"paper": TrainConfig, "scratch": scratch, "strong": strong, "strong-scratch": strong_scratch}


def get_recipe(name: str, network: str | None = None) -> TrainConfig:
    """Return the recipe of that name, `authors` of a `network`; raises InputError if there is none."""
    if name == "authors":
        from efnet.training.authors import authors_recipe

        return authors_recipe(network)
    if name not in RECIPES:
        raise InputError(f"no recipe {name!r}; there are {', '.join([*RECIPES, 'authors'])}")
    return RECIPES[name]()


def to_values(config: TrainConfig) -> dict[str, Any]:
    """Return a configuration as the plain values of its file."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join nested keys with dots: the place of every value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def read_config(values: dict[str, Any], source: str) -> TrainConfig:
    """Read a file's values over the recipe that it names; raises InputError that names `source`."""
    network = values.get("network")
    name = network.get("name") if isinstance(network, Mapping) else None
    try:
        recipe = get_recipe(values.get("recipe", TrainConfig().recipe), name)
        parser = _parser()
        parser.set_defaults(flatten(to_values(recipe)))
        return from_parsed(parser.instantiate(parser.parse_object(values)))
    except ArgumentError as error:
        raise InputError(f"{source}: {plain_fault(str(error))}") from error
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


@cache
def _parser() -> ArgumentParser:
    """Return a parser of configurations. Building it takes longer than to read one; set all its defaults."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig)
    return parser


def from_parsed(parsed: Namespace) -> TrainConfig:
    """Take the configuration out of the instantiated result of a parser."""
    return TrainConfig(**{field.name: parsed[field.name] for field in dataclasses.fields(TrainConfig)})
