"""Clients that are slow, silent or gone: nobody holds a connection or a place beyond the limits."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlparse

import httpx
import pytest
from service_helpers import ServerProcess, files_of, make_model, metric

from efnet.inference.predictor import Predictor
from efnet.service.app import create_app
from efnet.service.segmenter import Limits

TIMEOUT = 1.0
HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture(scope="module")
def impatient(checkpoint: Path) -> Iterator[ServerProcess]:
    """All limits on a connection are at most the time limit of a request."""
    running = ServerProcess(checkpoint, "--timeout", str(TIMEOUT), "--max-concurrent", "2")
    while httpx.get(f"{running.url}healthz").status_code != 200:
        time.sleep(0.02)
    yield running
    status, errors = running.end()
    assert status == 0
    assert "Traceback" not in errors


@pytest.fixture
def connection(impatient: ServerProcess) -> Iterator[socket.socket]:
    place = urlparse(impatient.url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        yield connection


def post(length: int = 100_000) -> bytes:
    head = "POST /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return f"{head}Content-Length: {length}\r\n\r\n--x\r\n".encode()


def received(connection: socket.socket) -> bytes:
    """All that comes until the service closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def dripping(connection: socket.socket) -> Callable[[], None]:
    """Sends a byte every now and then until the connection breaks; returns what ends that."""
    ended = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            while not ended.wait(0.05):
                connection.send(b"x")

    threading.Thread(target=drip, daemon=True).start()
    return ended.set


@pytest.mark.parametrize("sent", [b"", b"GET /heal", HEAD + b"X-Slow: "])
def test_a_request_that_never_begins_or_never_ends(connection: socket.socket, sent: bytes) -> None:
    connection.sendall(sent)
    stop = dripping(connection) if sent else lambda: None
    assert received(connection) == b""
    stop()


def test_a_second_request_has_its_time_too(connection: socket.socket) -> None:
    for _ in range(4):
        time.sleep(0.4 * TIMEOUT)
        connection.sendall(HEAD + b"\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")
    stop = dripping(connection)
    received(connection)
    stop()


def test_a_body_that_drips_on_after_its_refusal(connection: socket.socket) -> None:
    connection.sendall(post())
    stop = dripping(connection)
    answer = received(connection)
    stop()
    assert answer.startswith(b"HTTP/1.1 408")
    assert answer.endswith(b"}")


def test_the_rest_of_a_refused_body_does_not_cost_the_answer(impatient: ServerProcess) -> None:
    place = urlparse(impatient.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    for _ in range(2):  # and the connection goes on to be of use
        body = b"x" * 3_000_000
        connection.request("POST", "/v1/segment", body, {"Content-Type": "text/plain"})
        response = connection.getresponse()
        assert response.status == 415
        response.read()
    connection.close()


def test_a_client_that_never_reads_is_let_go(impatient: ServerProcess) -> None:
    place = urlparse(impatient.url)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((place.hostname, place.port))
        deaf.settimeout(0.2)
        request = HEAD.replace(b"healthz", b"docs") + b"\r\n"
        ended = time.monotonic() + 60
        while time.monotonic() < ended:
            try:
                deaf.sendall(request * 20)
            except TimeoutError:
                continue
            except ConnectionError:
                return
    pytest.fail("the connection is still there")


def test_noise_in_place_of_a_request(connection: socket.socket, impatient: ServerProcess) -> None:
    long = HEAD + b"X-Long: " + b"y" * 200_000
    with contextlib.suppress(ConnectionError):
        connection.sendall(long)
    assert received(connection).startswith((b"HTTP/1.1 400", b""))
    assert httpx.get(f"{impatient.url}healthz").status_code == 200


def test_leaving_before_the_answer_frees_the_place() -> None:
    predictor = Predictor(make_model(), device="cpu")
    passes: list[int] = []
    plain = predictor.run

    def counted(prepared, probabilities=False):
        passes.append(len(prepared))
        return plain(prepared, probabilities)

    predictor.run = counted  # type: ignore[method-assign]
    app = create_app(predictor, Limits(batch_wait_ms=3_600_000, batch_size=8, timeout=600))
    request = httpx.Request("POST", "http://x/v1/segment", files=files_of())
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/segment",
        "raw_path": b"/v1/segment",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
    }

    async def talk() -> tuple[int, int]:
        segmenter = app.state.segmenter
        gone = asyncio.Event()
        messages = [{"type": "http.request", "body": request.read(), "more_body": False}]
        statuses: list[int] = []

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message) -> None:
            statuses.append(message.get("status", 0))

        async with app.router.lifespan_context(app):
            asking = asyncio.ensure_future(app(scope, receive, send))
            while metric(segmenter.metrics.render(), "efnet_queue_length") < 2:  # the warm-up waits, too
                await asyncio.sleep(0.01)
            gone.set()
            await asking
            assert metric(segmenter.metrics.render(), "efnet_requests_under_way") == 0
        return statuses[0], sum(passes)

    assert asyncio.run(talk()) == (499, 1), "the warm-up alone went through the network"
