"""`efnet benchmark`: speed and memory on the machine at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from efnet.cli.benchmark_options import add_arguments, check_options, words
from efnet.cli.check_pairs import check_words, find_check_pairs
from efnet.cli.reporting import progress_bar
from efnet.errors import InputError

if TYPE_CHECKING:
    from efnet.benchmark.subject import Files, Subject

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = (
    "Measure speed and memory on this machine: contestants take turns, medians and quartiles stand beside "
    "the matrix-multiply rate of the same run, peak memory comes from processes of their own. Modes: forward "
    "(a pass, and where its time goes; with --runtime also as exported files; with --check-rgbt and its like "
    "on your own pairs, and how far classes agree with PyTorch's), train (a step: pass, loss, backward pass, "
    "AdamW), clustering (efnet.ops.dpc_knn against the dense formulation), growth (time and memory against "
    "image size)."
)

RUNS = {"forward": 10, "train": 5, "clustering": 5, "growth": 3}


def run(args: Namespace) -> int:
    """Measure; see `efnet benchmark --help`.

    Returns:
        0.

    Raises:
        InputError: wrong options, a model that is not there, or too little memory.
    """
    sizes = check_options(args)
    import torch

    from efnet.devices import pick_device
    from efnet.files import write_json, write_text

    device = str(pick_device(args.device))
    if args.cuda_graph and not device.startswith("cuda"):
        raise InputError("--cuda-graph needs a CUDA device; leave the option out")
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads or before)
    try:
        measured, text = _MEASURES[args.mode](args, sizes, device)
    finally:
        torch.set_num_threads(before)
    report = {"mode": args.mode, **measured}
    if args.plot:
        from efnet.benchmark.plot import plot_growth, plot_latency

        if args.mode == "growth":
            plot_growth(args.plot, report)
        else:
            plot_latency(args.plot, report["reports"])
    if args.markdown:
        write_text(args.markdown, text + "\n")
    if args.json:
        write_json(args.json, report)
    return 0


Measured = tuple[dict[str, Any], str]
"""Plain values, and the tables that were printed."""


def _measure_networks(args: Namespace, sizes: list[tuple[int, int]], device: str) -> Measured:
    from efnet.benchmark.accuracy import read_accuracy
    from efnet.benchmark.network import Plan, compare, steps
    from efnet.benchmark.tables import network_tables

    accuracy = read_accuracy(args.accuracy) if args.accuracy else {}
    files = _files(args)
    # Every pair gets its turn.
    runs = args.runs or max(RUNS[args.mode], -(-len(files) // args.batch))
    plan = Plan(runs, args.warmup, parts=not args.runtime, memory=not args.no_memory)
    reports, texts = [], []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes or [(480, 640)]:
            subjects, failed = _contestants(args, size, device, files, Path(folder))
            with _steps(args.mode, steps(subjects, plan)) as progress:
                report = compare(subjects, plan, progress, failed)
            for row in report["rows"]:
                row["miou"] = accuracy.get(row["model"])
            texts.append(network_tables(report))
            print(texts[-1] + "\n", flush=True)
            reports.append(report)
    return {"reports": reports}, "\n\n".join(texts)


def _files(args: Namespace) -> tuple[Files, ...]:
    """The user's pairs, as they travel to other processes."""

    def text(file: Path | None) -> str | None:
        return None if file is None else str(file)

    return tuple((text(pair.rgb), text(pair.thermal)) for pair in find_check_pairs(args))


def _contestants(
    args: Namespace, size: tuple[int, int], device: str, files: tuple[Files, ...], folder: Path
) -> tuple[list[Subject], dict[str, str]]:
    """Every model in every variant and runtime, and why some cannot be measured, by label."""
    from dataclasses import replace

    from efnet.benchmark.runtimes import export_for, is_exported, parse_target, variant_for, variant_of

    models = words(args.model)
    targets = list(dict.fromkeys(map(parse_target, words(args.runtime) or ["torch"])))
    if device != "cpu" and (targets != [("torch", "32")] or any(map(is_exported, models))):
        raise InputError("exported files run on the CPU here; give --device cpu, or --runtime torch")
    subjects: list[Subject] = []
    failed: dict[str, str] = {}
    plain = {model: _subjects(args, model, size, device, files) for model in models}
    _try_pairs([variants[0] for variants in plain.values()])
    for model, variants in plain.items():
        if is_exported(model):
            subjects.append(replace(variants[0], variant=variant_of(model), file=model))
            continue
        for target in targets:
            if target[0] == "torch":
                subjects += variants
                continue
            variant = variant_for(target)
            with progress_bar(f"exporting {model} to {variant}"):
                path, fault = export_for(model, target, size, folder, check_words(args) if files else [])
            subjects.append(replace(variants[0], variant=variant, file=str(path)))
            if fault is not None:
                failed[subjects[-1].label] = fault
    return subjects, failed


def _try_pairs(subjects: list[Subject]) -> None:
    """Refuse pairs that a model cannot be given before minutes go into exporting it."""
    from efnet.benchmark.inputs import batches
    from efnet.benchmark.subject import open_model

    for subject in subjects:
        if subject.pairs:
            batches(subject, open_model(subject.source))


def _subjects(
    args: Namespace, model: str, size: tuple[int, int], device: str, files: tuple[Files, ...] = ()
) -> list[Subject]:
    """A model in every variant of PyTorch that was asked for; the plain one first."""
    from dataclasses import replace

    from efnet.benchmark.subject import Subject
    from efnet.devices import check_precision

    plain = Subject(
        model,
        size,
        args.batch,
        device,
        check_precision(args.precision),
        training=args.mode == "train",
        pairs=files,
    )
    subjects = [plain]
    if args.checkpoint_activations:
        subjects.append(replace(plain, checkpoint_activations=True))
    if args.compile:
        subjects.append(replace(plain, variant="compile"))
    if args.cuda_graph:
        subjects.append(replace(plain, variant="cuda-graph"))
    if args.dense:
        subjects.append(replace(plain, dense=True))
    return subjects


def _measure_clusterings(args: Namespace, sizes: list[tuple[int, int]], device: str) -> Measured:
    from efnet.benchmark.clustering import cases_of, compare_clusterings, standard_cases, steps
    from efnet.benchmark.tables import clustering_tables

    cases = [case for size in sizes for case in cases_of(size, args.batch, device)]
    if not sizes:
        cases = standard_cases(device) if args.batch == 1 else cases_of((480, 640), args.batch, device)
    runs, memory = args.runs or RUNS["clustering"], not args.no_memory
    with _steps(args.mode, steps(cases, runs, args.warmup, memory)) as progress:
        report = compare_clusterings(cases, runs, args.warmup, memory, progress)
    text = clustering_tables(report)
    print(text, flush=True)
    return report, text


def _measure_growth(args: Namespace, sizes: list[tuple[int, int]], device: str) -> Measured:
    from efnet.benchmark.growth import SIZES, measure_growth, steps
    from efnet.benchmark.tables import growth_tables

    subjects = [_subjects(args, words(args.model)[0], size, device)[0] for size in sizes or SIZES]
    runs, memory = args.runs or RUNS["growth"], not args.no_memory
    with _steps(args.mode, steps(subjects, runs, args.warmup, memory)) as progress:
        report = measure_growth(subjects, runs, args.warmup, memory, progress)
    text = growth_tables(report)
    print(text, flush=True)
    return report, text


_MEASURES = {
    "forward": _measure_networks,
    "train": _measure_networks,
    "clustering": _measure_clusterings,
    "growth": _measure_growth,
}


@contextmanager
def _steps(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr that moves on by one step at a time."""
    done = 0
    with progress_bar(what) as advance:

        def one() -> None:
            nonlocal done
            done += 1
            advance(done, total)

        yield one
