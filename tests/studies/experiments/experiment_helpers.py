"""Quick runs of a table, and a reporter that acts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from efnet.studies.experiments.paper_tables import get_table
from efnet.studies.experiments.plan import Plan
from efnet.studies.experiments.run import Cell, run_table
from efnet.training.logs import Reporter

PLAN = Plan(budget="tiny", epochs=2)


class Listening(Reporter):
    """Remembers what it is told, and may act on it."""

    def __init__(self, act: Callable[[str], None] = lambda text: None) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []
        self.act = act

    def say(self, text: str) -> None:
        self.lines.append(text)
        self.act(text)


@contextlib.contextmanager
def no_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


def run(out: Path, root: Path, reporter: Reporter | None = None, **options: Any) -> list[Cell]:
    """Two rows of table IV on the scenes, unless told otherwise."""
    settings: dict[str, Any] = {"plan": PLAN, "rows": ["add", "mif"], "table": "table4"} | options
    table, plan = get_table(settings.pop("table")), settings.pop("plan")
    roots = dict.fromkeys(("mfnet", "pst900", "fmb"), root)
    settings.setdefault("device", "cpu")
    return run_table(table, out, plan, roots, reporter=reporter or Listening(), bar=no_bar, **settings)
