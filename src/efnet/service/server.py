"""The service on a port: bound before anything is promised, and ended so that nothing is lost.

One connection: how long its client may take to ask, to take the answer, and to go.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Literal

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from efnet.core.errors import InputError
from efnet.service.limits import Limits

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


_GRACE = 5
"""Seconds on top of a request's own limit, in which answers are sent."""


def bind(host: str, port: int) -> socket.socket:
    """Take a port.

    Args:
        host: name or address, of IPv4 or IPv6.
        port: 0 for any free one.

    Raises:
        InputError: the address is unknown, or the port taken or not allowed.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port} is not between 0 and 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InputError(f"--host {host}: no such address ({error.strerror}); use 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InputError(
            f"--port {port}: cannot be had on {host} ({error.strerror}); choose another"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where the page is."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(app: FastAPI, listener: socket.socket, limits: Limits, announce: Callable[[], None]) -> bool:
    """Serve until SIGTERM or Ctrl-C; then finish what was accepted.

    It ends at most the time limit of a request and some seconds after the signal.

    Args:
        app: what `create_app` returned.
        listener: what `bind` returned; closed at the end.
        limits: those of `app`.
        announce: called when connections are accepted.

    Returns:
        whether it ended in order; if not, a pass of the network is still running in its thread.
    """
    segmenter = app.state.segmenter

    def stop() -> None:
        segmenter.stopping = True

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        http=partial(Connection, limits.timeout, lambda: segmenter.stopping),  # type: ignore[arg-type]
        ws="none",
        proxy_headers=False,  # nothing here depends on who asks
        timeout_graceful_shutdown=int(limits.timeout) + _GRACE,
    )
    _Server(config, announce, stop).run(sockets=[listener])
    ended: bool = segmenter.ended
    return ended


class _Server(uvicorn.Server):
    """Uvicorn, which ends its process by the signal it got; an orderly end is a success, though."""

    def __init__(
        self, config: uvicorn.Config, announce: Callable[[], None], stop: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._announce = announce
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called with the signal; a second one ends at once."""
        self._stop()
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
