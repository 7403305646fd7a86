"""Fixtures: the network of `prediction_helpers`, as a predictor and as a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from prediction_helpers import make_model, write_pair

from efnet.inference.predictor import Predictor


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    return Predictor(make_model(), device="cpu")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(folder)
    return folder


@pytest.fixture
def folders(tmp_path):
    """Three pairs in `rgb/` and `thermal/`."""
    for number in range(3):
        write_pair(tmp_path, f"frame{number}", number)
    return tmp_path
