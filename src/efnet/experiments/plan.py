"""What all runs of a folder of experiments share, and the configuration that this gives each row and seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from efnet.devices import Precision
from efnet.errors import InputError, one_of
from efnet.experiments.tables import ExperimentRow
from efnet.training.config import TrainConfig

Budget = Literal["full", "tiny"]

STANDARD = "efnet_light"
"""The preset that `model`, and a tiny budget, put another one in place of; other networks are what their rows
are about, and stay."""


@dataclass(frozen=True)
class TinyBudget:
    """How little a tiny run does: minutes for a table on two cores.

    Attributes:
        train: generated scenes to train on; likewise `val` and `test`.
        scene_size: (H, W) of generated scenes.
        input_size: (H, W) that the network sees, of generated scenes and of real pairs.
        epochs: passes over the training split.
        batch_size: pairs per step.
        lr: base learning rate.
    """

    train: int = 48
    val: int = 12
    test: int = 20
    scene_size: tuple[int, int] = (144, 192)
    input_size: tuple[int, int] = (96, 128)
    epochs: int = 10
    batch_size: int = 4
    lr: float = 1.5e-3


TINY = TinyBudget()


@dataclass(frozen=True)
class Plan:
    """What all runs under one folder share.

    Attributes:
        budget: `full`: the paper's recipe; `tiny`: shows that a table can be made, and nothing else.
        generated: on generated scenes in place of the rows' data sets (budget tiny alone).
        recipe: in place of the rows' own; None: theirs.
        model: preset in place of efnet_light; None: efnet_light, or efnet_tiny for a tiny budget.
        init: weights that each network starts from, by its name; None, or no entry: fresh ones.
        epochs: in place of the recipe's; None: its own.
        minutes: to train and validate for: each row gets the epochs that it makes in that time.
        size: (H, W) that the network sees, in place of the recipe's; None: its own.
        precision: of training and evaluation.
    """

    budget: Budget = "full"
    generated: bool = False
    recipe: str | None = None
    model: str | None = None
    init: Mapping[str, str | None] = field(default_factory=dict)
    epochs: int | None = None
    minutes: float | None = None
    size: tuple[int, int] | None = None
    precision: Precision = "32"

    def __post_init__(self) -> None:
        if self.generated and self.budget != "tiny":
            raise InputError("give --root; generated scenes are for --budget tiny alone")
        if self.budget == "tiny" and self.recipe is not None:
            raise InputError("--recipe goes with the full budget; --budget tiny has a recipe of its own")
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"--epochs {self.epochs}: give 1 or more")
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise InputError(f"--minutes {self.minutes:g}: give more than 0")
        if self.minutes is not None and self.epochs is not None:
            raise InputError("--minutes decides how many epochs there are; leave --epochs out")

    def dataset(self, row: ExperimentRow) -> str:
        """Layout of the data that the row is trained on."""
        return "mfnet" if self.generated else row.load().data.dataset

    def config(
        self,
        row: ExperimentRow,
        seed: int,
        root: Path,
        device: str = "auto",
        workers: int = 2,
        epochs: int | None = None,
    ) -> TrainConfig:
        """The configuration of one run.

        Args:
            row: of a table.
            seed: of weights, order and augmentation.
            root: folder of the data set.
            device: as of `efnet train`.
            workers: processes that read images.
            epochs: that the plan's minutes allow; None: the plan's or the recipe's.

        Raises:
            InputError: a value is out of its range.
        """
        config = row.load(self.recipe) if self.budget == "full" else _tiny(row)
        data = dataclasses.replace(
            config.data,
            dataset=self.dataset(row),
            root=str(root),
            size=self.size or config.data.size,
            workers=0 if config.data.cache else workers,
        )
        name = self._network(config)
        network = dataclasses.replace(config.network, name=name, init=self.init.get(name))
        schedule = dataclasses.replace(
            config.schedule, epochs=epochs or self.epochs or config.schedule.epochs
        )
        validation = dataclasses.replace(
            config.validation, protocol="native" if self.generated else config.validation.protocol
        )
        return dataclasses.replace(
            config,
            data=data,
            network=network,
            schedule=schedule,
            validation=validation,
            seed=seed,
            device=device,
            precision=self.precision,
        )

    def settled(self, rows: Sequence[ExperimentRow]) -> Plan:
        """The same plan, with an entry of `init` for each network of these rows."""
        names = dict.fromkeys(self.network(row) for row in rows)
        return dataclasses.replace(self, init={name: self.init.get(name) for name in names})

    def network(self, row: ExperimentRow) -> str:
        """Name of the row's network."""
        return self._network(row.load())

    def _network(self, config: TrainConfig) -> str:
        if config.network.name != STANDARD:
            return config.network.name
        return self.model or ("efnet_tiny" if self.budget == "tiny" else STANDARD)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return dataclasses.asdict(self)


def _tiny(row: ExperimentRow) -> TrainConfig:
    """The row's network, small, under the recipe for fresh weights, for a few epochs of small images."""
    config = row.load("scratch")
    return dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data, size=TINY.input_size, batch_size=TINY.batch_size, cache=True, workers=0
        ),
        optimizer=dataclasses.replace(config.optimizer, lr=TINY.lr),
        schedule=dataclasses.replace(config.schedule, epochs=TINY.epochs),
        validation=dataclasses.replace(config.validation, every=2, samples=0),
    )


def check_budget(name: str) -> Budget:
    """The budget of that name.

    Raises:
        InputError: there is none.
    """
    known: tuple[Budget, ...] = get_args(Budget)
    return one_of(name, known, f"--budget {name}: choose")
