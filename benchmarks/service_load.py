"""`efnet serve` under more load than it can take, from clients of whom many misbehave.

    python benchmarks/service_load.py [--seconds 30 | --minutes 10] [--clients 12] [--out service_load]

Starts a service with a small network on the loopback address and sends it pairs from `--clients` clients at
once, each answer of which is compared with the pair's own mask, made without a service. Meanwhile others
upload a byte at a time, leave in the middle, never read their answer, send too much, or send noise
(`service_clients.py`). Then all stop, and what the service still holds is counted; at last it gets SIGTERM
under load. Writes service_load.json and service_load.md. Exit status: 0 nothing lost, crossed or unexpected.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from service_clients import BOUNDARY, KINDS, UNLIKE, Crowd, Tally, Wire
from service_pairs import make_pairs, save_network
from service_process import MAX_BYTES, TIMEOUT, Service

from efnet.core.files import write_json, write_text


async def exercise(service: Service, crowd: Crowd, clients: int, seconds: float) -> dict[str, Any]:
    """Load, then silence, then SIGTERM under load."""
    tally = crowd.tally
    while not await _ready(service.place):
        await asyncio.sleep(0.1)
    started = time.monotonic()
    before = {"memory": service.memory(), "files": service.files()}
    samples: list[tuple[float, float]] = []

    def going() -> bool:
        return time.monotonic() < started + seconds

    async def watch() -> None:
        while going():
            samples.append((time.monotonic() - started, service.memory()))
            await asyncio.sleep(min(1.0, seconds / 20))

    misbehaving = [crowd.repeat(kind, KINDS[kind][1], going) for kind in KINDS for _ in range(KINDS[kind][0])]
    await asyncio.gather(watch(), *(crowd.many_pairs(going) for _ in range(clients)), *misbehaving)
    loaded = time.monotonic() - started

    quiet = await _until_quiet(service, before["files"])
    after = {"memory": service.memory(), "files": service.files(), "seconds": quiet}
    held = await _gauges(service.place)

    tally.ending = True
    ending = [asyncio.ensure_future(crowd.many_pairs(lambda: True)) for _ in range(clients)]
    await asyncio.sleep(min(3.0, seconds / 4))
    for counts in tally.while_ending.values():
        counts.clear()
    signalled = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    while service.process.poll() is None and time.monotonic() < signalled + TIMEOUT + 15:
        await asyncio.sleep(0.02)
    ended = {"status": service.process.poll(), "seconds": time.monotonic() - signalled}
    for client in ending:
        client.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
    return {
        "seconds": loaded,
        "memory": _memory(before["memory"], samples, after["memory"]),
        "files": {"before": before["files"], "after": after["files"], "quiet_after_seconds": quiet},
        "held_when_quiet": held,
        "ended": ended,
    }


async def _get(place: tuple[str, int], path: str) -> tuple[int, bytes]:
    wire = await Wire.open(place)
    try:
        await wire.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        return await wire.answer(10.0)
    finally:
        wire.close()


async def _ready(place: tuple[str, int]) -> bool:
    return (await _get(place, "/healthz"))[0] == 200


async def _gauges(place: tuple[str, int]) -> dict[str, float]:
    text = (await _get(place, "/metrics"))[1].decode()
    names = ("efnet_requests_under_way", "efnet_queue_length")
    return {name: float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0]) for name in names}


async def _until_quiet(service: Service, files: int) -> float:
    """Seconds until the service holds no more connections than before; at most three of its time limits."""
    started = time.monotonic()
    while service.files() > files and time.monotonic() < started + 3 * TIMEOUT:
        await asyncio.sleep(0.1)
    return time.monotonic() - started


def _memory(before: float, samples: list[tuple[float, float]], after: float) -> dict[str, Any]:
    """MiB; the slope is a line through the samples of the last four fifths, MiB each minute.

    A gap between samples much longer than a second means that the clients, or the whole machine, stood still.
    """
    times, sizes = np.array(samples).T
    late = times >= times[-1] / 5
    slope = np.polyfit(times[late], sizes[late], 1)[0] * 60 if late.sum() > 2 else 0.0
    return {
        "start": before,
        "warm": float(sizes[late][0]),
        "peak": float(sizes.max()),
        "end": after,
        "slope_per_minute": float(slope),
        "longest_gap_seconds": float(np.diff(times).max()) if len(times) > 1 else 0.0,
        "series": [[round(t, 1), round(m, 1)] for t, m in samples[:: max(1, len(samples) // 60)]],
    }


def judge(report: dict[str, Any]) -> list[str]:
    """What is wrong, in words."""
    faults = [f"unexpected: {text}" for text in report["surprises"]]
    for name, value in report["held_when_quiet"].items():
        if value:
            faults.append(f"{name} is {value:g} with nobody there")
    if report["files"]["after"] > report["files"]["before"]:
        faults.append(f"{report['files']['after'] - report['files']['before']} connections stay open")
    if report["ended"]["status"] != 0 or report["ended"]["seconds"] > TIMEOUT + 10:
        faults.append(f"SIGTERM: {report['ended']}")
    dropped = report["while_ending"].get("pair", {}).get("no answer", 0)
    if dropped:
        faults.append(f"{dropped} requests were dropped after SIGTERM")
    if report["tracebacks"]:
        faults.append(f"{report['tracebacks']} tracebacks in the log")
    return faults


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    rows = [
        (kind, outcome, count)
        for kind, counts in report["under_load"].items()
        for outcome, count in counts.items()
    ]
    lines = [
        "| client | outcome | number |",
        "|---|---|--:|",
        *(f"| {k} | {o} | {n} |" for k, o, n in sorted(rows)),
    ]
    memory, latency = report["memory"], report["latency_ms"]
    lines += [
        "",
        f"{report['answered']} pairs answered in {report['seconds']:.0f} s by {report['clients']} clients, "
        f"{report['exact']} of the masks bit for bit; milliseconds "
        + ", ".join(f"{name} {value:.0f}" for name, value in latency.items())
        + "; healthz, metrics and model "
        + ", ".join(f"{name} {value:.0f}" for name, value in report["probe_ms"].items())
        + ".",
        f"Memory in MiB: {memory['start']:.0f} at the start, {memory['warm']:.0f} warm, "
        f"{memory['peak']:.0f} at most, {memory['end']:.0f} at the end; "
        f"{memory['slope_per_minute']:+.2f} each minute; samples at most "
        f"{memory['longest_gap_seconds']:.1f} s apart.",
        f"SIGTERM under load: status {report['ended']['status']} after {report['ended']['seconds']:.1f} s; "
        f"pairs from then on: {report['while_ending'].get('pair', {})}.",
        f"Faults: {'; '.join(report['faults']) or 'none'}.",
    ]
    return "\n".join(lines) + "\n"


def _percentiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    return {f"p{p}": float(np.percentile(seconds, p)) * 1000 for p in (50, 95, 99, 100)}


def run(seconds: float, clients: int, count: int, batch_size: int) -> dict[str, Any]:
    """One whole run; its report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_network(folder)
        pairs = make_pairs(folder, count, BOUNDARY, UNLIKE)
        service = Service(folder, batch_size)
        tally = Tally(patience=TIMEOUT + 10)
        crowd = Crowd(service.place, pairs, tally, TIMEOUT, MAX_BYTES)
        try:
            report = asyncio.run(exercise(service, crowd, clients, seconds))
        finally:
            service.process.kill()
            service.process.communicate()
        log = (folder / "log.txt").read_text(encoding="utf-8")
    pairs_sent = tally.under_load.get("pair", {})
    report |= {
        "clients": clients,
        "load_average": os.getloadavg()[1],
        "batch_size": batch_size,
        "sent": sum(pairs_sent.values()),
        "answered": pairs_sent.get("200", 0),
        "exact": tally.exact,
        "latency_ms": _percentiles(tally.seconds),
        "probe_ms": _percentiles(tally.probe_seconds),
        "under_load": {kind: dict(counts) for kind, counts in tally.under_load.items()},
        "while_ending": {kind: dict(counts) for kind, counts in tally.while_ending.items()},
        "surprises": tally.surprises,
        "tracebacks": log.count("Traceback"),
        "log_lines": len(log.splitlines()),
        "log": log[:4000] if "Traceback" in log else "",
    }
    return report | {"faults": judge(report)}


def main() -> int:
    """Read the options, run, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=30.0, help="of load")
    length.add_argument("--minutes", type=float, help="the same in minutes")
    parser.add_argument("--clients", type=int, default=12, help="that send pairs")
    parser.add_argument("--pairs", type=int, default=40, help="different pairs")
    parser.add_argument(
        "--batch-size", type=int, default=4, help="of the service; 1: masks must be equal bit for bit"
    )
    parser.add_argument("--out", type=Path, default=Path("service_load"), help="folder")
    options = parser.parse_args()
    seconds = options.seconds if options.minutes is None else 60 * options.minutes
    report = run(seconds, options.clients, options.pairs, options.batch_size)
    write_json(options.out / "service_load.json", report)
    write_text(options.out / "service_load.md", table(report))
    print(table(report), end="")
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
