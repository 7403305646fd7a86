"""One request from its upload to its answer, within its limits; the event loop never computes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect

from efnet.core.errors import InputError
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import Prepared
from efnet.service.answers import Answer, Clock, Wanted, compose
from efnet.service.batcher import Batcher, Outcome
from efnet.service.errors import RefusedError
from efnet.service.limits import Limits
from efnet.service.prometheus import Metrics
from efnet.service.uploads import check_fields, decode_pair, read_uploads, thermal_of

Params = ParamSpec("Params")
Result = TypeVar("Result")

logger = logging.getLogger("efnet.service")

_CODERS = min(4, os.cpu_count() or 1)
"""Threads that decode and encode images."""

_WARM_UP_SIZE = (480, 640)

_GRACE = 5.0
"""Seconds for a pass of the network that nobody waits for any more."""


async def _stays() -> None:
    """A client of whom nobody hears that it has gone."""
    await asyncio.Event().wait()


class Segmenter:
    """The predictor behind a queue.

    Args:
        predictor: the network.
        limits: of every request and of all together.

    Attributes:
        ready: whether the network has run once and requests are answered without delay.
        stopping: set when the service is to end; new requests are refused.
        ended: whether the network's thread has ended.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor = predictor
        self.limits = limits
        self.stopping = False
        self.ready = False
        self.ended = False
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
        """Take no more, and end the network's thread; what a request gave up may still be in it."""
        self.stopping = True
        self.ended = await self.in_thread(self._batcher.close, _GRACE)
        self._coders.shutdown(wait=False, cancel_futures=True)

    async def segment(
        self,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes],
        wanted: Wanted,
        left: Callable[[], Coroutine[Any, Any, None]] = _stays,
    ) -> Answer:
        """Read, decode, segment and encode one pair.

        Args:
            headers: of the request, lower case.
            body: its chunks.
            wanted: what to answer.
            left: returns when the client has gone after the body; its place is freed then.

        Raises:
            RefusedError: whatever is wrong with the request, or there is no room or time for it.
        """
        clock = Clock(time.monotonic())
        with self._admitted():
            uploads = await self._received(headers, body)
            clock.uploaded = time.monotonic()
            seconds = self.limits.timeout - (clock.uploaded - clock.arrived)
            work = self._while_there(self._finish(uploads, wanted, clock), left)
            answer = await self._in_time(work, seconds, self._too_slow)
        self.metrics.latency.observe(time.monotonic() - clock.arrived)
        return answer

    async def in_thread(
        self, function: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs
    ) -> Result:
        """Call a function in a thread for images."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._coders, lambda: function(*args, **kwargs))

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        """A place among the requests under way, if there is one."""
        if self.stopping:
            raise RefusedError(503, "stopping", "The service is stopping; send the request again soon.", 5)
        if self._under_way >= self.limits.max_concurrent:
            raise RefusedError(
                503,
                "busy",
                f"{self._under_way} requests are under way, and no more are taken; try again in a second.",
                1,
            )
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _received(self, headers: Mapping[str, str], body: AsyncIterator[bytes]) -> dict[str, bytes]:
        """The images of the body, those that the network needs among them."""
        reading = read_uploads(headers, self._counted(body), self.limits.max_bytes)
        try:
            uploads = await self._in_time(reading, self.limits.timeout, self._too_slow_upload)
        except ClientDisconnect as gone:
            raise RefusedError(
                400, "upload_ended", "The upload broke off; send the request again, whole."
            ) from gone
        check_fields(frozenset(uploads), self.predictor.modality)
        return uploads

    async def _finish(self, uploads: dict[str, bytes], wanted: Wanted, clock: Clock) -> Answer:
        prepared, heat = await self.in_thread(self._prepare, uploads, wanted.views)
        clock.decoded = time.monotonic()
        outcome = await self._outcome(prepared, wanted.needs_probabilities)
        name = self.predictor.model.name
        return await self.in_thread(compose, name, prepared, heat, outcome, wanted, clock)

    def _prepare(self, uploads: dict[str, bytes], views: bool) -> tuple[Prepared, NDArray[np.float32] | None]:
        """The pair for the network and, for views, the scaled thermal image at its own size."""
        rgb, thermal = decode_pair(uploads, self.predictor.modality, self.limits.max_pixels)
        try:
            prepared = self.predictor.prepare(rgb, thermal)
            heat = thermal_of(rgb, thermal, self.predictor) if views else None
            return prepared, heat
        except InputError as error:
            raise RefusedError(422, "unfit_image", _sentence(str(error))) from error

    async def _outcome(self, prepared: Prepared, probabilities: bool) -> Outcome:
        try:
            return await asyncio.wrap_future(self._batcher.submit(prepared, probabilities))
        except torch.OutOfMemoryError as error:
            raise RefusedError(
                503, "out_of_memory", "The image does not fit the device's memory; send it smaller.", 5
            ) from error
        except InputError as error:  # of the checkpoint: the images have been looked at
            raise RefusedError(500, "model_failed", _sentence(str(error))) from error

    async def _counted(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in body:
            self.metrics.received.add(len(chunk))
            yield chunk

    async def _while_there(
        self, work: Coroutine[Any, Any, Result], left: Callable[[], Coroutine[Any, Any, None]]
    ) -> Result:
        """Do the work unless the client goes: then nobody waits for it any more."""
        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left())
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise RefusedError(499, "client_gone", "The connection was closed before the answer.")
            return working.result()
        finally:
            working.cancel()
            leaving.cancel()

    async def _in_time(
        self, work: Awaitable[Result], seconds: float, refusal: Callable[[], RefusedError]
    ) -> Result:
        try:
            return await asyncio.wait_for(work, max(seconds, 0.0))
        except TimeoutError:
            raise refusal() from None

    def _too_slow(self) -> RefusedError:
        return RefusedError(
            504,
            "timeout",
            f"No answer within {self.limits.timeout:g} s; send smaller images or try again later.",
            5,
        )

    def _too_slow_upload(self) -> RefusedError:
        return RefusedError(
            408, "slow_upload", f"The upload took more than {self.limits.timeout:g} s; send smaller images."
        )

    def _warmed(self, first: Future[Outcome]) -> None:
        error = first.exception()
        self.ready = error is None
        if error is not None:
            logger.error("the network failed on its first pair: %s", error)

    def _observe(self, size: int, seconds: float) -> None:
        self.metrics.batches.observe(size)
        self.metrics.network.observe(seconds)


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
