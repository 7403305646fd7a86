"""Bad requests: 4xx, one sentence with the remedy, nothing written, and the service goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient
from fault_weights import CANARY
from fault_world import SIZE, small_model
from table_service import CASES, FORM, GOOD, MOST_BYTES, MOST_PIXELS, SEGMENT, Request

from efnet.inference.predictor import Predictor
from efnet.service.app import create_app
from efnet.service.segmenter import Limits


class Writes:
    """Notes the files that this process opens for writing; Python keeps its audit hooks for good.

    Attributes:
        found: their names; None: nothing is noted.
    """

    def __init__(self) -> None:
        self.found: list[str] | None = None
        sys.addaudithook(self._note)

    def _note(self, event: str, details: tuple) -> None:
        if self.found is not None and event == "open":
            name, _, flags = details
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and "__pycache__" not in str(name):  # Python's own, of a module loaded only now
                self.found.append(str(name))


@pytest.fixture(scope="module")
def writes() -> Writes:
    return Writes()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    model = small_model()
    model.input = type(model.input)(size=SIZE)
    limits = Limits(max_bytes=MOST_BYTES, max_pixels=MOST_PIXELS, batch_wait_ms=0)
    app = create_app(Predictor(model, device="cpu"), limits, frozenset({"testserver"}))
    with TestClient(app, follow_redirects=False) as client:
        assert client.post(SEGMENT, content=GOOD, headers=FORM).status_code == 200
        yield client


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_request(
    case: Request, client: TestClient, writes: Writes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writes.found = []
    answer = client.request(case.method, case.path, content=case.body, headers=case.headers)
    found, writes.found = writes.found, None
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (case.status, case.code), error
    assert list(answer.json()) == ["error"]
    for part in case.says:
        assert part in error["message"]
    assert len(error["message"].splitlines()) == 1
    assert len(error["message"]) < 500
    assert error["message"].endswith(".")
    assert "Traceback" not in error["message"]
    assert found == []
    assert not (tmp_path / CANARY).exists()


def test_the_service_goes_on(client: TestClient) -> None:
    assert client.post(SEGMENT, content=GOOD, headers=FORM).status_code == 200
    assert client.get("/healthz").json() == {"status": "ready"}


def test_writes_are_seen(writes: Writes, tmp_path: Path) -> None:
    writes.found = []
    (tmp_path / "x").write_text("x")
    found, writes.found = writes.found, None
    assert found == [str(tmp_path / "x")]


def test_there_are_25_requests() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 25
