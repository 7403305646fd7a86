"""One connection: how long its client may take to ask, to take the answer, and to go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_HEAD_SECONDS = 10.0
"""For the head of a request, from the connection or the answer before; uvicorn ends idle ones after five."""

_REST_SECONDS = 5.0
"""For what a client still sends of a request that is answered. Closing at once would make its system throw
the answer away unread."""

_LAST_CALL_SECONDS = 0.5
"""For a request that is on its way when the service ends, to be refused with a sentence."""

Phase = Literal["head", "rest", "answer"]


class Connection(H11Protocol):
    """Uvicorn's connection with the limits that it lacks: nobody holds one by being slow.

    Args:
        timeout: seconds in which an answer has to be taken; bounds the other limits too.
        stopping: whether the service is ending, when no connection is kept for another request.
        settings: what uvicorn gives every connection.
    """

    def __init__(self, timeout: float, stopping: Callable[[], bool], **settings: Any) -> None:
        super().__init__(**settings)
        self._timeout = timeout
        self._stopping = stopping
        self._phase: Phase = "answer"
        self._asking: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client is there (asyncio)."""
        super().connection_made(transport)
        self._follow()
        if self._stopping():
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone (asyncio)."""
        for timer in (self._asking, self._taking):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came (asyncio)."""
        super().data_received(data)
        self._follow()

    def handle_events(self) -> None:
        """Requests among the bytes that came (uvicorn)."""
        super().handle_events()
        if self._stopping():
            self._make_last()

    def on_response_complete(self) -> None:
        """An answer was handed to the system, or waits in the buffer (uvicorn)."""
        super().on_response_complete()
        self._follow()
        self._await_reader()

    def pause_writing(self) -> None:
        """The buffer is full: the client does not read (asyncio)."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """The client reads (asyncio)."""
        super().resume_writing()
        self._await_reader()

    def shutdown(self) -> None:
        """Close when nothing is under way (uvicorn), and not in the face of a request that is arriving."""
        self._make_last()
        self.loop.call_later(_LAST_CALL_SECONDS, super().shutdown)

    def _make_last(self) -> None:
        """Let the answer say that the connection ends with it, as if the client had asked for that."""
        if self.cycle is not None and not self.cycle.response_started:
            self.headers.append((b"connection", b"close"))

    def _follow(self) -> None:
        """Start a limit where another phase begins; bytes within a phase do not prolong it."""
        if self.cycle is not None and not self.cycle.response_complete:
            phase: Phase = "answer"
        else:
            phase = "rest" if self.conn.their_state is h11.SEND_BODY else "head"
        if phase == self._phase:
            return
        self._phase = phase
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        if phase != "answer":
            seconds = _HEAD_SECONDS if phase == "head" else _REST_SECONDS
            self._asking = self.loop.call_later(min(seconds, self._timeout), self.transport.close)

    def _await_reader(self) -> None:
        """Give the client its time to take what is in the buffer."""
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None
        if self.transport.get_write_buffer_size():
            # Closing would wait for the buffer.
            self._taking = self.loop.call_later(self._timeout, self.transport.abort)
