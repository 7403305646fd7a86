"""Who may ask, which headers lock the page in, and paths that lead nowhere."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlparse

import httpx
import pytest
from fastapi.testclient import TestClient
from service_helpers import ServerProcess, error_of, files_of, make_predictor

from efnet.service.app import create_app
from efnet.service.middleware import own_names


@pytest.fixture(scope="module")
def guarded() -> Iterator[TestClient]:
    names = own_names("127.0.0.1", ["Maps.example."])
    with TestClient(create_app(make_predictor(), names=names), base_url="http://127.0.0.1") as client:
        yield client


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8000",
        "[::1]:8000",
        "192.168.1.7:80",
        "localhost",
        "LOCALHOST.:8000",
        "x.localhost",
        "maps.example:443",
        socket.gethostname(),
    ],
)
def test_names_of_the_service(guarded: TestClient, host: str) -> None:
    assert guarded.get("/v1/model", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "notlocalhost",
        "xmaps.example",
        "127.0.0.1@evil.example",
        "[evil.example]",
    ],
)
@pytest.mark.parametrize("path", ["/", "/v1/model", "/metrics", "/nothing"])
def test_a_name_that_was_made_to_lead_here(guarded: TestClient, host: str, path: str) -> None:
    response = guarded.get(path, headers={"Host": host})
    status, code, message = error_of(response)
    assert (status, code) == (421, "unknown_host")
    assert "`allow_host`" in message
    assert response.headers["x-content-type-options"] == "nosniff"


def test_any_name_where_that_was_asked_for() -> None:
    with TestClient(create_app(make_predictor(), names=own_names("0.0.0.0", ["*"]))) as client:
        assert client.get("/v1/model", headers={"Host": "evil.example"}).status_code == 200


@pytest.mark.parametrize(
    ("site", "status"),
    [(None, 200), ("none", 200), ("same-origin", 200), ("same-site", 403), ("cross-site", 403)],
)
def test_an_upload_that_a_page_sends(guarded: TestClient, site: str | None, status: int) -> None:
    headers = {} if site is None else {"Sec-Fetch-Site": site}
    response = guarded.post("/v1/segment", files=files_of(), headers=headers)
    assert response.status_code == status
    if status == 403:
        assert error_of(response)[1] == "other_site"
    assert guarded.get("/", headers=headers).status_code == 200, "a link may lead here"


@pytest.mark.parametrize("path", ["/", "/docs", "/v1/model", "/page/page.js", "/nothing", "/metrics"])
def test_no_other_page_reads_frames_or_reinterprets_an_answer(guarded: TestClient, path: str) -> None:
    response = guarded.get(path, headers={"Origin": "http://evil.example"})
    assert not [name for name in response.headers if name.startswith("access-control-")]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    policy = dict(
        part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


def test_a_browser_asks_in_vain_whether_another_page_may_send(guarded: TestClient) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    response = guarded.options("/v1/segment", headers=headers)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control-")]


TRICKS = [
    "/page/../../app.py",
    "/page/..%2f..%2fapp.py",
    "/page/%2e%2e/%2e%2e/etc/passwd",
    "/page/....//app.py",
    "/page//etc/passwd",
    "/page/page.js%00.png",
    "/page/page.js/",
    "/docs/",
    "//evil.example/page/page.js",
    "/static/../../../../etc/passwd",
    "/v1/examples/../../etc/rgb.png",
    "/v1/examples/day%2f..%2fnight/rgb.png",
    "/v1/examples/day/..%2frgb.png",
    "/.git/config",
    "/page/\\..\\..\\app.py",
    "/page/" + "a" * 5000,
    "/%ff%fe",
    "http://evil.example/page/page.js",
]


@pytest.mark.parametrize("path", TRICKS)
def test_paths_that_lead_nowhere(server: ServerProcess, path: str) -> None:
    place = urlparse(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode("latin-1"))
        answer = b""
        while part := connection.recv(65536):
            answer += part
    status = int(answer.split(b" ", 2)[1])
    assert status == 404 or (status == 422 and b"examples" in path.encode()) or status == 400
    assert b"location:" not in answer.lower()
    assert b"root:" not in answer
    assert b"import" not in answer


def test_the_process_knows_its_names(server: ServerProcess) -> None:
    assert httpx.get(f"{server.url}v1/model").status_code == 200
    refused = httpx.get(f"{server.url}v1/model", headers={"Host": "evil.example"})
    assert error_of(refused)[:2] == (421, "unknown_host")
