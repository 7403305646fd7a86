"""A small generated data set, and two finished rows on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment_helpers import run

from efnet.scenes import write_dataset
from efnet.studies.experiments import plan
from efnet.studies.experiments import run as run_module
from efnet.studies.experiments.plan import TinyBudget


@pytest.fixture(scope="session", autouse=True)
def _less_than_tiny() -> Iterator[None]:
    """A tiny budget of seconds in place of minutes."""
    small = TinyBudget(8, 2, 2, (64, 96), (64, 96), epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        for module in (plan, run_module):
            patch.setattr(module, "TINY", small)
        yield


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes to learn from, two to validate on, two to test."""
    root = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(root, train=4, val=2, test=2, size=(64, 96), seed=1)
    return root


@pytest.fixture(scope="session")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows add and mif of table IV, run without interruption."""
    out = tmp_path_factory.mktemp("experiments") / "runs"
    run(out, scenes)
    return out
