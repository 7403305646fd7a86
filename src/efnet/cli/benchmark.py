"""`efnet benchmark`: speed and memory on the machine at hand.

The options of `efnet benchmark`, and which of them go together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.options import (
    CHECKS,
    add_check_arguments,
    check_file_writable,
    check_number,
    check_words,
    find_check_pairs,
    parse_size,
)
from efnet.cli.score import progress_bar
from efnet.core.errors import InputError

if TYPE_CHECKING:
    from efnet.studies.benchmark.subject import Files, Subject


MODES = ("forward", "train", "clustering", "growth")

_ALLOWED = {
    "runtime": ("forward",),
    "accuracy": ("forward",),
    "compile": ("forward", "train"),
    "cuda_graph": ("forward",),
    "dense": ("forward", "train"),
    "checkpoint_activations": ("train",),
    "plot": ("forward", "growth"),
    **dict.fromkeys(CHECKS, ("forward",)),
}
"""Modes that do not ignore an option."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--mode", type=str, default="forward", help=f"one of {', '.join(MODES)}")
    parser.add_argument(
        "--model",
        "--models",
        type=str,
        nargs="+",
        default=["efnet_light"],
        help="presets, checkpoints or exported files, to take turns; commas may stand between them",
    )
    parser.add_argument(
        "--runtime",
        type=str,
        nargs="+",
        default=[],
        help="torch, onnx, openvino: what runs each model; it is exported for the size first; onnx-16, "
        "onnx-int8, openvino-16: with weights of that precision",
    )
    parser.add_argument(
        "--size",
        type=str,
        nargs="+",
        default=[],
        help="height x width (default: 480x640; growth: four sizes up to 1080x1920)",
    )
    parser.add_argument("--batch", type=int, default=1, help="pairs in one pass")
    parser.add_argument(
        "--runs", type=int | None, default=None, help="rounds that count (default: 3 to 10, by mode)"
    )
    parser.add_argument("--warmup", type=int, default=2, help="rounds before")
    parser.add_argument("--threads", type=int | None, default=None, help="of the CPU (default: PyTorch's)")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--precision", type=str, default="32", help="32 or bf16 (autocast)")
    parser.add_argument("--compile", action="store_true", help="torch.compile as a further contestant")
    parser.add_argument("--cuda-graph", action="store_true", help="a CUDA graph as a further contestant")
    parser.add_argument("--dense", action="store_true", help="dense clustering as a further contestant")
    parser.add_argument(
        "--checkpoint-activations", action="store_true", help="train: trade time for memory, as a contestant"
    )
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument(
        "--accuracy",
        type=str | None,
        default=None,
        help="forward: a report of efnet evaluate or efnet experiment, or a JSON file with the mIoU of each "
        "model: a column of the table and the height in the plot",
    )
    add_check_arguments(parser)
    parser.add_argument("--json", type=str | None, default=None, help="write the figures to this file")
    parser.add_argument(
        "--markdown", type=str | None, default=None, help="write the printed tables to this file"
    )
    parser.add_argument(
        "--plot",
        type=str | None,
        default=None,
        help="forward: latency against parameters or --accuracy, growth: time and memory against size; to "
        "this SVG or PNG file (needs matplotlib)",
    )


def words(given: list[str]) -> list[str]:
    """The values of an option that takes several, with spaces or commas between them; each once."""
    return list(dict.fromkeys(word for text in given for word in text.split(",") if word))


def check_options(args: Namespace) -> list[tuple[int, int]]:
    """Refuse wrong values before anything is loaded.

    Returns:
        the sizes that were given.

    Raises:
        InputError: a value out of its range, or options that do not go together.
    """
    if args.mode not in MODES:
        raise InputError(f"--mode {args.mode}: choose {', '.join(MODES)}")
    for option, least in (("batch", 1), ("runs", 1), ("warmup", 0), ("threads", 1)):
        value = args[option]
        if value is not None and value < least:
            raise InputError(f"--{option} {value}: give {least} or more")
    for option in ("json", "markdown", "plot"):
        check_file_writable(f"--{option}", args[option])
    check_number(args)
    _check_mode(args)
    from efnet.core.devices import check_precision
    from efnet.models.base import MIN_SIZE

    check_precision(args.precision)
    _check_runtimes(args)
    return [parse_size(text, MIN_SIZE) for text in args.size]


def _check_mode(args: Namespace) -> None:
    """Refuse options that the mode would ignore."""
    for name, modes in _ALLOWED.items():
        if args[name] and args.mode not in modes:
            raise InputError(
                f"--{name.replace('_', '-')} belongs to --mode {' or '.join(modes)}, not {args.mode}"
            )
    if not words(args.model):
        raise InputError("--model: give at least one")
    if args.mode == "growth" and len(words(args.model)) > 1:
        raise InputError("--mode growth takes one --model")
    if args.mode == "clustering" and args.precision != "32":
        raise InputError("--mode clustering is float32 and float64; leave --precision out")
    if args.cuda_graph and any(args[name] is not None for name in CHECKS):
        raise InputError("--cuda-graph repeats one pass; leave it out where pairs take turns (--check-...)")
    if args.plot:
        from efnet.reporting.plots import check_plot

        check_plot(args.plot)


def _check_runtimes(args: Namespace) -> None:
    """Refuse runtimes that are unknown or not installed, and what exported files do not take."""
    from efnet.export.formats import check_installed
    from efnet.studies.benchmark.runtimes import is_exported, parse_target

    runtimes = [runtime for runtime, _ in map(parse_target, words(args.runtime))]
    for runtime in runtimes:
        if runtime != "torch":
            check_installed(runtime)
    files = [word for word in words(args.model) if is_exported(word)]
    if files and args.mode != "forward":
        raise InputError(f"--model {files[0]}: an exported file belongs to --mode forward")
    beside = [runtime for runtime in runtimes if runtime != "torch"] + files
    if beside and args.precision != "32":
        raise InputError(f"--precision {args.precision} is PyTorch's alone; measure {beside[0]} without it")


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

    from efnet.core.devices import pick_device
    from efnet.core.files import write_json, write_text

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
        from efnet.studies.benchmark.markdown import plot_growth, plot_latency

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
    from efnet.studies.benchmark.markdown import network_tables
    from efnet.studies.benchmark.networks import Plan, compare, read_accuracy, steps

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

    from efnet.studies.benchmark.runtimes import (
        export_for,
        is_exported,
        parse_target,
        variant_for,
        variant_of,
    )

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
    from efnet.studies.benchmark.subject import batches, open_model

    for subject in subjects:
        if subject.pairs:
            batches(subject, open_model(subject.source))


def _subjects(
    args: Namespace, model: str, size: tuple[int, int], device: str, files: tuple[Files, ...] = ()
) -> list[Subject]:
    """A model in every variant of PyTorch that was asked for; the plain one first."""
    from dataclasses import replace

    from efnet.core.devices import check_precision
    from efnet.studies.benchmark.subject import Subject

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
    from efnet.studies.benchmark.markdown import clustering_tables
    from efnet.studies.benchmark.scaling import cases_of, compare_clusterings, standard_cases, steps

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
    from efnet.studies.benchmark.markdown import growth_tables
    from efnet.studies.benchmark.scaling import SIZES, growth_steps, measure_growth

    subjects = [_subjects(args, words(args.model)[0], size, device)[0] for size in sizes or SIZES]
    runs, memory = args.runs or RUNS["growth"], not args.no_memory
    with _steps(args.mode, growth_steps(subjects, runs, args.warmup, memory)) as progress:
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
