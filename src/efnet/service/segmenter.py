"""One request from its upload to its answer, within its limits; the event loop never computes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, TypeVarTuple

import numpy as np
import torch
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect

from efnet.core.errors import InputError
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import Prepared
from efnet.service.answers import Answer, Clock, compose
from efnet.service.batcher import Batcher, Outcome
from efnet.service.errors import RefusedError, refusal
from efnet.service.middleware import Metrics
from efnet.service.schemas import Wanted
from efnet.service.uploads import check_fields, decode_pair, read_uploads, thermal_of

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

logger = logging.getLogger("efnet.service")

_CODERS = min(4, os.cpu_count() or 1)
"""Threads that decode and encode images."""

_WARM_UP_SIZE = (480, 640)

_GRACE = 5.0
"""Seconds for a pass of the network whose requests have all ended."""


@dataclass(frozen=True)
class Limits:
    """Bounds of every request and of all together.

    Memory for uploads is at most `max_bytes * max_concurrent`. The largest decoded images and their
    logits come on top: four bytes for each class of each pixel.

    Raises:
        InputError: a value is below its minimum.
    """

    max_bytes: int = 32 * 1024 * 1024  # of a request's body
    max_pixels: int = 8_388_608  # of one image, read from its header; 3840x2160 is 8 294 400
    timeout: float = 30.0  # seconds from a request's arrival to its answer
    max_concurrent: int = 16  # requests in progress; one more is answered with 503
    batch_size: int = 4  # pairs in one pass of the network
    batch_wait_ms: float = 5.0  # time that the first pair of a batch waits for others of its size

    def __post_init__(self) -> None:
        minima = {"max_bytes": 1024, "max_pixels": 1024, "max_concurrent": 1, "batch_size": 1}
        for field in dataclasses.fields(self):
            value, minimum = getattr(self, field.name), minima.get(field.name, 0)
            if not math.isfinite(value) or value < minimum:
                raise InputError(f"`{field.name}` {value} is below {minimum}; give a larger number")
        if self.timeout <= 0:
            raise InputError(f"`timeout` {self.timeout} is not above 0; give seconds")


class Segmenter:
    """The predictor behind a queue; `limits` bound every request and all together."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor = predictor
        self.limits = limits
        self.stopping = False  # set when the service is to end; new requests are refused
        self.ready = False  # whether the network has run once, so that requests are answered without delay
        self.ended = False  # whether the network's thread has ended
        self._under_way = 0
        self._coders = ThreadPoolExecutor(_CODERS, thread_name_prefix="efnet-images")
        self._batcher = Batcher(predictor, limits.batch_size, limits.batch_wait_ms / 1000.0, self._observe)
        self.metrics = Metrics(lambda: self._under_way, lambda: self._batcher.waiting)

    def start(self) -> None:
        """Start the network's thread and warm it up: first passes are slow."""
        self._batcher.start()
        height, width = self.predictor.size or _WARM_UP_SIZE
        pair = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.float32)
        warm = self._batcher.submit(self.predictor.prepare(*pair))
        warm.add_done_callback(self._warmed)

    @property
    def status(self) -> Literal["starting", "ready", "stopping"]:
        """Whether requests are answered now."""
        if self.stopping:
            return "stopping"
        return "ready" if self.ready else "starting"

    async def finish(self) -> None:
        """Refuse new requests and end the network's thread, which may still run a pass that timed out."""
        self.stopping = True
        self.ended = await self.in_thread(self._batcher.close, _GRACE)
        self._coders.shutdown(wait=False, cancel_futures=True)

    async def segment(
        self,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes],
        wanted: Wanted,
        left: Callable[[], Coroutine[Any, Any, None]],
    ) -> Answer:
        """Read, decode, segment and encode one pair.

        Names of `headers` are in lower case. `left` returns when the client has closed the connection after
        sending the body; its place is freed then.

        Raises:
            RefusedError: the request is wrong, or there is no room or time for it.
        """
        clock = Clock(time.monotonic())
        limit = self.limits.timeout
        with self._admitted():
            uploads = await self._received(headers, body)
            clock.uploaded = time.monotonic()
            work = self._while_there(self._finish(uploads, wanted, clock), left)
            seconds = limit - (clock.uploaded - clock.arrived)
            answer = await self._in_time(work, seconds, refusal("timeout", limit=limit))
        self.metrics.latency.observe(time.monotonic() - clock.arrived)
        return answer

    async def in_thread(self, function: Callable[[*Arguments], Result], *args: *Arguments) -> Result:
        """Call a function in a thread for images."""
        return await asyncio.get_running_loop().run_in_executor(self._coders, function, *args)

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        """Take a place among the requests in progress, if one is free."""
        if self.stopping:
            raise refusal("stopping")
        if self._under_way >= self.limits.max_concurrent:
            raise refusal("busy", count=self._under_way)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _received(self, headers: Mapping[str, str], body: AsyncIterator[bytes]) -> dict[str, bytes]:
        """Return the images of the body, among them those that the network needs."""
        limit = self.limits.timeout
        reading = read_uploads(headers, self._counted(body), self.limits.max_bytes)
        try:
            uploads = await self._in_time(reading, limit, refusal("slow_upload", limit=limit))
        except ClientDisconnect as gone:
            raise refusal("upload_ended") from gone
        check_fields(frozenset(uploads), self.predictor.modality)
        return uploads

    async def _finish(self, uploads: dict[str, bytes], wanted: Wanted, clock: Clock) -> Answer:
        prepared, heat = await self.in_thread(self._prepare, uploads, wanted.views)
        clock.decoded = time.monotonic()
        outcome = await self._outcome(prepared, wanted.needs_probabilities)
        name = self.predictor.model.name
        return await self.in_thread(compose, name, prepared, heat, outcome, wanted, clock)

    def _prepare(self, uploads: dict[str, bytes], views: bool) -> tuple[Prepared, NDArray[np.float32] | None]:
        """Return the pair for the network and, for views, the scaled thermal image at its own size."""
        rgb, thermal = decode_pair(uploads, self.predictor.modality, self.limits.max_pixels)
        try:
            prepared = self.predictor.prepare(rgb, thermal)
            return prepared, thermal_of(rgb, thermal, self.predictor) if views else None
        except InputError as error:
            raise refusal("unfit_image", reason=str(error).removesuffix(".")) from error

    async def _outcome(self, prepared: Prepared, probabilities: bool) -> Outcome:
        try:
            return await asyncio.wrap_future(self._batcher.submit(prepared, probabilities))
        except torch.OutOfMemoryError as error:
            raise refusal("out_of_memory") from error
        except InputError as error:  # the checkpoint's fault: the images passed their checks
            raise refusal("model_failed", reason=str(error).removesuffix(".")) from error

    async def _counted(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in body:
            self.metrics.received.inc(len(chunk))
            yield chunk

    async def _while_there(
        self, work: Coroutine[Any, Any, Result], left: Callable[[], Coroutine[Any, Any, None]]
    ) -> Result:
        """Do the work unless the client goes, when nobody waits for it any more."""
        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left())
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise refusal("client_gone")
            return working.result()
        finally:
            working.cancel()
            leaving.cancel()

    async def _in_time(self, work: Awaitable[Result], seconds: float, late: RefusedError) -> Result:
        try:
            return await asyncio.wait_for(work, max(seconds, 0.0))
        except TimeoutError:
            raise late from None

    def _warmed(self, first: Future[Outcome]) -> None:
        error = first.exception()
        self.ready = error is None
        if error is not None:
            logger.error("the network failed on its first pair: %s", error)

    def _observe(self, size: int, seconds: float) -> None:
        self.metrics.batches.observe(size)
        self.metrics.network.observe(seconds)
