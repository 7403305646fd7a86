"""Settings that all runs of a folder share, and the configuration of each row and seed that follows.

The folder keeps its plan, so that runs that are added later begin with the same settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from efnet.core.devices import Precision
from efnet.core.errors import InputError, one_of
from efnet.core.files import write_json
from efnet.core.journal import changes, find_manifest, read_manifest
from efnet.studies.experiments.paper_tables import ExperimentRow, list_tables
from efnet.training.config import TrainConfig, flatten
from efnet.training.run_folder import RunFolder

Budget = Literal["full", "tiny"]

STANDARD = "efnet_light"
"""The preset that `model` and a tiny budget replace; rows of other networks keep theirs."""


@dataclass(frozen=True)
class TinyBudget:
    """Sizes of a tiny run: minutes for a table on two cores."""

    train: int = 48  # generated scenes to train on; likewise `val` and `test`
    val: int = 12
    test: int = 20
    scene_size: tuple[int, int] = (144, 192)  # (H, W) of generated scenes
    input_size: tuple[int, int] = (96, 128)  # (H, W) of the network's input, also for real pairs
    epochs: int = 10
    batch_size: int = 4
    lr: float = 1.5e-3


TINY = TinyBudget()


@dataclass(frozen=True)
class Plan:
    """Settings of all runs in one folder."""

    budget: Budget = "full"  # `full`: the paper's recipe; `tiny`: only shows that a table can be made
    generated: bool = False  # use generated scenes in place of the rows' data sets (budget tiny only)
    recipe: str | None = None  # in place of the rows' own; None: theirs
    model: str | None = None  # preset in place of efnet_light; None: efnet_light, tiny: efnet_tiny
    # initial weights of each network, by its name; None, or no entry: fresh ones
    init: Mapping[str, str | None] = field(default_factory=dict)
    epochs: int | None = None  # None: the recipe's
    minutes: float | None = None  # of training and validation; decides the epochs of each row
    size: tuple[int, int] | None = None  # (H, W) of the network's input; None: the recipe's
    precision: Precision = "32"  # of training and evaluation

    def __post_init__(self) -> None:
        if self.generated and self.budget != "tiny":
            raise InputError("give `root`; generated scenes are for `budget` tiny alone")
        if self.budget == "tiny" and self.recipe is not None:
            raise InputError("`recipe` goes with the full budget; `budget` tiny has a recipe of its own")
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"`epochs` {self.epochs}: give 1 or more")
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise InputError(f"`minutes` {self.minutes:g}: give more than 0")
        if self.minutes is not None and self.epochs is not None:
            raise InputError("`minutes` decides how many epochs there are; leave `epochs` out")

    def dataset(self, row: ExperimentRow) -> str:
        """Return the layout of the data that the row is trained on."""
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
        """Return the configuration of one run; raises InputError if a value is out of its range.

        `epochs` follow from the plan's minutes; None: the plan's own or the recipe's.
        """
        config = row.load(self.recipe) if self.budget == "full" else _tiny(row)
        name = self._network(config)
        protocol = "native" if self.generated else config.validation.protocol
        return replace(
            config,
            data=replace(
                config.data,
                dataset=self.dataset(row),
                root=str(root),
                size=self.size or config.data.size,
                workers=0 if config.data.cache else workers,
            ),
            network=replace(config.network, name=name, init=config.network.init or self.init.get(name)),
            schedule=replace(config.schedule, epochs=epochs or self.epochs or config.schedule.epochs),
            validation=replace(config.validation, protocol=protocol),
            seed=seed,
            device=device,
            precision=self.precision,
        )

    def settled(self, rows: Sequence[ExperimentRow]) -> Plan:
        """Return the same plan with an entry of `init` for each network of these rows."""
        names = dict.fromkeys(self.network(row) for row in rows if not row.names_weights)
        return replace(self, init={name: self.init.get(name) for name in names})

    def network(self, row: ExperimentRow) -> str:
        """Return the name of the row's network."""
        return self._network(row.load())

    def _network(self, config: TrainConfig) -> str:
        if config.network.name != STANDARD:
            return config.network.name
        return self.model or ("efnet_tiny" if self.budget == "tiny" else STANDARD)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the manifest."""
        return asdict(self)


def _tiny(row: ExperimentRow) -> TrainConfig:
    """Return the row's configuration by the recipe for fresh weights: few epochs of small images."""
    config = row.load("scratch")
    return replace(
        config,
        data=replace(config.data, size=TINY.input_size, batch_size=TINY.batch_size, cache=True, workers=0),
        optimizer=replace(config.optimizer, lr=TINY.lr),
        schedule=replace(config.schedule, epochs=TINY.epochs),
        validation=replace(config.validation, every=2, samples=0),
    )


def check_budget(name: str) -> Budget:
    """Return the budget of that name; raises InputError if there is none."""
    known: tuple[Budget, ...] = get_args(Budget)
    return one_of(name, known, f"`budget` {name}: choose")


MANIFEST = "experiment.json"
"""The plan, in the folder of the experiments."""

_FREE = ("data.root", "data.workers", "data.cache", "device")
"""Options that may differ when a run continues, since they do not affect its result."""


def claim(out: Path, plan: Plan) -> None:
    """Write the plan to `out`; raises InputError unless that is new or holds experiments of this plan.

    Tables that share a folder may be of different networks; one network starts from the same weights in all.
    """
    before = find_manifest(out, MANIFEST)
    runs = sorted(out.glob("*/seed*/config.yaml"))
    if before is not None and runs:
        found = [*changes(_shared(read_plan(out)), _shared(plan)), *_other_weights(runs, plan)]
        if found:
            raise InputError(
                f"`out` {out}: holds experiments that began otherwise ({', '.join(found)}); go on as they "
                "began, or choose another folder"
            )
        return
    write_json(out / MANIFEST, _shared(plan))


def _shared(plan: Plan) -> dict[str, Any]:
    """Return the values that are the same for all networks, and so for all processes in a folder."""
    return {key: value for key, value in plan.to_dict().items() if key != "init"}


def _other_weights(runs: Sequence[Path], plan: Plan) -> list[str]:
    """List the networks whose runs in the folder started from other weights than the plan's."""
    own = {row.config for table in list_tables() for row in table.rows if row.names_weights}
    found = {}
    for path in runs:
        if path.parent.parent.name in own:
            continue
        run = flatten(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        name, before = str(run.get("network.name")), run.get("network.init")
        if name in plan.init and plan.init[name] != before:
            found[name] = f"init of {name} was {before or 'fresh'}, now {plan.init[name] or 'fresh'}"
    return list(found.values())


def read_plan(out: Path) -> Plan:
    """Read the plan of a folder, without the weights, which runs record; raises InputError if it has none."""
    values = read_manifest(out / MANIFEST)
    if values is None:
        raise InputError(f"`out` {out}: holds no experiments; start them with: efnet experiment run")
    if not values:
        raise InputError(f"{out / MANIFEST}: damaged; choose another folder")
    try:
        size = values.get("size")
        return Plan(**values | {"size": None if size is None else tuple(size), "init": {}})
    except (ValueError, TypeError) as error:
        raise InputError(f"{out / MANIFEST}: damaged ({error}); choose another folder") from error


def refuse_changes(folder: RunFolder, config: TrainConfig) -> None:
    """Raise InputError with the options that differ from the run's in the folder and affect its result."""
    if not folder.config.is_file():
        return
    changes = folder.describe_changes(config, _FREE)
    if changes:
        raise InputError(
            f"{folder.path}: was run with another configuration ({changes}); remove it, or "
            "choose another `out`"
        )
