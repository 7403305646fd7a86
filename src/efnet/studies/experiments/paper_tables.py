"""The paper's tables, and a study of ours: how each row is trained, and what the paper prints for it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from efnet.core.errors import InputError
from efnet.training.config import NetworkConfig, TrainConfig
from efnet.training.recipes import get_recipe

_FOLDER = resources.files("efnet.studies.experiments")


@dataclass(frozen=True)
class PaperFigures:
    """What the paper prints for a row; None: nothing.

    Attributes:
        miou: percent.
        macc: percent.
        parameters: millions.
        operations: 10^9; the paper does not say what counts as one.
    """

    miou: float | None = None
    macc: float | None = None
    parameters: float | None = None
    operations: float | None = None


@dataclass(frozen=True)
class ExperimentRow:
    """A row of a table.

    Attributes:
        name: within its table.
        label: as tables show it.
        config: name of its configuration; rows of several tables that are one network share it.
        paper: what the paper prints.
    """

    name: str
    label: str
    config: str
    paper: PaperFigures

    @property
    def path(self) -> Path:
        """The configuration file, as `efnet train --config` takes it."""
        return Path(str(_FOLDER.joinpath("configs", f"{self.config}.yaml")))

    def load(self, recipe: str | None = None) -> TrainConfig:
        """The row's configuration.

        Args:
            recipe: in place of the one that the file names.

        Raises:
            InputError: the recipe is unknown, or the file does not fit the configuration of a run.
        """
        values = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        if recipe is not None:
            values["recipe"] = recipe
        return read_config(values, str(self.path))

    def network_options(self) -> dict[str, Any]:
        """The options of `create_model` in which the row differs from the full model."""
        network, full = self.load().network, NetworkConfig()
        names = ("fusion", "position", "tau", "decoder", "modality", "merging")
        return {
            name: getattr(network, name) for name in names if getattr(network, name) != getattr(full, name)
        }


@dataclass(frozen=True)
class ExperimentTable:
    """A table of the paper, or a study of ours.

    Attributes:
        name: what `efnet experiment` calls it.
        place: where in the paper: the number of a table, or a section; None: a study of ours, each row
            of which is compared with the first.
        title: what it is about.
        rows: ours, in the paper's order.
        note: what a reader of the paper's figures should know.
    """

    name: str
    place: str | None
    title: str
    rows: tuple[ExperimentRow, ...]
    note: str | None = None

    @property
    def heading(self) -> str:
        """Such as `Table IV: fusion methods on MFNet`."""
        if self.place is None:
            return f"Study: {self.title}"
        kind = "Section" if "-" in self.place else "Table"
        return f"{kind} {self.place}: {self.title}"

    def choose(self, names: list[str] | None) -> tuple[ExperimentRow, ...]:
        """The rows of these names, in the table's order; all of them for None.

        Raises:
            InputError: there is no such row.
        """
        if names is None:
            return self.rows
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                raise InputError(f"--rows {name}: {self.name} has the rows {', '.join(known)}")
        return tuple(row for row in self.rows if row.name in names)


@cache
def list_tables() -> tuple[ExperimentTable, ...]:
    """All tables, in the paper's order."""
    values = yaml.safe_load(_FOLDER.joinpath("tables.yaml").read_text(encoding="utf-8"))
    return tuple(
        ExperimentTable(
            name,
            table.get("place"),
            table["title"],
            tuple(
                ExperimentRow(key, row["label"], row["config"], PaperFigures(**row.get("paper", {})))
                for key, row in table["rows"].items()
            ),
            table.get("note"),
        )
        for name, table in values.items()
    )


def get_table(name: str) -> ExperimentTable:
    """The table of that name.

    Raises:
        InputError: there is none.
    """
    for table in list_tables():
        if table.name == name:
            return table
    raise InputError(f"no table {name!r}; there are {', '.join(table.name for table in list_tables())}")


def read_config(values: dict[str, Any], source: str) -> TrainConfig:
    """A configuration from the values of a file: its recipe, and over it what the file says.

    Raises:
        InputError: an unknown recipe or key, or a value of the wrong kind; the message names `source`.
    """
    recipe = get_recipe(values.get("recipe", TrainConfig().recipe))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig)
    try:
        parsed = parser.instantiate(parser.parse_object(_merged(plain(recipe), values)))
    except ArgumentError as error:
        raise InputError(f"{source}: {error}") from error
    return TrainConfig(**{field.name: parsed[field.name] for field in dataclasses.fields(TrainConfig)})


def plain(config: TrainConfig) -> dict[str, Any]:
    """A configuration as the values of its file."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `values`, nested ones key by key."""
    merged = dict(values)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged
