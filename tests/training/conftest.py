"""A small generated data set for training tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from efnet.scenes import write_dataset


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes to learn from, two to validate on, two to test."""
    root = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(root, train=6, val=2, test=2, size=(64, 96), seed=1)
    return root


@pytest.fixture(scope="session")
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The last state of the run of `test_killed.words` that nobody disturbed."""
    from test_killed import finish

    return finish(scenes, tmp_path_factory.mktemp("killed") / "whole")
