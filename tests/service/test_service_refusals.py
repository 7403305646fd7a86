"""Requests that are refused: each with its status, a code, one sentence and the remedy."""

from __future__ import annotations

import asyncio
import io
import itertools
import struct
import zlib
from collections.abc import AsyncIterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from service_helpers import encode, error_of, files_of, make_pair, make_predictor

from efnet.core.errors import InputError
from efnet.service.app import create_app
from efnet.service.errors import RefusedError
from efnet.service.segmenter import Limits
from efnet.service.uploads import read_uploads


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few hundred bytes that claims 3.6 thousand million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def wide_thermal() -> bytes:
    """A TIFF of three different channels of 16 bits, which Pillow would read as 8."""
    pixels = np.full((48, 64, 3), (9000, 8000, 7000), ">u2").tobytes()
    entries = [
        (256, 3, 64), (257, 3, 48), (258, 3, 16), (259, 3, 1), (262, 3, 2), (273, 4, 8), (277, 3, 3),
        (278, 3, 48), (279, 4, len(pixels)),
    ]  # fmt: skip
    offset = 8 + len(pixels)
    bits_at = offset + 2 + 12 * len(entries) + 4
    packed = b"".join(
        struct.pack(">HHII", tag, 3, 3, bits_at)
        if tag == 258
        else struct.pack(">HHIHH", tag, 3, 1, value, 0)
        if kind == 3
        else struct.pack(">HHII", tag, 4, 1, value)
        for tag, kind, value in entries
    )
    directory = struct.pack(">H", len(entries)) + packed + struct.pack(">I", 0)
    return b"MM\x00*" + struct.pack(">I", offset) + pixels + directory + struct.pack(">HHH", 16, 16, 16)


def animation() -> bytes:
    frames = [Image.fromarray(make_pair(seed)[0]) for seed in (1, 2)]
    return encode(frames[0], "PNG", save_all=True, append_images=frames[1:])


def false_colour() -> bytes:
    return encode(make_pair(9)[0])


PAIR = files_of()
FILES = {
    "nothing": ({}, 415, "not_a_form"),
    "no thermal": ({"rgb": PAIR["rgb"]}, 400, "missing_image"),
    "both and four": (PAIR | {"rgbt": PAIR["rgb"]}, 400, "too_many_images"),
    "unknown field": (PAIR | {"depth": b"x"}, 400, "unknown_field"),
    "empty": (PAIR | {"rgb": b""}, 422, "empty_image"),
    "text": (PAIR | {"rgb": b"a line of text"}, 415, "unknown_format"),
    "gif": (PAIR | {"rgb": encode(make_pair()[0], "GIF")}, 415, "unknown_format"),
    "cut off": (PAIR | {"rgb": PAIR["rgb"][:-200]}, 422, "damaged_image"),
    "bomb": (PAIR | {"rgb": bomb()}, 413, "too_many_pixels"),
    "bomb below Pillow's own limit": (PAIR | {"thermal": bomb(5000, 5000)}, 413, "too_many_pixels"),
    "animation": (PAIR | {"rgb": animation()}, 422, "several_frames"),
    "false colour": (PAIR | {"thermal": false_colour()}, 422, "unfit_image"),
    "wide channels": (PAIR | {"thermal": wide_thermal()}, 422, "unfit_image"),
    "three of four channels": ({"rgbt": PAIR["rgb"]}, 422, "not_four_channels"),
    "other shape": (PAIR | {"thermal": encode(make_pair(0, 64, 48)[1])}, 422, "unfit_image"),
    "too small": (files_of(height=20, width=20), 422, "unfit_image"),
    "too many bytes": (PAIR | {"rgb": bytes(4_000_000)}, 413, "too_many_bytes"),
}


@pytest.mark.parametrize("case", FILES)
def test_images_that_cannot_be_served(client: TestClient, case: str) -> None:
    files, status, code = FILES[case]
    response = client.post("/v1/segment", files=files)
    found_status, found_code, message = error_of(response)
    assert (found_status, found_code) == (status, code), message
    assert ";" in message, "a remedy follows what is wrong"
    assert client.post("/v1/segment", files=PAIR).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_served"),
        ("GET", "/page/../app.py", 404, "not_served"),
        ("GET", "/page/index.html", 404, "not_served"),
        ("GET", "/v1/examples/day/rgb.jpg", 404, "not_served"),
        ("GET", "/v1/examples/none/rgb.png", 404, "not_served"),
        ("GET", "/v1/segment", 405, "not_served"),
        ("POST", "/v1/segment?format=gif", 400, "wrong_parameter"),
        ("POST", "/v1/segment?opacity=2", 400, "wrong_parameter"),
    ],
)
def test_paths_and_parameters(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    assert error_of(client.request(method, path))[:2] == (status, code)


def test_a_field_sent_twice(client: TestClient) -> None:
    files = [("rgb", PAIR["rgb"]), ("rgb", PAIR["rgb"])]
    assert error_of(client.post("/v1/segment", files=files))[:2] == (400, "repeated_field")


def test_a_body_of_unknown_length_is_stopped_at_the_limit(client: TestClient) -> None:
    sent = 0

    def endless():
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="rgb"\r\n\r\n'
        for _ in range(1000):
            sent += 100_000
            yield bytes(100_000)

    response = client.post(
        "/v1/segment", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert error_of(response)[:2] == (413, "too_many_bytes")


def test_a_diverged_checkpoint_is_the_services_fault() -> None:
    predictor = make_predictor()
    for name, parameter in predictor.model.named_parameters():
        if name.startswith("decoder."):
            parameter.data.fill_(float("nan"))
    with TestClient(create_app(predictor)) as client:
        status, code, message = error_of(client.post("/v1/segment", files=PAIR))
        assert (status, code) == (500, "model_failed")
        assert "diverged" in message
        assert client.get("/healthz").status_code == 503


def test_an_error_of_ours_shows_no_traceback(client: TestClient, monkeypatch, caplog) -> None:
    segmenter = client.app.state.segmenter
    monkeypatch.setattr(segmenter, "_prepare", lambda uploads, views: 1 / 0)
    response = client.post("/v1/segment", files=PAIR)
    assert error_of(response)[:2] == (500, "failed")
    assert "content-security-policy" in response.headers
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"max_bytes": 10}, "`max_bytes`"),
        ({"max_pixels": 0}, "`max_pixels`"),
        ({"timeout": 0.0}, "`timeout`"),
        ({"timeout": float("nan")}, "`timeout`"),
        ({"max_concurrent": 0}, "`max_concurrent`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"batch_wait_ms": -1.0}, "`batch_wait_ms`"),
    ],
)
def test_limits_out_of_range(values: dict, field: str) -> None:
    with pytest.raises(InputError, match=field):
        Limits(**values)


def multipart(files: dict[str, bytes]) -> bytes:
    body = io.BytesIO()
    for name, content in files.items():
        head = f'--line\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.png"\r\n\r\n'
        body.write(head.encode() + content + b"\r\n")
    body.write(b"--line--\r\n")
    return body.getvalue()


def read(body: bytes, cuts: list[int], limit: int = 10**6) -> dict[str, bytes]:
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})

    async def chunks() -> AsyncIterator[bytes]:
        for start, end in itertools.pairwise(places):
            yield body[start:end]

    headers = {"content-type": "multipart/form-data; boundary=line"}
    return asyncio.run(read_uploads(headers, chunks(), limit))


CONTENTS = st.binary(max_size=60) | st.just(b"\r\n--lin") | st.just(b"\r\n--line\r")


@given(CONTENTS, CONTENTS, st.lists(st.integers(0, 10**6), max_size=12))
def test_uploads_do_not_depend_on_how_they_are_cut(rgb: bytes, thermal: bytes, cuts: list[int]) -> None:
    files = {"rgb": rgb, "thermal": thermal}
    if b"\r\n--line" not in rgb + thermal:
        assert read(multipart(files), cuts) == files


@given(st.data())
def test_a_body_that_breaks_off_is_refused(data: st.DataObject) -> None:
    body = multipart(PAIR)
    end = data.draw(st.integers(0, len(body) - len(b"--\r\n") - 1))
    with pytest.raises(RefusedError) as caught:
        read(body[:end], [])
    assert caught.value.code == "damaged_form"


@given(st.binary(max_size=200))
def test_noise_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        read(body, [50, 100])
    assert caught.value.status in (400, 413)
