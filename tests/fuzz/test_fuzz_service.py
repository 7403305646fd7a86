"""Requests of every kind to the service: an answer below 500, or 503 where it is busy, in JSON where it is
a refusal, and none without its reason.

They go to the ASGI application itself: a client would put right much of what is wrong with them.
`EFNET_FUZZ_EXAMPLES=5000 pytest tests/fuzz` tries more than the few of every day.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from efnet.inference.predictor import Predictor
from efnet.models.config import BackboneConfig, EFNetConfig
from efnet.models.efnet import EFNet
from efnet.service.app import create_app
from efnet.service.segmenter import Limits

EXAMPLES = int(os.environ.get("EFNET_FUZZ_EXAMPLES", "60"))
LIMITS = Limits(max_bytes=100_000, max_pixels=20_000, batch_wait_ms=0)
BUSY = 503

Header = tuple[bytes, bytes]


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Service:
    """The application in an event loop of its own."""

    def __init__(self) -> None:
        backbone = BackboneConfig((1, 1, 1, 1), (8, 16, 24, 32), (1, 1, 1, 1), (2, 2, 2, 2))
        self.app = create_app(Predictor(EFNet(EFNetConfig(backbone)), device="cpu"), LIMITS, frozenset())
        self.runner = asyncio.Runner()
        self.lifespan = self.app.router.lifespan_context(self.app)
        self.runner.run(self.lifespan.__aenter__())

    def close(self) -> None:
        self.runner.run(self.lifespan.__aexit__(None, None, None))
        self.runner.close()

    def ask(self, method: str, path: str, query: bytes, headers: list[Header], chunks: list[bytes]) -> Answer:
        """One request, its body in these chunks."""
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": path, "raw_path": path.encode("utf-8", "replace"), "root_path": "",
            "query_string": query, "headers": headers, "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }  # fmt: skip
        return self.runner.run(self._answer(scope, chunks))

    async def _answer(self, scope: dict[str, Any], chunks: list[bytes]) -> Answer:
        left = [*chunks]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if left:
                return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}
            await asyncio.sleep(3600)  # the client waits for its answer
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await asyncio.wait_for(self.app(scope, receive, send), 60)
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(sent[0]["status"], dict(sent[0]["headers"]), body)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.close()


def picture(channels: int, kind: str = "PNG") -> bytes:
    pixels = np.arange(36 * 40 * channels, dtype=np.uint32).reshape(36, 40, channels) % 251
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8).squeeze()).save(buffer, kind)
    return buffer.getvalue()


PICTURES = [
    picture(1),
    picture(3),
    picture(4),
    picture(1, "JPEG"),
    picture(3, "TIFF"),
    picture(3, "BMP"),
    b"",
]
GOOD = {b"rgb": picture(3), b"thermal": picture(1)}
NAMES = st.sampled_from([b"rgb", b"thermal", b"rgbt"]) | st.binary(max_size=12)
NOISE = st.binary(max_size=80)


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """A picture, mostly with a few bytes changed, taken out or put in."""
    spoilt = bytearray(draw(st.sampled_from(PICTURES) | NOISE))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(spoilt)))
        spoilt[place : place + draw(st.integers(0, 6))] = draw(st.binary(max_size=6))
    return bytes(spoilt)


@st.composite
def parts(draw: st.DrawFn) -> bytes:
    """One part of a form."""
    name = draw(NAMES)
    heads = [b'Content-Disposition: form-data; name="' + name + b'"; filename="x.png"']
    heads += draw(
        st.lists(st.sampled_from([b"Content-Type: image/png", b"X", b": y", b"\0: \xff"]), max_size=2)
    )
    if draw(st.integers(0, 7)) == 0:
        heads = [draw(NOISE)]
    return b"--line\r\n" + b"\r\n".join(heads) + b"\r\n\r\n" + draw(contents()) + b"\r\n"


def form(files: dict[bytes, bytes]) -> bytes:
    head = b'--line\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    return b"".join(head % item for item in files.items()) + b"--line--\r\n"


@st.composite
def bodies(draw: st.DrawFn) -> list[bytes]:
    """A form, or what looks like one, in chunks."""
    kind = draw(st.sampled_from(("pair", "parts", "parts", "noise")))
    if kind == "noise":
        body = draw(NOISE)
    elif kind == "pair":
        body = form({name: draw(contents()) for name in GOOD})
    else:
        body = b"".join(draw(st.lists(parts(), max_size=3))) + draw(
            st.sampled_from([b"--line--\r\n", b"--line--", b""])
        )
    if draw(st.integers(0, 4)) == 0:
        place = draw(st.integers(0, len(body)))
        body = body[:place] + draw(st.binary(max_size=8)) + body[place + draw(st.integers(0, 8)) :]
    place = draw(st.integers(0, len(body)))
    return [body[:place], body[place:]]


TYPES = st.sampled_from(
    [b"multipart/form-data; boundary=line"] * 4
    + [b"multipart/form-data", b'multipart/form-data; boundary="', b"multipart/form-data; boundary*=x''line",
       b"multipart/form-data; boundary=\xff", b"application/json", b";;=", b""]
) | NOISE  # fmt: skip
NUMBERS = st.sampled_from([b"0", b"-1", b"1e9", b"nan", b"9" * 5000, b"\xb2"]) | NOISE
ACCEPTS = st.lists(
    st.tuples(
        st.sampled_from([b"image/png", b"application/json", b"*/*", b"text/html", b""]),
        st.sampled_from([b"", b";q=0", b";q=nan", b";q=-1", b";q=1e999", b";q", b";=;"]),
    ).map(b"".join),
    max_size=4,
).map(b",".join)
HOSTS = st.sampled_from([b"localhost", b"127.0.0.1:80", b"[::1]", b"[", b"evil.example", b"]:", b"\xff"])
OTHERS = st.tuples(
    st.sampled_from([b"sec-fetch-site", b"content-encoding", b"range", b"cookie", b"transfer-encoding",
                     b"x-forwarded-for", b"expect", b"origin", b"\xff"]),
    st.sampled_from([b"cross-site", b"gzip", b"bytes=0-", b"chunked", b"100-continue", b"null"]) | NOISE,
)  # fmt: skip


@st.composite
def headers(draw: st.DrawFn) -> list[Header]:
    found: list[Header] = [(b"content-type", draw(TYPES)), (b"accept", draw(ACCEPTS))]
    for name, values in ((b"content-length", NUMBERS), (b"host", HOSTS)):
        if draw(st.integers(0, 3)) == 0:
            found.append((name, draw(values)))
    return found + draw(st.lists(OTHERS, max_size=2))


KEYS = st.sampled_from([b"format", b"mask", b"confidence", b"probabilities", b"views", b"opacity"]) | NOISE
VALUES = st.sampled_from(
    [b"json", b"png", b"overlay", b"none", b"runs", b"both", b"deflate", b"true", b"1", b"0.5", b"nan",
     b"1e999", b"-0", b"%00", b"%ff", b"%", b"", b"%ed%a0%80"]
) | NOISE  # fmt: skip
QUERIES = st.lists(st.tuples(KEYS, VALUES).map(b"=".join), max_size=3).map(b"&".join)
WORDS = st.sampled_from(
    ["v1", "segment", "model", "examples", "page", "page.css", "..", ".", "", "day", "rgb.png", "healthz",
     "metrics", "docs", "openapi.json", "%2e%2e", "\0", "\ud7ff", "é"]
) | st.text(max_size=12)  # fmt: skip
PATHS = st.lists(WORDS, max_size=4).map(lambda words: "/" + "/".join(words))
METHODS = st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT", "BREW", "", "\xff"])
LONG = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def check(answer: Answer) -> None:
    """Below 500, or busy; a refusal in JSON with a code and a sentence."""
    assert answer.status < 500 or answer.status == BUSY, answer
    if answer.status >= 400 and answer.body:
        assert answer.headers[b"content-type"] == b"application/json"
        error = json.loads(answer.body)["error"]
        assert error.keys() == {"code", "message"}
        assert error["message"].endswith(".")
        assert "Traceback" not in error["message"]
        assert len(error["message"]) < 1000
    elif answer.headers.get(b"content-type") == b"application/json":
        json.loads(answer.body)


@LONG
@given(bodies(), headers(), QUERIES)
@example(
    [form(GOOD)],
    [(b"content-type", b"multipart/form-data; boundary=line"), (b"content-length", b"9" * 5000)],
    b"",
)
def test_uploads(service: Service, chunks: list[bytes], headers: list[Header], query: bytes) -> None:
    check(service.ask("POST", "/v1/segment", query, headers, chunks))


@LONG
@given(st.fixed_dictionaries({b"rgb": contents(), b"thermal": contents()}), QUERIES, ACCEPTS)
@example(GOOD, b"", b"image/png;q=nan,*/*")
def test_damaged_pictures(service: Service, files: dict[bytes, bytes], query: bytes, accept: bytes) -> None:
    kind = (b"content-type", b"multipart/form-data; boundary=line")
    check(service.ask("POST", "/v1/segment", query, [kind, (b"accept", accept)], [form(files)]))


@LONG
@given(METHODS, PATHS, QUERIES, headers(), NOISE)
@example("GET", "/v1", b"format=\x80", [], b"")  # no text: the address as a whole cannot be decoded
def test_paths(
    service: Service, method: str, path: str, query: bytes, headers: list[Header], body: bytes
) -> None:
    check(service.ask(method, path, query, headers, [body]))


def test_it_still_serves(service: Service) -> None:
    answer = service.ask(
        "POST", "/v1/segment", b"", [(b"content-type", b"multipart/form-data; boundary=line")], [form(GOOD)]
    )
    assert answer.status == 200
    assert json.loads(answer.body)["size"] == {"height": 36, "width": 40}
