"""`efnet predict` over very many pairs: memory as it goes on, pairs per second, and how soon it resumes.

    python benchmarks/predict_scale.py [--pairs 10000] [--size 32x32] [--files 16] [--kill-at 4000]

Writes small generated pairs to a temporary folder (most of them hard links to a few files, unless --files
says otherwise), predicts them with an untrained efnet_tiny in a process of its own, and looks at that
process's resident memory each time a tenth of the pairs is recorded. With --kill-at it is killed once, with
SIGKILL, when so many are recorded, and started again. At the end every pair has to be there, once.

Linux only: memory is read from /proc. Exit status: 0 every pair was predicted once, 1 not.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import efnet
from efnet.cli.options import parse_size
from efnet.core.journal import read_journal
from efnet.inference.resume import FILE_NAME, kept_record


def write_pairs(root: Path, count: int, files: int, size: tuple[int, int]) -> None:
    """`count` pairs in `rgb/` and `thermal/`, of which the first `files` are files of their own."""
    rng = np.random.default_rng(0)
    for folder, shape in (("rgb", (4, 5, 3)), ("thermal", (4, 5))):
        (root / folder).mkdir()
        for number in range(count):
            path = root / folder / f"frame{number:06}.png"
            if number < files:
                blobs = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
                blobs.resize(size[::-1], Image.Resampling.BICUBIC).save(path)
            else:
                os.link(root / folder / f"frame{number % files:06}.png", path)


def start(root: Path) -> subprocess.Popen[bytes]:
    """The command, as typed."""
    words = ["--checkpoint", "model", "--rgb", "rgb", "--thermal", "thermal", "--out", "out"]
    command = [sys.executable, "-m", "efnet", "predict", *words, "--save", "index", "--device", "cpu"]
    return subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)


def recorded(journal: Path, known: int, place: int) -> tuple[int, int]:
    """Lines of the journal, counted on from the place up to which they are known."""
    if not journal.exists():
        return known, place
    with journal.open("rb") as file:
        file.seek(place)
        content = file.read()
    return known + content.count(b"\n"), place + len(content)


def resident(process: subprocess.Popen[bytes]) -> float:
    """MiB that the process has in memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(match[1]) / 1024 if match else float("nan")


def watch(process: subprocess.Popen[bytes], journal: Path, count: int, before: int) -> Iterator[int]:
    """Print memory and speed at every tenth; yields how many are recorded, again and again."""
    # The first line is on the run, and of pairs recorded before nobody waits.
    lines, place = recorded(journal, -1, 0)
    step, began, first = max(1, count // 10), time.perf_counter(), None
    shown = before
    while process.poll() is None:
        lines, place = recorded(journal, lines, place)
        if first is None and lines > before:
            first = time.perf_counter()
            print(f"first pair recorded {first - began:.1f} s after the start", flush=True)
        if lines // step > shown // step and first is not None:
            rate = (lines - before) / max(time.perf_counter() - first, 1e-3)
            print(f"| {lines:6} | {resident(process):7.1f} | {rate:7.1f} |", flush=True)
            shown = lines
        yield lines
        time.sleep(0.02)


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--files", type=int, default=16, help="pairs that are files of their own")
    parser.add_argument("--size", default="32x32", help="height x width")
    parser.add_argument("--kill-at", type=int, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pairs(root, options.pairs, max(1, min(options.files, options.pairs)), parse_size(options.size))
        torch.manual_seed(0)
        efnet.create_model("efnet_tiny", num_classes=9).save_pretrained(root / "model")
        return measure(root, options.pairs, options.kill_at)


def measure(root: Path, pairs: int, kill_at: int | None) -> int:
    """Run to the end, with a kill in between if that is asked for."""
    journal, done = root / "out" / FILE_NAME, 0
    print("| pairs recorded | resident MiB | pairs/s |\n|---:|---:|---:|")
    process = start(root)
    for done in watch(process, journal, pairs, 0):
        if kill_at is not None and done >= kill_at:
            process.kill()
            break
    status = process.wait()
    if kill_at is not None:
        print(f"killed with {done} recorded; started again:", flush=True)
        process = start(root)
        for _ in watch(process, journal, pairs, len(read_journal(journal, kept_record)[1])):
            pass
        status = process.wait()
    lines, _ = recorded(journal, -1, 0)
    names = read_journal(journal, kept_record)[1]
    maps = {path.stem for path in (root / "out" / "index").iterdir()}
    print(f"{lines} lines, {len(names)} names, {len(maps)} maps of {pairs} pairs; status {status}")
    return 0 if status == 0 and names.keys() == maps and len(maps) == lines == pairs else 1


if __name__ == "__main__":
    sys.exit(main())
