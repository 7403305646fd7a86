"""Rules for every request: hosts and sites that may send it, security headers, and counters.

Browsers let any page send requests to 127.0.0.1. The page cannot read the answers (there are no CORS
headers), but the service would do the work. A name that first resolves to the page's server and then to
127.0.0.1 (DNS rebinding) would let the page read the answers too; such requests carry that name in `Host`.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from efnet.service.errors import RefusedError, refusal

logger = logging.getLogger("efnet.service")

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Scripts and styles come from this service's files alone, and requests go nowhere else."""

HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

ANY = "*"
"""In place of names: accept any `Host`."""

_OTHER_SITES = ("cross-site", "same-site")
"""`Sec-Fetch-Site` of requests that a page of another origin makes; browsers set it, pages cannot."""

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class _Registry(CollectorRegistry):
    def collect(self) -> Iterator[Metric]:
        """The metrics without the time at which each counter was created, a series of its own."""
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class Metrics:
    """The counters of one service, for Prometheus.

    `under_way` returns the number of segmentation requests in progress, `waiting` the number of pairs that
    wait for the network.
    """

    def __init__(self, under_way: Callable[[], float], waiting: Callable[[], float]) -> None:
        registry = self._registry = _Registry()
        self.requests = Counter("efnet_requests", "Requests answered.", ("path", "status"), registry=registry)
        latency = "Time from arrival to answer of segmented pairs."
        self.latency = Histogram("efnet_segment_seconds", latency, registry=registry, buckets=_SECONDS)
        seconds = "Time of one pass of the network."
        self.network = Histogram("efnet_network_seconds", seconds, registry=registry, buckets=_SECONDS)
        pairs = "Pairs in one pass of the network."
        self.batches = Histogram("efnet_batch_size", pairs, registry=registry, buckets=_SIZES)
        self.received = Counter("efnet_received_bytes", "Bytes of request bodies.", registry=registry)
        self.sent = Counter("efnet_sent_bytes", "Bytes of answers' bodies.", registry=registry)
        busy = Gauge("efnet_requests_under_way", "Segmentation requests in progress.", registry=registry)
        busy.set_function(under_way)
        queue = Gauge("efnet_queue_length", "Pairs that wait for the network.", registry=registry)
        queue.set_function(waiting)

    def render(self) -> str:
        """Return all counters in Prometheus' text format (exposition format 0.0.4)."""
        return generate_latest(self._registry).decode()


def own_names(host: str, allow_host: Iterable[str] = ()) -> frozenset[str]:
    """Return the names that a service accepts besides addresses and `localhost`.

    They are the `host` that it listens on and `allow_host`, such as the name of a proxy; `*` accepts any.
    """
    return frozenset(name.lower().rstrip(".") for name in (host, socket.gethostname(), *allow_host))


class ServiceMiddleware:
    """Refuses foreign hosts and sites, adds `HEADERS`, counts, and answers 500 for unexpected errors.

    Starlette's `TrustedHostMiddleware` cannot accept every IP address, and answers plain text. `names` are
    those of `own_names`; with None, requests are not checked.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, names: frozenset[str] | None) -> None:
        self._app = app
        self._metrics = metrics
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request (ASGI)."""
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
                # The route's own path: paths that clients type would make a new series each time.
                path = str(getattr(scope.get("route"), "path", "other"))
                self._metrics.requests.labels(path, str(message["status"])).inc()
            elif message["type"] == "http.response.body":
                self._metrics.sent.inc(len(message.get("body", b"")))
            await send(message)

        try:
            if self._names is not None:
                _check_sender(self._names, scope["method"], Headers(scope=scope))
            await self._app(scope, receive, guarded)
        except RefusedError as error:
            await error.response()(scope, receive, guarded)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise  # the connection closes: better than the half of an answer
            await refusal("failed").response()(scope, receive, guarded)


def _check_sender(names: frozenset[str], method: str, headers: Headers) -> None:
    host = headers.get("host", "").strip().lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].rstrip(".")
    if ANY not in names and not (_is_plain(name) or name in names):
        raise refusal("unknown_host", name=name[:100])
    if method not in ("GET", "HEAD") and headers.get("sec-fetch-site") in _OTHER_SITES:
        raise refusal("other_site")


def _is_plain(name: str) -> bool:
    """Return whether DNS cannot redirect a name: an address, this machine, or none (HTTP/1.0)."""
    if name in ("", "localhost") or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
