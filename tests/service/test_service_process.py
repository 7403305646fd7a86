"""`efnet serve` as a user starts it: real sockets, signals, and no byte written to a disk."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlparse

import httpx
import numpy as np
import pytest
from service_helpers import ServerProcess, agreement, encode, error_of, files_of, index_of, make_pair, metric

import efnet
from efnet.cli.main import main
from efnet.inference.predictor import Predictor


def test_large_uploads_never_touch_a_disk(server: ServerProcess) -> None:
    limits = Path(f"/proc/{server.process.pid}/limits")
    if limits.exists():
        line = next(line for line in limits.read_text().splitlines() if line.startswith("Max file size"))
        assert line.split()[3:5] == ["0", "0"], "the service could have written"
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    files = {"rgb": encode(noise), "thermal": encode(noise[..., 0])}
    assert len(files["rgb"]) > 3_000_000
    response = httpx.post(f"{server.url}v1/segment", files=files, timeout=60)
    assert response.status_code == 200, response.text
    assert response.json()["size"] == {"height": 900, "width": 1200}


def test_many_clients_at_once(server: ServerProcess, checkpoint: Path) -> None:
    predictor = Predictor.from_pretrained(checkpoint, "cpu")

    def ask(seed: int) -> dict:
        response = httpx.post(f"{server.url}v1/segment?mask=runs", files=files_of(seed), timeout=60)
        return response.json()

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(12)))
    for seed, answer in enumerate(answers):
        assert agreement(index_of(answer), predictor(*make_pair(seed)).index) > 0.98
    assert max(answer["batch"] for answer in answers) > 1


def test_a_large_body_is_refused_by_its_header_alone(server: ServerProcess) -> None:
    place = urlparse(server.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    connection.putrequest("POST", "/v1/segment")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"]["code"] == "too_many_bytes"
    connection.close()


def test_a_client_that_hangs_up_frees_its_place(server: ServerProcess) -> None:
    place = urlparse(server.url)
    head = (
        "POST /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        "Content-Length: 100000\r\n\r\n--x\r\n"
    )
    under_way = -1.0
    with socket.create_connection((place.hostname, place.port)) as connection:
        connection.sendall(head.encode())
        for _ in range(200):
            under_way = metric(httpx.get(f"{server.url}metrics").text, "efnet_requests_under_way")
            if under_way == 1:
                break
            time.sleep(0.02)
    assert under_way == 1
    for _ in range(200):
        if metric(httpx.get(f"{server.url}metrics").text, "efnet_requests_under_way") == 0:
            break
        time.sleep(0.02)
    else:
        pytest.fail("the place of a client that is gone stays taken")


def test_sigterm_finishes_what_was_accepted(checkpoint: Path) -> None:
    running = ServerProcess(checkpoint, "--batch-size", "8", "--batch-wait-ms", "1500", "--timeout", "20")
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.post(f"{running.url}v1/segment?mask=runs", files=files_of(1), timeout=60))

    while httpx.get(f"{running.url}healthz").status_code != 200:
        time.sleep(0.02)
    client = threading.Thread(target=ask)
    client.start()
    while metric(httpx.get(f"{running.url}metrics").text, "efnet_queue_length") < 1:
        time.sleep(0.01)
    running.process.send_signal(signal.SIGTERM)
    for _ in range(300):
        try:
            refused = httpx.get(f"{running.url}v1/model", timeout=5)
        except httpx.TransportError:
            break
        time.sleep(0.01)
    else:
        pytest.fail(f"still served after SIGTERM: {refused.status_code}")
    assert not answers, "the pair was to be waiting still"
    client.join(30)
    assert running.process.wait(30) == 0
    assert running.process.communicate()[1] == ""
    expected = Predictor.from_pretrained(checkpoint, "cpu")(*make_pair(1)).index
    np.testing.assert_array_equal(index_of(answers[0].json()), expected)


def test_ctrl_c_ends_it_too(checkpoint: Path) -> None:
    running = ServerProcess(checkpoint)
    # On a busy machine the warm-up may outlast the grace that a pass of the network has.
    while httpx.get(f"{running.url}healthz").status_code != 200:
        time.sleep(0.02)
    assert running.end(signal.SIGINT) == (0, "")


@pytest.mark.slow
def test_a_pass_that_does_not_end_is_broken_off(tmp_path: Path) -> None:
    efnet.create_model("efnet_base").save_pretrained(tmp_path)
    running = ServerProcess(tmp_path, "--timeout", "3")
    while httpx.get(f"{running.url}healthz").status_code != 200:
        time.sleep(0.1)
    response = httpx.post(f"{running.url}v1/segment", files=files_of(height=1500, width=2000), timeout=60)
    assert error_of(response)[:2] == (504, "timeout")
    assert httpx.get(f"{running.url}metrics").status_code == 200, "the event loop is free meanwhile"
    status, errors = running.end()
    assert status == 1
    assert errors == "efnet: error: the network did not end in time and was broken off\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "--port 70000 is not between"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: no such address"),
        (["--timeout", "0"], "--timeout 0.0 is not above 0"),
        (["--batch-size", "0"], "--batch-size 0 is below 1"),
        (["--threads", "-1"], "--threads -1: give 0 or more"),
        (["--device", "toaster", "--port", "0"], "device 'toaster' is unknown"),
        (["--precision", "8"], "precision '8' is unknown"),
        (["--port", "x"], "--port: expected a whole number"),
    ],
)
def test_wrong_options(checkpoint: Path, capsys, words: list[str], message: str) -> None:
    assert main(["serve", "--checkpoint", str(checkpoint), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken(checkpoint: Path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--checkpoint", str(checkpoint), "--port", str(port)]) == 2
    assert f"--port {port}: cannot be opened on 127.0.0.1" in capsys.readouterr().err


def test_no_checkpoint_there(tmp_path: Path, capsys) -> None:
    assert main(["serve", "--checkpoint", str(tmp_path), "--port", "0"]) == 2
    assert "not a checkpoint" in capsys.readouterr().err


def test_examples_of_the_documents(server: ServerProcess, tmp_path: Path, monkeypatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    blocks = page.split("```")[1::2]
    shell = [block.removeprefix("sh\n") for block in blocks if block.startswith("sh\n")]
    python = [block.removeprefix("python\n") for block in blocks if block.startswith("python\n")]
    commands = [line for block in shell for line in block.splitlines() if line.startswith("curl ")]
    assert len(commands) >= 4
    assert python
    rgb, thermal = make_pair(2)
    (tmp_path / "street.png").write_bytes(encode(rgb))
    (tmp_path / "street_th.png").write_bytes(encode(thermal))
    (tmp_path / "night.png").write_bytes(encode(np.dstack([rgb, thermal])))
    monkeypatch.chdir(tmp_path)

    def local(text: str) -> str:
        return text.replace("http://127.0.0.1:8000/", server.url)

    for command in commands:
        done = subprocess.run(local(command), shell=True, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (command, done.stderr)
    assert (
        (tmp_path / "mask.png").read_bytes()[:4] == (tmp_path / "overlay.png").read_bytes()[:4] == b"\x89PNG"
    )
    for block in python:
        exec(compile(local(block), "serve.md", "exec"), {})


def test_refusals_over_the_wire(server: ServerProcess) -> None:
    assert error_of(httpx.post(f"{server.url}v1/segment", files={"rgb": b"x"}))[:2] == (400, "missing_image")
