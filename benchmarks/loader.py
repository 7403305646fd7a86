"""Is reading pairs a bottleneck? Pairs per second that are read and augmented, beside what networks take.

    python benchmarks/loader.py [--root MFNET] [--models efnet_tiny,efnet_light] [--seconds 10] [--threads 2]

Reads the training split of an MFNet folder (without --root: of generated scenes) as `efnet train` does, at
480x640, batch 2, recipe `paper`: from files, from packed shards and from memory, with 0, 1 and 2 worker
processes. Then the steps of reading one by one, and training steps and forward passes of the networks. Rates
are by the wall clock, and suffer from whatever else runs; times of the processor (of all threads) hardly do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from efnet.cli.main import main as run_efnet
from efnet.cli.options import parse_size
from efnet.core.cpu_tuning import tune_process
from efnet.data.augment import AugmentConfig, augment
from efnet.data.dataset import PairDataset, collate, to_tensors
from efnet.data.images import open_image
from efnet.data.labels import read_label
from efnet.data.layouts import open_split
from efnet.data.pack import pack
from efnet.data.pairs import PairSet
from efnet.data.sample import read_sample
from efnet.reporting.tables import markdown_table
from efnet.studies.benchmark.measure import describe, summary
from efnet.studies.benchmark.subject import Subject, make_work, open_model

BATCH = 2


class Cost(NamedTuple):
    """Of one pair.

    Attributes:
        wall: seconds by the clock.
        processor: seconds of processor, over all threads of this process.
    """

    wall: float
    processor: float


def cost(work: Callable[[], int], seconds: float) -> Cost:
    """Repeat `work`, which says how many pairs it did; the first time does not count."""
    work()
    pairs, wall, processor = 0, time.perf_counter(), time.process_time()
    while True:
        pairs += work()
        taken = time.perf_counter() - wall
        if taken >= seconds:
            return Cost(taken / pairs, (time.process_time() - processor) / pairs)


def loader_rates(sources: dict[str, PairSet], size: tuple[int, int], seconds: float) -> list[list[str]]:
    """Pairs per second of every source by the number of workers."""
    rows = []
    for name, pairset in {**sources, "memory (--data.cache)": sources["files"]}.items():
        rates = [loader_cost(pairset, size, "memory" in name, workers, seconds) for workers in (0, 1, 2)]
        rows.append([name, *(f"{1 / rate.wall:.1f}" for rate in rates)])
    return rows


def loader_cost(pairset: PairSet, size: tuple[int, int], cache: bool, workers: int, seconds: float) -> Cost:
    """Of a pair that a loader hands over."""
    dataset = PairDataset(pairset, size, AugmentConfig(), cache=cache)
    dataset.preload()
    loader = DataLoader(
        dataset,
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=collate,
    )

    def batches() -> Iterator[int]:
        while True:
            for batch in loader:
                yield len(batch["index"])

    stream = batches()
    return cost(lambda: next(stream), seconds)


def stages(pairset: PairSet, size: tuple[int, int], seconds: float) -> dict[str, Cost]:
    """Of the steps of reading a pair, one after the other."""
    pairs = [pair for pair in pairset.pairs if pair.label is not None]
    samples = [read_sample(pair, pairset.classes) for pair in pairs[:8]]
    rng = np.random.default_rng(0)
    count = iter(range(1 << 60))

    def each(work: Callable[[int], object]) -> Cost:
        return cost(lambda: [work(next(count)), 1][1], seconds)  # type: ignore[return-value]

    augmented = [augment(sample, AugmentConfig(), size, rng) for sample in samples]
    items = [to_tensors(sample, 0) for sample in augmented]
    return {
        "decode the colour or four-channel file": each(lambda n: open_image(pairs[n % len(pairs)].rgb)),
        "decode the label": each(lambda n: read_label(pairs[n % len(pairs)].label or "", pairset.classes)),
        "read the pair (both, checked)": each(lambda n: read_sample(pairs[n % len(pairs)], pairset.classes)),
        "augment": each(lambda n: augment(samples[n % len(samples)], AugmentConfig(), size, rng)),
        "to tensors": each(lambda n: to_tensors(augmented[n % len(augmented)], 0)),
        "collate (per pair)": cost(lambda: len(collate(items[:BATCH])["index"]), seconds),
    }


def network_costs(models: list[str], size: tuple[int, int], seconds: float) -> dict[str, tuple[Cost, Cost]]:
    """Of a pair in training and in a forward pass."""
    found = {}
    for name in models:
        costs = []
        for training, batch in ((True, BATCH), (False, 1)):
            subject = Subject(name, size, batch=batch, training=training)
            work = make_work(subject, open_model(name))
            costs.append(cost(lambda work=work, batch=batch: [work(), batch][1], seconds))  # type: ignore[misc]
        found[name] = (costs[0], costs[1])
    return found


def report(sources: dict[str, PairSet], models: list[str], size: tuple[int, int], seconds: float) -> None:
    """Measure, and print three tables."""
    print(summary(describe(torch.device("cpu"))))
    print(f"\n{len(sources['files'])} pairs of {sources['files'].root}, {size[0]}x{size[1]}, batch {BATCH}\n")
    headings = ["pairs/s of the loader from", "0 workers", "1 worker", "2 workers"]
    print("\n".join(markdown_table(headings, loader_rates(sources, size, seconds), aligned=True)), "\n")
    steps = stages(sources["files"], size, seconds)
    rows = [[name, f"{1000 * step.wall:.1f}", f"{1000 * step.processor:.1f}"] for name, step in steps.items()]
    print("\n".join(markdown_table(["step of reading", "ms", "processor ms"], rows, aligned=True)), "\n")
    reading = loader_cost(sources["files"], size, False, 0, seconds)
    rows = []
    for name, (step, forward) in network_costs(models, size, seconds).items():
        for what, taken in (("training step", step), ("forward pass", forward)):
            share = reading.processor / (reading.processor + taken.processor)
            rows.append(
                [
                    f"{name}, {what}",
                    f"{1 / taken.wall:.2f}",
                    f"{1000 * taken.processor:.0f}",
                    f"{1000 * reading.processor:.0f}",
                    f"{100 * share:.1f} %",
                ]
            )
    headings = ["per pair", "pairs/s", "processor ms", "of reading, augmented", "share of reading"]
    print("\n".join(markdown_table(headings, rows, aligned=True)))


def main() -> None:
    """Read the options, make the data, measure."""
    tune_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", type=Path, default=None, help="an MFNet folder; default: generated scenes")
    parser.add_argument("--models", default="efnet_tiny,efnet_light")
    parser.add_argument("--size", default="480x640", help="height x width")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--threads", type=int, default=2, help="of the networks")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        root = options.root
        if root is None:
            root = Path(folder) / "scenes"
            words = ["--train", "16", "--val", "1", "--test", "1", "--size", options.size]
            run_efnet(["data", "synthesize", "--out", str(root), *words])
        files = open_split("mfnet", root, "train")
        pack(files, Path(folder) / "shards")
        sources = {"files": files, "packed shards": open_split("mfnet", Path(folder) / "shards", "train")}
        report(sources, options.models.split(","), parse_size(options.size), options.seconds)


if __name__ == "__main__":
    main()
