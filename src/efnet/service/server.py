"""The service on a port: bound before anything is promised, and ended so that nothing is lost."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from efnet.errors import InputError
from efnet.service.connection import Connection
from efnet.service.limits import Limits

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
