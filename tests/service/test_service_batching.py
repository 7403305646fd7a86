"""Micro-batching, the queue and time: answers stay with their requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import wait
from typing import Any

import httpx
import numpy as np
import pytest
from service_helpers import agreement, error_of, files_of, index_of, make_model, make_pair, metric

from efnet.core.errors import InputError
from efnet.inference.predictor import Predictor
from efnet.service.app import create_app
from efnet.service.batcher import Batcher
from efnet.service.segmenter import Limits


class WatchedPredictor(Predictor):
    """Notes what it was given, and in which thread."""

    def run(self, prepared, probabilities=False):
        self.__dict__.setdefault("calls", []).append([pair.size for pair in prepared])
        self.__dict__.setdefault("threads", set()).add(threading.current_thread().name)
        if any(pair.size == (40, 40) for pair in prepared):
            raise InputError("this size is the one that fails")
        return super().run(prepared, probabilities)


@pytest.fixture
def watched() -> WatchedPredictor:
    return WatchedPredictor(make_model(), device="cpu")


def converse(
    app: Any, talk: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]], warm: bool = True
) -> Any:
    """Run a conversation with an application on one event loop, start and end included."""

    async def session() -> Any:
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as c,
        ):
            while warm and (await c.get("/healthz")).status_code != 200:
                await asyncio.sleep(0.01)
            return await talk(c)

    return asyncio.run(session())


def test_answers_are_never_crossed(watched: WatchedPredictor) -> None:
    sizes = [(48, 64), (64, 48), (48, 64)]
    seeds = range(12)

    async def talk(client: httpx.AsyncClient) -> list[httpx.Response]:
        async def one(seed: int) -> httpx.Response:
            height, width = sizes[seed % 3]
            # Half of them ask for probabilities: the flag must not leak to neighbours of a batch.
            query = f"mask=runs&probabilities={'true' if seed % 2 else 'false'}"
            return await client.post(f"/v1/segment?{query}", files=files_of(seed, height=height, width=width))

        return await asyncio.gather(*(one(seed) for seed in seeds))

    responses = converse(create_app(watched, Limits(batch_size=4, batch_wait_ms=300)), talk)
    expected = [watched(*make_pair(seed, *sizes[seed % 3])).index for seed in seeds]
    answers = [response.json() for response in responses]
    for seed, answer in enumerate(answers):
        likeness = [agreement(index_of(answer), index) for index in expected]
        assert likeness[seed] > 0.98
        assert int(np.argmax(likeness)) == seed
        assert sorted(likeness)[-2] < 0.95, "the pictures have to be told apart by their answers"
        assert (answer["classes"][0]["mean_probability"] is None) == (seed % 2 == 0)
    assert max(answer["batch"] for answer in answers) > 1
    assert all(len(set(call)) == 1 and len(call) <= 4 for call in watched.calls)
    assert watched.threads - {threading.current_thread().name} == {"efnet-network"}


def test_one_pair_that_fails_does_not_spoil_its_batch(watched: WatchedPredictor) -> None:
    model_size = watched.size = (48, 64)
    batcher = Batcher(watched, batch_size=3, wait_seconds=5.0)
    jobs = [
        batcher.submit(watched.prepare(*make_pair(seed, *size)))
        for seed, size in enumerate([(48, 64), (40, 40), (48, 64)])
    ]
    batcher.start()
    wait(jobs, timeout=30)
    assert watched.calls[0] == [(48, 64), (40, 40), (48, 64)]
    assert isinstance(jobs[1].exception(), InputError)
    for seed in (0, 2):
        assert jobs[seed].result().batch == 1
        np.testing.assert_array_equal(jobs[seed].result().prediction.index, watched(*make_pair(seed)).index)
    assert model_size == watched.size
    assert batcher.close(5.0)


def test_closing_finishes_what_waits_and_takes_no_more(watched: WatchedPredictor) -> None:
    batcher = Batcher(watched, batch_size=8, wait_seconds=3600.0)
    batcher.start()
    jobs = [batcher.submit(watched.prepare(*make_pair(seed))) for seed in range(3)]
    gone = batcher.submit(watched.prepare(*make_pair(3, 64, 64)))
    assert gone.cancel()
    assert batcher.close(30.0)
    assert [job.result().batch for job in jobs] == [3, 3, 3]
    assert watched.calls == [[(48, 64)] * 3]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(watched.prepare(*make_pair()))


def test_no_answer_in_time(watched: WatchedPredictor) -> None:
    async def talk(client: httpx.AsyncClient) -> tuple[httpx.Response, int]:
        before = len(watched.calls)
        response = await client.post("/v1/segment", files=files_of(height=64, width=64))
        await asyncio.sleep(0.7)  # past the batch's own wait: a pair given up must not go through the network
        return response, len(watched.calls) - before

    limits = Limits(timeout=0.4, batch_size=8, batch_wait_ms=800)
    response, passes = converse(create_app(watched, limits), talk)
    assert error_of(response)[:2] == (504, "timeout")
    assert int(response.headers["retry-after"]) > 0
    assert passes == 0


def test_an_upload_that_dawdles(watched: WatchedPredictor) -> None:
    async def dawdle() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        await asyncio.sleep(30)

    async def talk(client: httpx.AsyncClient) -> httpx.Response:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        return await client.post("/v1/segment", content=dawdle(), headers=headers)

    response = converse(create_app(watched, Limits(timeout=0.2)), talk)
    assert error_of(response)[:2] == (408, "slow_upload")


def test_more_requests_than_places(watched: WatchedPredictor) -> None:
    async def talk(client: httpx.AsyncClient) -> tuple[list[httpx.Response], httpx.Response, str]:
        responses = await asyncio.gather(*(client.post("/v1/segment", files=files_of(s)) for s in range(5)))
        later = await client.post("/v1/segment", files=files_of())
        return responses, later, (await client.get("/metrics")).text

    limits = Limits(max_concurrent=2, batch_size=2, batch_wait_ms=100)
    responses, later, metrics = converse(create_app(watched, limits), talk)
    assert sorted(response.status_code for response in responses) == [200, 200, 503, 503, 503]
    for response in responses:
        if response.status_code == 503:
            assert error_of(response)[1] == "busy"
            assert response.headers["retry-after"] == "1"
    assert later.status_code == 200
    assert metric(metrics, 'efnet_requests_total{path="/v1/segment",status="503"}') == 3
    assert metric(metrics, "efnet_requests_under_way") == 0


def test_health_from_start_to_end(watched: WatchedPredictor) -> None:
    app = create_app(watched, Limits(batch_wait_ms=300))

    async def talk(client: httpx.AsyncClient) -> list[tuple[int, str]]:
        seen = []
        for stopping in (None, False, True):
            while stopping is False and not app.state.segmenter.ready:
                await asyncio.sleep(0.01)
            app.state.segmenter.stopping = bool(stopping)
            response = await client.get("/healthz")
            seen.append((response.status_code, response.json()["status"]))
        refused = await client.post("/v1/segment", files=files_of())
        assert error_of(refused)[:2] == (503, "stopping")
        return seen

    assert converse(app, talk, warm=False) == [(503, "starting"), (200, "ready"), (503, "stopping")]
