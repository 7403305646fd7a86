"""What holds for every answer: headers that lock the page in, and counting.

Who may ask: a page of another site must not use a service that only its reader's machine can reach.

Browsers let any page send requests to 127.0.0.1. Their answers are kept from it (there are no CORS headers),
but the requests would be served; and a name that first leads to the page's server and then to 127.0.0.1
(DNS rebinding) would let it read the answers too. Such requests carry that name in `Host`.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Iterable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from efnet.service.errors import RefusedError
from efnet.service.prometheus import Metrics
from efnet.service.schemas import ErrorAnswer, Fault

logger = logging.getLogger("efnet.service")

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Scripts and styles from this service's files alone; requests to nobody else."""

HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def fault(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that says what is wrong: a code for programs and a sentence for people."""
    answer = ErrorAnswer(error=Fault(code=code, message=message))
    return JSONResponse(answer.model_dump(), status, headers=headers)


class Guard:
    """Adds `HEADERS`, counts requests and bytes sent, and answers 500 for faults of our own."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                self._metrics.requests.add(1, _path(scope), str(message["status"]))
            elif message["type"] == "http.response.body":
                self._metrics.sent.add(len(message.get("body", b"")))
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise  # the connection closes: better than the half of an answer
            sentence = "The service failed on this request; its log says why: tell whoever runs it."
            await fault(500, "failed", sentence)(scope, receive, guarded)


def _path(scope: Scope) -> str:
    """The route's own path: what clients type would make a new series each time."""
    route = scope.get("route")
    return str(getattr(route, "path", "other"))


ANY = "*"
"""In place of names: whatever `Host` says is right."""

_OTHER_SITES = ("cross-site", "same-site")
"""`Sec-Fetch-Site` of requests that a page of another origin makes; browsers set it, pages cannot."""


def own_names(host: str, allowed: Iterable[str] = ()) -> frozenset[str]:
    """Names that a service answers to besides addresses and `localhost`.

    Args:
        host: what it listens on.
        allowed: further names, such as that of a proxy; `*` for any.
    """
    return frozenset(name.lower().rstrip(".") for name in (host, socket.gethostname(), *allowed))


class Door:
    """Refuses requests under a foreign name, and uploads from pages of other sites.

    Args:
        app: what it protects.
        names: those of `own_names`.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request (ASGI)."""
        if scope["type"] == "http":
            try:
                self._check(scope["method"], Headers(scope=scope))
            except RefusedError as refusal:
                await fault(refusal.status, refusal.code, refusal.message)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, method: str, headers: Headers) -> None:
        name = _name_in(headers.get("host", ""))
        if ANY not in self._names and not (_is_plain(name) or name in self._names):
            raise RefusedError(
                421,
                "unknown_host",
                f"This service does not go by the name {name[:100]!r}; ask it by its address, or start it "
                "with --allow-host and the name.",
            )
        if method not in ("GET", "HEAD") and headers.get("sec-fetch-site") in _OTHER_SITES:
            raise RefusedError(
                403, "other_site", "A page of another site sent this; use the page of the service itself."
            )


def _name_in(host: str) -> str:
    """The name or address in a Host header, without port and brackets."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def _is_plain(name: str) -> bool:
    """Whether a name cannot be made to lead elsewhere: an address, this machine, or none (HTTP/1.0)."""
    if name in ("", "localhost") or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
