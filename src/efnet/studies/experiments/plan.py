"""What all runs of a folder of experiments share, and the configuration that this gives each row and seed.

The plan that a folder of experiments keeps, so that what is added to it later began alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from efnet.core.devices import Precision
from efnet.core.errors import InputError, one_of
from efnet.core.files import write_json
from efnet.core.safe_parse import parse_json
from efnet.studies.experiments.paper_tables import ExperimentRow, plain
from efnet.training.config import TrainConfig
from efnet.training.run_folder import RunFolder

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


MANIFEST = "experiment.json"
"""The plan, in the folder of the experiments."""

_FREE = ("data.root", "data.workers", "data.cache", "device")
"""What may differ when a run goes on: it decides nothing."""


def claim(out: Path, plan: Plan) -> None:
    """Make sure that `out` is new or holds experiments of this very plan, and leave the plan there.

    Tables that share a folder may be of different networks; one network starts from the same weights in all.

    Raises:
        InputError: `out` is a file, holds something else, or experiments of another plan.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; choose another folder")
    runs = sorted(out.glob("*/seed*/config.yaml"))
    if runs:
        changes = [*_changes(read_plan(out), plan), *_other_weights(runs, plan)]
        if changes:
            raise InputError(
                f"--out {out}: holds experiments that began otherwise ({', '.join(changes)}); go on as they "
                "began, or choose another folder"
            )
        return
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise InputError(f"--out {out}: holds other files; choose another folder")
    write_json(out / MANIFEST, _shared(plan))


def _shared(plan: Plan) -> dict[str, Any]:
    """What of a plan is the same for all networks, and so for all processes that work in a folder."""
    return {key: value for key, value in plan.to_dict().items() if key != "init"}


def _changes(before: Plan, now: Plan) -> list[str]:
    old, new = _shared(before), _shared(now)
    return [f"{key} was {old[key]}, now {new[key]}" for key in new if old[key] != new[key]]


def _other_weights(runs: Sequence[Path], plan: Plan) -> list[str]:
    """Networks that runs of the folder started from other weights than the plan says."""
    found = {}
    for path in runs:
        run = _flat(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        name, before = str(run.get("network.name")), run.get("network.init")
        if name in plan.init and plan.init[name] != before:
            found[name] = f"init of {name} was {before or 'fresh'}, now {plan.init[name] or 'fresh'}"
    return list(found.values())


def read_plan(out: Path) -> Plan:
    """The plan of a folder of experiments, without the weights: each run says its own.

    Raises:
        InputError: it holds none.
    """
    try:
        values = parse_json((out / MANIFEST).read_text(encoding="utf-8"))
        size = values.get("size")
        return Plan(**values | {"size": None if size is None else tuple(size), "init": {}})
    except OSError:
        raise InputError(
            f"--out {out}: holds no experiments; start them with: efnet experiment run"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{out / MANIFEST}: damaged ({error}); choose another folder") from error


def refuse_changes(folder: RunFolder, config: TrainConfig) -> None:
    """A run keeps what decides its result, whether it is finished or goes on.

    Raises:
        InputError: the folder's configuration is another one; the message says in what.
    """
    if not folder.config.is_file():
        return
    # Options that came after the run began had their defaults.
    before = _flat(plain(TrainConfig())) | _flat(yaml.safe_load(folder.config.read_text(encoding="utf-8")))
    now = _flat(plain(config))
    changed = [place for place in now if place not in _FREE and before.get(place) != now[place]]
    if changed:
        listed = ", ".join(f"{place} was {before.get(place)}, now {now[place]}" for place in changed)
        raise InputError(
            f"{folder.path}: was run with another configuration ({listed}); remove it, or "
            "choose another --out"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
