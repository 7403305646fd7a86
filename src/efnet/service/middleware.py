"""What holds for every answer: headers that lock the page in, and counting."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from efnet.service.metrics import Metrics
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
