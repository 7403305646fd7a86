"""The paper's tables, and studies of ours: the configuration of each row, and the paper's figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from efnet.core.errors import InputError
from efnet.training.config import TrainConfig, read_config

_FOLDER = resources.files("efnet.studies.experiments")


@dataclass(frozen=True)
class PaperFigures:
    """Figures that the paper, or a row's own source, prints; None: not printed."""

    miou: float | None = None  # percent
    macc: float | None = None  # percent
    parameters: float | None = None  # millions
    operations: float | None = None  # 10^9; the paper does not define them


@dataclass(frozen=True)
class ExperimentRow:
    """A row of a table."""

    name: str
    label: str  # name in reports
    config: str  # name of its configuration, which rows of other tables with the same network share
    paper: PaperFigures
    beyond: bool = False  # not in the paper's table: `paper` holds what studies/published has of it
    remark: str | None = None  # on the printed row

    @property
    def path(self) -> Path:
        """The configuration file, which `efnet train` reads."""
        return Path(str(_FOLDER.joinpath("configs", f"{self.config}.yaml")))

    def load(self, recipe: str | None = None) -> TrainConfig:
        """Read the row's configuration, with `recipe` if given; raises InputError if either is wrong."""
        return _load(self.path, recipe)

    @property
    def names_weights(self) -> bool:
        """Whether the row's configuration names the initial weights, so that no other can be given."""
        return self.load().network.init is not None

    def network_options(self) -> dict[str, Any]:
        """Return the options of `create_model` in which the row differs from the full model."""
        return self.load().network.changed()


@cache
def _load(path: Path, recipe: str | None) -> TrainConfig:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if recipe is not None:
        values["recipe"] = recipe
    return read_config(values, str(path))


@dataclass(frozen=True)
class ExperimentTable:
    """A table of the paper, or a study of ours."""

    name: str  # its name in `efnet experiment`
    place: str | None  # in the paper; None: a study of ours, which compares each row with the first
    title: str
    rows: tuple[ExperimentRow, ...]  # in the paper's order
    note: str | None = None  # on the paper's figures

    @property
    def heading(self) -> str:
        """A heading such as `Table IV: fusion methods on MFNet`."""
        if self.place is None:
            return f"Study: {self.title}"
        kind = "Section" if "-" in self.place else "Table"
        return f"{kind} {self.place}: {self.title}"

    def choose(self, names: list[str] | None) -> tuple[ExperimentRow, ...]:
        """Return the rows of these names (None: all) in the table's order; raises InputError if unknown."""
        if names is None:
            return self.rows
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                raise InputError(f"`rows` {name}: {self.name} has the rows {', '.join(known)}")
        return tuple(row for row in self.rows if row.name in names)


@cache
def list_tables() -> tuple[ExperimentTable, ...]:
    """Return all tables, in the paper's order."""
    values = yaml.safe_load(_FOLDER.joinpath("tables.yaml").read_text(encoding="utf-8"))
    return tuple(
        ExperimentTable(
            name,
            table.get("place"),
            table["title"],
            tuple(
                ExperimentRow(
                    key,
                    row["label"],
                    row["config"],
                    PaperFigures(**row.get("paper", {})),
                    row.get("beyond", False),
                    row.get("remark"),
                )
                for key, row in table["rows"].items()
            ),
            table.get("note"),
        )
        for name, table in values.items()
    )


def get_table(name: str) -> ExperimentTable:
    """Return the table of that name; raises InputError if there is none."""
    for table in list_tables():
        if table.name == name:
            return table
    raise InputError(f"no table {name!r}; there are {', '.join(table.name for table in list_tables())}")
