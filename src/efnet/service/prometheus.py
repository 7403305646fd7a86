"""Counters of the service in Prometheus' text format (exposition format 0.0.4)."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class Counter:
    """A number that only grows, one for each combination of label values."""

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name, self.text, self._labels = name, text, tuple(labels)
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, amount: float = 1.0, *values: str) -> None:
        """Add `amount` to the number with these label values."""
        with self._lock:
            self._values[values] = self._values.get(values, 0.0) + amount

    def lines(self) -> Iterator[str]:
        """The samples."""
        with self._lock:
            values = sorted(self._values.items())
        for key, value in values:
            labels = ",".join(f'{label}="{text}"' for label, text in zip(self._labels, key, strict=True))
            yield f"{self.name}{{{labels}}} {_number(value)}" if labels else f"{self.name} {_number(value)}"


class Gauge:
    """A number that is asked for when somebody looks."""

    kind = "gauge"

    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self.name, self.text, self._read = name, text, read

    def lines(self) -> Iterator[str]:
        """The sample."""
        yield f"{self.name} {_number(self._read())}"


class Histogram:
    """How many observations lie at or below each bound, their sum and their number."""

    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.name, self.text, self._bounds = name, text, tuple(bounds)
        self._lock = threading.Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Take one observation."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def lines(self) -> Iterator[str]:
        """The cumulative samples."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        seen = 0
        for bound, count in zip((*map(_number, self._bounds), "+Inf"), counts, strict=True):
            seen += count
            yield f'{self.name}_bucket{{le="{bound}"}} {seen}'
        yield f"{self.name}_sum {_number(total)}"
        yield f"{self.name}_count {seen}"


class Metrics:
    """What the service counts.

    Args:
        under_way: number of segmentation requests under way.
        waiting: number of pairs that wait for the network.
    """

    def __init__(self, under_way: Callable[[], float], waiting: Callable[[], float]) -> None:
        self.requests = Counter("efnet_requests_total", "Requests answered.", ("path", "status"))
        self.latency = Histogram(
            "efnet_segment_seconds", "Time from arrival to answer of segmented pairs.", _SECONDS
        )
        self.network = Histogram("efnet_network_seconds", "Time of one pass of the network.", _SECONDS)
        self.batches = Histogram("efnet_batch_size", "Pairs in one pass of the network.", _SIZES)
        self.received = Counter("efnet_received_bytes_total", "Bytes of request bodies.")
        self.sent = Counter("efnet_sent_bytes_total", "Bytes of answers' bodies.")
        self._all: tuple[Counter | Gauge | Histogram, ...] = (
            self.requests,
            self.latency,
            self.network,
            self.batches,
            self.received,
            self.sent,
            Gauge("efnet_requests_under_way", "Segmentation requests under way.", under_way),
            Gauge("efnet_queue_length", "Pairs that wait for the network.", waiting),
        )

    def render(self) -> str:
        """All of it as text."""
        lines: list[str] = []
        for metric in self._all:
            lines += [f"# HELP {metric.name} {metric.text}", f"# TYPE {metric.name} {metric.kind}"]
            lines += metric.lines()
        return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
