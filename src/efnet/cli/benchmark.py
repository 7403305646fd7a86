"""`efnet benchmark`: measure speed and memory on this machine."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from efnet.cli import arguments
from efnet.cli.arguments import CALIBRATIONS, CHECKS, add_options, check_minima
from efnet.cli.options import check_file_writable, option_name, parse_size
from efnet.core.errors import InputError
from efnet.core.progress import progress_bar

if TYPE_CHECKING:
    from efnet.studies.benchmark.subject import Files, Subject

DESCRIPTION = (
    "Measure speed and memory on this machine: contestants take turns, medians and quartiles stand beside "
    "the matrix-multiply rate of the same run, peak memory comes from processes of their own. Modes: forward "
    "(a pass, and where its time goes; with --runtime also as exported files; with --check-rgbt and its like "
    "on your own pairs, and how far classes agree with PyTorch's), train (a step: pass, loss, backward pass, "
    "AdamW), clustering (efnet.ops.dpc_knn against the dense formulation), growth (time and memory against "
    "image size)."
)

RUNS = {"forward": 10, "train": 5, "clustering": 5, "growth": 3}
"""Measured rounds by mode; warm-up rounds come before."""

_ALLOWED = {
    "runtime": ("forward",),
    "accuracy": ("forward",),
    "compile": ("forward", "train"),
    "cuda_graph": ("forward",),
    "dense": ("forward", "train"),
    "checkpoint_activations": ("train",),
    "plot": ("forward", "growth"),
    **dict.fromkeys((*CALIBRATIONS, *CHECKS), ("forward",)),
}
"""Option: the modes that use it."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--mode", type=str, default="forward", help=f"one of {', '.join(RUNS)}")
    parser.add_argument(
        "--model",
        "--models",
        type=str,
        nargs="+",
        default=["efnet_light"],
        help="presets, checkpoints or exported files, to take turns; commas may stand between them",
    )
    add_options(
        parser,
        runtime=(
            [],
            "torch, onnx, openvino: what runs each model; it is exported for the size first; onnx-16, "
            "onnx-int8, openvino-16, openvino-int8: with weights of that precision",
        ),
        size=([], "height x width (default: 480x640; growth: four sizes up to 1080x1920)"),
        batch=(1, "pairs in one pass"),
        runs=(int | None, "rounds that count (default: 3 to 10, by mode)"),
        warmup=(2, "rounds before"),
        threads=(int | None, "of the CPU (default: PyTorch's)"),
        device=arguments.DEVICE,
        precision=arguments.PRECISION,
        compile=(False, "torch.compile as a further contestant"),
        cuda_graph=(False, "a CUDA graph as a further contestant"),
        dense=(False, "dense clustering as a further contestant"),
        checkpoint_activations=(False, "train: trade time for memory, as a contestant"),
        no_memory=(False, "do not measure peak memory"),
        accuracy="forward: a report of efnet evaluate or efnet experiment, or a JSON file with the mIoU of "
        "each model: a column of the table and the height in the plot",
    )
    arguments.add_calibration_arguments(parser)
    arguments.add_check_arguments(parser)
    add_options(
        parser,
        json="write the figures to this file",
        markdown="write the printed tables to this file",
        plot="forward: latency against parameters or --accuracy, growth: time and memory against size; to "
        "this SVG or PNG file (needs matplotlib)",
    )


def words(given: list[str]) -> list[str]:
    """Split the values of an option that takes several, by spaces or commas; each once."""
    return arguments.split_words(",".join(given))


def check_options(args: Namespace) -> list[tuple[int, int]]:
    """Refuse wrong values before anything is loaded; return the sizes that were given."""
    if args.mode not in RUNS:
        raise InputError(f"--mode {args.mode}: choose {', '.join(RUNS)}")
    for option in ("json", "markdown", "plot"):
        check_file_writable(f"--{option}", args[option])
    check_minima(args, batch=1, runs=1, warmup=0, threads=1, check_pairs=1, calibrate_pairs=1)
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
            raise InputError(f"{option_name(name)} belongs to --mode {' or '.join(modes)}, not {args.mode}")
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
    """Refuse runtimes that are unknown or not installed, and options that exported files do not take."""
    from efnet.export.formats import check_installed
    from efnet.inference.runtime import is_exported
    from efnet.studies.benchmark.networks import parse_target

    runtimes = [runtime for runtime, _ in map(parse_target, words(args.runtime)) if runtime != "torch"]
    for runtime in runtimes:
        check_installed(runtime)
    files = [word for word in words(args.model) if is_exported(word)]
    if files and args.mode != "forward":
        raise InputError(f"--model {files[0]}: an exported file belongs to --mode forward")
    beside = [*runtimes, *files]
    if beside and args.precision != "32":
        raise InputError(f"--precision {args.precision} is PyTorch's alone; measure {beside[0]} without it")


def run(args: Namespace) -> int:
    """Measure; return 0."""
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
    if args.mode in ("clustering", "growth"):  # the others print size by size
        print(text, flush=True)
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
"""Values for the JSON file, and their tables as Markdown."""


def _measure_networks(args: Namespace, sizes: list[tuple[int, int]], device: str) -> Measured:
    from efnet.studies.benchmark.markdown import network_tables
    from efnet.studies.benchmark.networks import Plan, compare, read_accuracy

    accuracy = read_accuracy(args.accuracy) if args.accuracy else {}
    # As text, for other processes.
    files = tuple(
        (None if pair.rgb is None else str(pair.rgb), None if pair.thermal is None else str(pair.thermal))
        for pair in arguments.find_check_pairs(args)
    )
    # At least as many rounds as it takes to use every pair once.
    runs = args.runs or max(RUNS[args.mode], -(-len(files) // args.batch))
    plan = Plan(runs, args.warmup, parts=not args.runtime, memory=not args.no_memory)
    reports, texts = [], []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes or [(480, 640)]:
            subjects, failed = _contestants(args, size, device, files, Path(folder))
            with progress_bar(args.mode) as progress:
                report = compare(subjects, plan, progress, failed)
            for row in report["rows"]:
                row["miou"] = accuracy.get(row["model"])
            texts.append(network_tables(report))
            print(texts[-1] + "\n", flush=True)
            reports.append(report)
    return {"reports": reports}, "\n\n".join(texts)


def _contestants(
    args: Namespace, size: tuple[int, int], device: str, files: tuple[Files, ...], folder: Path
) -> tuple[list[Subject], dict[str, str]]:
    """Return every model in every variant and runtime, and the faults of those that failed, by label."""
    from efnet.inference.runtime import is_exported
    from efnet.studies.benchmark.networks import export_for, parse_target, variant_for, variant_of
    from efnet.studies.benchmark.subject import batches, open_model

    models = words(args.model)
    targets = list(dict.fromkeys(map(parse_target, words(args.runtime) or ["torch"])))
    beside = [variant_for(target) for target in targets if target[0] == "openvino"]
    beside += [model for model in models if is_exported(model) and not model.lower().endswith(".onnx")]
    if device != "cpu" and beside:
        raise InputError(
            f"{beside[0]} runs on the CPU here, on {device} only PyTorch and .onnx files do; give --device "
            "cpu, or leave it out"
        )
    subjects: list[Subject] = []
    failed: dict[str, str] = {}
    variants = {model: _subjects(args, model, size, device, files) for model in models}
    for plain, *_ in variants.values():
        if files:  # pairs that a model does not take are refused before minutes of exporting
            batches(plain, open_model(plain.source))
    calibrated = any(args[name] is not None for name in CALIBRATIONS)
    for model, of_torch in variants.items():
        plain = of_torch[0]
        if is_exported(model):
            subjects.append(replace(plain, variant=variant_of(model), file=model))
            continue
        for target in targets:
            if target[0] == "torch":
                subjects += of_torch
                continue
            variant = variant_for(target)
            given = arguments.check_words(args) if files else []
            if calibrated and target[1] == "int8" and not _clusters(model):
                given += arguments.calibration_words(args)
            with progress_bar(f"exporting {model} to {variant}"):
                path, fault = export_for(model, target, size, folder, given)
            subjects.append(replace(plain, variant=variant, file=str(path)))
            if fault is not None:
                failed[subjects[-1].label] = fault
    return subjects, failed


def _clusters(model: str) -> bool:
    """Whether a model clusters tokens: its int8 takes no calibration pairs, which others of a table need."""
    from efnet.export.quantize import clusters_tokens
    from efnet.models.base import SegmentationModel
    from efnet.studies.benchmark.subject import open_model

    network = open_model(model)
    return isinstance(network, SegmentationModel) and clusters_tokens(network)


def _subjects(
    args: Namespace, model: str, size: tuple[int, int], device: str, files: tuple[Files, ...] = ()
) -> list[Subject]:
    """Return a model in every requested variant of PyTorch, the plain one first."""
    from efnet.core.devices import check_precision
    from efnet.studies.benchmark.subject import Subject

    precision = check_precision(args.precision)
    plain = Subject(model, size, args.batch, device, precision, training=args.mode == "train", pairs=files)
    variants = {
        "checkpoint_activations": replace(plain, checkpoint_activations=True),
        "compile": replace(plain, variant="compile"),
        "cuda_graph": replace(plain, variant="cuda-graph"),
        "dense": replace(plain, dense=True),
    }
    return [plain, *(subject for option, subject in variants.items() if args[option])]


def _measure_clusterings(args: Namespace, sizes: list[tuple[int, int]], device: str) -> Measured:
    from efnet.studies.benchmark.markdown import clustering_tables
    from efnet.studies.benchmark.scaling import cases_of, compare_clusterings, standard_cases

    cases = [case for size in sizes or [(480, 640)] for case in cases_of(size, args.batch, device)]
    if not sizes and args.batch == 1:
        cases = standard_cases(device)
    runs = args.runs or RUNS["clustering"]
    with progress_bar(args.mode) as progress:
        report = compare_clusterings(cases, runs, args.warmup, not args.no_memory, progress)
    return report, clustering_tables(report)


def _measure_growth(args: Namespace, sizes: list[tuple[int, int]], device: str) -> Measured:
    from efnet.studies.benchmark.markdown import growth_tables
    from efnet.studies.benchmark.scaling import SIZES, measure_growth

    subjects = [_subjects(args, words(args.model)[0], size, device)[0] for size in sizes or SIZES]
    runs = args.runs or RUNS["growth"]
    with progress_bar(args.mode) as progress:
        report = measure_growth(subjects, runs, args.warmup, not args.no_memory, progress)
    return report, growth_tables(report)


_MEASURES = {
    "forward": _measure_networks,
    "train": _measure_networks,
    "clustering": _measure_clusterings,
    "growth": _measure_growth,
}
