"""Clients that a service meets: those that send pairs and check what comes back, and those that misbehave.

Used by `service_load.py`. Requests are written by hand, byte by byte where it matters: no library for
HTTP lets go of a connection half way or sends a header for a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from service_pairs import Pair, index_of_png

BOUNDARY = "pair"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
LIKE, UNLIKE = 0.98, 0.9
"""Of the pixels of a mask, those that agree with the pair's own mask, and with any other pair's at most."""

_BROKEN = (ConnectionError, asyncio.IncompleteReadError, TimeoutError, OSError)


@dataclass
class Tally:
    """What became of what was sent: kind of client, then outcome, to number."""

    patience: float
    """Seconds after which a client takes a request for lost."""
    ending: bool = False
    under_load: dict[str, Counter[str]] = field(default_factory=dict)
    while_ending: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    probe_seconds: list[float] = field(default_factory=list)
    exact: int = 0
    surprises: list[str] = field(default_factory=list)

    def note(self, kind: str, outcome: str, expected: frozenset[str]) -> None:
        """Count an outcome; one that is not expected is kept in words."""
        counts = self.while_ending if self.ending else self.under_load
        counts.setdefault(kind, Counter())[outcome] += 1
        if not self.ending and outcome not in expected and len(self.surprises) < 50:
            self.surprises.append(f"{kind}: {outcome}")


class Wire:
    """One connection to the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.kept = True

    @classmethod
    async def open(cls, place: tuple[str, int]) -> Wire:
        """Connect."""
        return cls(*await asyncio.open_connection(*place))

    async def send(self, content: bytes) -> None:
        """Write, as fast as the service reads."""
        self.writer.write(content)
        await self.writer.drain()

    async def answer(self, patience: float) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        async with asyncio.timeout(patience):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            status = int(head.split(" ", 2)[1])
            self.kept = "connection: close" not in head
            _, found, rest = head.partition("content-length:")
            if not found:
                return status, await self.reader.read()
            return status, await self.reader.readexactly(int(rest.split("\r\n", 1)[0]))

    async def until_closed(self, patience: float) -> bool:
        """Whether the service closes the connection in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                with contextlib.suppress(*_BROKEN):
                    while await self.reader.read(65536):
                        pass
                return True
        return False

    def close(self, rudely: bool = False) -> None:
        """Let go; rudely: with a reset in place of a goodbye."""
        taken: socket.socket | None = self.writer.get_extra_info("socket")
        if rudely and taken is not None and taken.fileno() >= 0:
            with contextlib.suppress(OSError):
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.close()


def post(
    body: bytes,
    query: str = "format=png",
    kind: str = FORM,
    length: int | None = None,
    path: str = "/v1/segment",
) -> bytes:
    """The head of a request for one pair."""
    return (
        f"POST {path}?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    ).encode()


@dataclass
class Crowd:
    """All clients of one run.

    Args:
        place: address and port of the service.
        pairs: what is sent, with what has to come back.
        tally: what happened.
        timeout: that of the service, seconds.
        max_bytes: that of the service.
    """

    place: tuple[str, int]
    pairs: list[Pair]
    tally: Tally
    timeout: float
    max_bytes: int
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    async def many_pairs(self, going: Callable[[], bool]) -> None:
        """Pairs one after the other, some on one connection and some on connections of their own."""
        wire: Wire | None = None
        while going():
            fresh = wire is None
            try:
                wire = wire or await Wire.open(self.place)
            except _BROKEN:
                self.tally.note("pair", "not connected", _PAIR)
                await asyncio.sleep(0.05)
                continue
            outcome = await self._pair(wire)
            if outcome == "no answer" and not fresh and self.tally.ending:
                outcome = "kept connection was closed"
            self.tally.note("pair", outcome, _PAIR)
            if outcome not in ("200", "503") or not wire.kept or self.chance.random() < 0.3:
                wire.close()
                wire = None
            if outcome == "503":
                await asyncio.sleep(self.chance.uniform(0.05, 0.2))
        if wire is not None:
            wire.close()

    async def _pair(self, wire: Wire) -> str:
        pair = self.chance.choice(self.pairs)
        started = time.monotonic()
        try:
            await wire.send(post(pair.body) + pair.body)
            status, content = await wire.answer(self.tally.patience)
        except TimeoutError:
            return "no answer in time"
        except _BROKEN:
            return "no answer"
        if status != 200:
            return str(status)
        if not self.tally.ending:
            self.tally.seconds.append(time.monotonic() - started)
        return self._judge(pair, index_of_png(content))

    def _judge(self, pair: Pair, index: NDArray[np.uint8]) -> str:
        """200 if the mask is that of this pair and of no other."""
        if np.array_equal(index, pair.index):
            self.tally.exact += 1
            return "200"
        own = pair.likeness(index)
        others = max((other.likeness(index) for other in self.pairs if other is not pair), default=0.0)
        if others > own:
            return "200 crossed"
        return "200" if own > LIKE else f"200 but {own:.3f} like its own"

    async def slow_upload(self) -> str:
        """A body that comes a byte at a time and goes on after the refusal."""
        body = self.chance.choice(self.pairs).body
        wire = await Wire.open(self.place)
        await wire.send(post(body))
        answer = asyncio.ensure_future(wire.answer(self.tally.patience))
        try:
            for value in body:
                if answer.done():
                    break
                await wire.send(bytes([value]))
                await asyncio.wait([answer], timeout=0.2)
            status, _ = await answer
            dripping = asyncio.ensure_future(_drip(wire))
            closed = await wire.until_closed(self.tally.patience)
            dripping.cancel()
            return f"{status}, then closed" if closed else f"{status}, never closed"
        finally:
            answer.cancel()
            wire.close()

    async def slow_head(self) -> str:
        """A header that never ends, or nothing at all."""
        wire = await Wire.open(self.place)
        dripping = asyncio.ensure_future(_drip(wire, b"GET /healthz HTTP/1.1\r\nX-Slow: "))
        if self.chance.random() < 0.5:
            dripping.cancel()
        closed = await wire.until_closed(self.tally.patience)
        dripping.cancel()
        wire.close()
        return "closed" if closed else "never closed"

    async def leaves_early(self) -> str:
        """Goes in the middle of the upload."""
        body = self.chance.choice(self.pairs).body
        wire = await Wire.open(self.place)
        await wire.send(post(body) + body[: self.chance.randrange(len(body))])
        await asyncio.sleep(self.chance.uniform(0, 0.05))
        wire.close(rudely=self.chance.random() < 0.5)
        return "left"

    async def leaves_waiting(self) -> str:
        """Goes before the answer comes."""
        body = self.chance.choice(self.pairs).body
        wire = await Wire.open(self.place)
        await wire.send(post(body) + body)
        await asyncio.sleep(self.chance.uniform(0, 0.1))
        wire.close(rudely=self.chance.random() < 0.5)
        return "left"

    async def never_reads(self) -> str:
        """Asks for much and takes nothing, until the service lets go."""
        loop = asyncio.get_running_loop()
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            taken.setblocking(False)
            await loop.sock_connect(taken, self.place)
            ended = time.monotonic() + 2 * self.timeout + self.tally.patience
            while time.monotonic() < ended:
                try:
                    async with asyncio.timeout(0.5):
                        await loop.sock_sendall(taken, b"GET /docs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 50)
                except TimeoutError:
                    continue
                except OSError:
                    return "closed"
        return "never closed"

    async def too_large(self) -> str:
        """More bytes than are taken: announced, or in chunks without an announcement."""
        wire = await Wire.open(self.place)
        try:
            if self.chance.random() < 0.5:
                await wire.send(post(b"", length=10**12) + bytes(1000))
                return str((await wire.answer(self.tally.patience))[0])
            head = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
            sending = asyncio.ensure_future(_flood(wire, head, 2 * self.max_bytes))
            try:
                return str((await wire.answer(self.tally.patience))[0])
            finally:
                sending.cancel()
        finally:
            wire.close()

    async def garbage(self) -> str:
        """Noise in place of a request, a form, an image, a path or a parameter."""
        noise = self.chance.randbytes(400)
        body = self.chance.choice(self.pairs).body
        damaged = body[: len(body) // 3] + noise + body[len(body) // 3 + len(noise) :]
        what, expected = self.chance.choice(
            [
                (noise + b"\r\n\r\n", "400"),
                (post(noise) + noise, "400"),
                (post(noise, kind="text/plain") + noise, "415"),
                (post(body, query="format=gif") + body, "400"),
                (post(damaged) + damaged, "422 415 400 200"),
                (post(b"", path="/v1/../../etc/passwd"), "404"),
                (b"GET /%00%ff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "404"),
                (b"PUT /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n", "405"),
            ]
        )
        wire = await Wire.open(self.place)
        try:
            await wire.send(what)
            status, _ = await wire.answer(self.tally.patience)
        finally:
            wire.close()
        return (
            "refused as it should be"
            if str(status) in (*expected.split(), "503")
            else f"{status} for {what[:60]!r}"
        )

    async def probe(self) -> str:
        """What an operator asks meanwhile."""
        started = time.monotonic()
        wire = await Wire.open(self.place)
        try:
            path = self.chance.choice(["/healthz", "/metrics", "/v1/model"])
            await wire.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            status, _ = await wire.answer(self.tally.patience)
        finally:
            wire.close()
        self.tally.probe_seconds.append(time.monotonic() - started)
        return str(status)

    async def repeat(self, kind: str, pause: float, going: Callable[[], bool]) -> None:
        """One kind of misbehaviour again and again."""
        act: Callable[[], Awaitable[str]] = getattr(self, kind)
        while going():
            try:
                outcome = await act()
            except TimeoutError:
                outcome = "no answer in time"
            except _BROKEN as error:
                outcome = type(error).__name__
            self.tally.note(kind, outcome, KINDS[kind][2])
            soon = 0.02 if outcome.startswith("503") else pause
            await asyncio.sleep(self.chance.uniform(0.5, 1.5) * soon)


_PAIR = frozenset({"200", "503", "504"})

KINDS: dict[str, tuple[int, float, frozenset[str]]] = {
    "slow_upload": (2, 0.5, frozenset({"408, then closed", "503, then closed"})),
    "slow_head": (3, 0.5, frozenset({"closed"})),
    "leaves_early": (1, 0.1, frozenset({"left"})),
    "leaves_waiting": (1, 0.1, frozenset({"left"})),
    "never_reads": (1, 0.5, frozenset({"closed"})),
    "too_large": (1, 0.2, frozenset({"408", "413", "503"})),
    "garbage": (1, 0.05, frozenset({"refused as it should be"})),
    "probe": (1, 0.25, frozenset({"200"})),
}
"""Kind of client: how many of them, seconds between two of their requests, and outcomes that are right."""


async def _drip(wire: Wire, first: bytes = b"") -> None:
    with contextlib.suppress(*_BROKEN):
        await wire.send(first)
        while True:
            await wire.send(b"x")
            await asyncio.sleep(0.2)


async def _flood(wire: Wire, head: bytes, size: int) -> None:
    start = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="rgb"\r\n\r\n'.encode()
    with contextlib.suppress(*_BROKEN):
        await wire.send(head + f"{len(start):x}\r\n".encode() + start + b"\r\n")
        for _ in range(size // 50_000 + 1):
            await wire.send(f"{50_000:x}\r\n".encode() + bytes(50_000) + b"\r\n")
