"""Fixtures: the network of `service_helpers` as an application and as a running service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient
from service_helpers import ServerProcess, make_model, make_predictor

from efnet.inference.predictor import Predictor
from efnet.service.app import create_app
from efnet.service.segmenter import Limits


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    return make_predictor()


@pytest.fixture(scope="session")
def client(predictor: Predictor) -> Iterator[TestClient]:
    limits = Limits(max_bytes=4_000_000, max_pixels=300_000, batch_wait_ms=0)
    with TestClient(create_app(predictor, limits)) as client:
        yield client


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_model(size=(48, 64)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def server(checkpoint: Path) -> Iterator[ServerProcess]:
    running = ServerProcess(checkpoint, "--max-bytes", "6000000", "--batch-wait-ms", "50")
    yield running
    status, errors = running.end()
    assert (status, errors) == (0, "")
