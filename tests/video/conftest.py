"""Fixtures: a small predictor, its checkpoint, and a pair of videos."""

from __future__ import annotations

from pathlib import Path

import pytest
from video_helpers import make_model, write_pair_of_videos

from efnet.inference.predictor import Predictor


@pytest.fixture
def predictor() -> Predictor:
    predictor = Predictor(make_model(), device="cpu")
    predictor.missing = "warn"
    return predictor


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("video") / "model"
    make_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair_of_videos(tmp_path_factory.mktemp("videos"))
