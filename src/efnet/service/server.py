"""The service on a port: bound before the network loads, and stopped without losing a request.

Its connections have the time limits that uvicorn's lack: for a request, for the rest of a refused body, and
for reading the answer.
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
from efnet.service.segmenter import Limits, Segmenter

_HEAD_SECONDS = 10.0
"""For the head of a request, from the connection or the last answer; uvicorn closes idle ones after five."""

_REST_SECONDS = 5.0
"""For the rest of a body whose request is answered already. Closing at once would make the client's system
discard the answer."""

_LAST_CALL_SECONDS = 0.5
"""For a request that arrives while the service stops: it is refused with a message."""

_GRACE = 5
"""Seconds on top of a request's own limit, for sending answers."""

Phase = Literal["head", "rest", "answer"]


class Connection(H11Protocol):
    """Uvicorn's connection with time limits, so that no client holds one by being slow.

    The client has `timeout` seconds to read an answer; they bound the other limits too. While `stopping()` is
    true, no connection is kept for another request. `settings` are uvicorn's own.
    """

    def __init__(self, timeout: float, stopping: Callable[[], bool], **settings: Any) -> None:
        super().__init__(**settings)
        self._timeout = timeout
        self._stopping = stopping
        self._phase: Phase = "answer"
        self._asking: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the first limit (asyncio: a client connected)."""
        super().connection_made(transport)
        self._follow()
        if self._stopping():
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the limits (asyncio: the client is gone)."""
        _cancel(self._asking)
        _cancel(self._taking)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes, then set the limit of the phase they begin (asyncio)."""
        super().data_received(data)
        self._follow()

    def handle_events(self) -> None:
        """Handle parsed requests; while stopping, each is the last of its connection (uvicorn)."""
        super().handle_events()
        if self._stopping():
            self._make_last()

    def on_response_complete(self) -> None:
        """Set the limit of the next phase, and of reading this answer (uvicorn)."""
        super().on_response_complete()
        self._follow()
        self._await_reader()

    def pause_writing(self) -> None:
        """Give a client that does not read its time (asyncio: the buffer is full)."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Give it new time (asyncio: the client reads)."""
        super().resume_writing()
        self._await_reader()

    def shutdown(self) -> None:
        """Close when no request is in progress (uvicorn), after a moment for one that is arriving."""
        self._make_last()
        self.loop.call_later(_LAST_CALL_SECONDS, super().shutdown)

    def _make_last(self) -> None:
        """Make the answer close the connection, as if the client had asked for that."""
        if self.cycle is not None and not self.cycle.response_started:
            self.headers.append((b"connection", b"close"))

    def _follow(self) -> None:
        """Start a limit when another phase begins; bytes within a phase do not extend it."""
        if self.cycle is not None and not self.cycle.response_complete:
            phase: Phase = "answer"
        else:
            phase = "rest" if self.conn.their_state is h11.SEND_BODY else "head"
        if phase == self._phase:
            return
        self._phase = phase
        _cancel(self._asking)
        if phase != "answer":
            seconds = _HEAD_SECONDS if phase == "head" else _REST_SECONDS
            self._asking = self.loop.call_later(min(seconds, self._timeout), self.transport.close)

    def _await_reader(self) -> None:
        """Give the client its time to read the buffer."""
        _cancel(self._taking)
        if self.transport.get_write_buffer_size():
            # Closing would wait for the buffer.
            self._taking = self.loop.call_later(self._timeout, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def bind(host: str, port: int) -> socket.socket:
    """Open a port, 0 for any free one, on a host name or an address of IPv4 or IPv6.

    Raises:
        InputError: the address is unknown, or the port is in use or not allowed.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"`port` {port} is not between 0 and 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InputError(f"`host` {host}: no such address ({error.strerror}); use 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InputError(
            f"`port` {port}: cannot be opened on {host} ({error.strerror}); choose another"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address of the page."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(app: FastAPI, listener: socket.socket, limits: Limits, announce: Callable[[], None]) -> bool:
    """Serve an app of `create_app` until SIGTERM or Ctrl-C, then answer the accepted requests.

    It stops at most the time limit of a request and some seconds after the signal. The listener, from `bind`,
    is closed at the end. `announce` is called when connections are accepted.

    Returns:
        whether the network's thread ended; if not, a pass is still running in it.
    """
    segmenter: Segmenter = app.state.segmenter
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        http=partial(Connection, limits.timeout, lambda: segmenter.stopping),  # type: ignore[arg-type]
        ws="none",
        proxy_headers=False,  # nothing here depends on the sender
        timeout_graceful_shutdown=int(limits.timeout) + _GRACE,
    )
    _Server(config, announce, segmenter).run(sockets=[listener])
    return segmenter.ended


class _Server(uvicorn.Server):
    """Uvicorn without its re-raised signal: an orderly stop exits with status 0."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None], segmenter: Segmenter) -> None:
        super().__init__(config)
        self._announce = announce
        self._segmenter = segmenter

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then announce it."""
        await super().startup(sockets)
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop gracefully on a signal, at once on a second one."""
        self._segmenter.stopping = True
        self.force_exit = self.should_exit
        self.should_exit = True
