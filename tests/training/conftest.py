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
