"""`efnet benchmark`: speed and memory on the machine at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.options import check_file_writable, parse_size
from efnet.cli.reporting import progress_bar
from efnet.errors import InputError

if TYPE_CHECKING:
    from efnet.benchmark.subject import Subject

DESCRIPTION = (
    "Measure speed and memory on this machine: contestants take turns, medians and quartiles stand beside "
    "the matrix-multiply rate of the same run, peak memory comes from processes of their own. Modes: forward "
    "(a pass, and where its time goes), train (a step: pass, loss, backward pass, AdamW), clustering "
    "(efnet.ops.dpc_knn against the dense formulation), growth (time and memory against image size)."
)

MODES = ("forward", "train", "clustering", "growth")
RUNS = {"forward": 10, "train": 5, "clustering": 5, "growth": 3}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--mode", type=str, default="forward", help=f"one of {', '.join(MODES)}")
    parser.add_argument(
        "--model", type=str, nargs="+", default=["efnet_light"], help="presets or checkpoints, to take turns"
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
    parser.add_argument("--json", type=str | None, default=None, help="write the figures to this file")
    parser.add_argument(
        "--plot",
        type=str | None,
        default=None,
        help="growth: draw to this SVG or PNG file (needs matplotlib)",
    )


def run(args: Namespace) -> int:
    """Measure; see `efnet benchmark --help`.

    Returns:
        0.

    Raises:
        InputError: wrong options, a model that is not there, or too little memory.
    """
    sizes = _check_options(args)
    import torch

    from efnet.devices import pick_device
    from efnet.files import write_json

    device = str(pick_device(args.device))
    if args.cuda_graph and not device.startswith("cuda"):
        raise InputError("--cuda-graph needs a CUDA device; leave the option out")
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads or before)
    try:
        report = {"mode": args.mode, **_MEASURES[args.mode](args, sizes, device)}
    finally:
        torch.set_num_threads(before)
    if args.plot:
        from efnet.benchmark.plot import plot_growth

        plot_growth(args.plot, report)
    if args.json:
        write_json(args.json, report)
    return 0


def _check_options(args: Namespace) -> list[tuple[int, int]]:
    """Refuse wrong values before anything is loaded; returns the sizes that were given."""
    if args.mode not in MODES:
        raise InputError(f"--mode {args.mode}: choose {', '.join(MODES)}")
    for option, least in (("batch", 1), ("runs", 1), ("warmup", 0), ("threads", 1)):
        value = args[option]
        if value is not None and value < least:
            raise InputError(f"--{option} {value}: give {least} or more")
    check_file_writable("--json", args.json)
    check_file_writable("--plot", args.plot)
    _check_mode(args)
    from efnet.devices import check_precision
    from efnet.models.validation import MIN_SIZE

    check_precision(args.precision)
    return [parse_size(text, MIN_SIZE) for text in args.size]


def _check_mode(args: Namespace) -> None:
    """Refuse options that the mode would ignore."""
    allowed = {
        "compile": ("forward", "train"),
        "cuda_graph": ("forward",),
        "dense": ("forward", "train"),
        "checkpoint_activations": ("train",),
        "plot": ("growth",),
    }
    for name, modes in allowed.items():
        if args[name] and args.mode not in modes:
            raise InputError(
                f"--{name.replace('_', '-')} belongs to --mode {' or '.join(modes)}, not {args.mode}"
            )
    if args.mode == "growth" and len(args.model) > 1:
        raise InputError("--mode growth takes one --model")
    if args.mode == "clustering" and args.precision != "32":
        raise InputError("--mode clustering is float32 and float64; leave --precision out")
    if args.plot:
        from efnet.benchmark.plot import check_plot

        check_plot(args.plot)


def _measure_networks(args: Namespace, sizes: list[tuple[int, int]], device: str) -> dict[str, Any]:
    from efnet.benchmark.network import Plan, compare, steps
    from efnet.benchmark.tables import network_tables

    plan = Plan(args.runs or RUNS[args.mode], args.warmup, memory=not args.no_memory)
    reports = []
    for size in sizes or [(480, 640)]:
        subjects = _subjects(args, size, device)
        with _steps(args.mode, steps(subjects, plan)) as progress:
            report = compare(subjects, plan, progress)
        print(network_tables(report) + "\n", flush=True)
        reports.append(report)
    return {"reports": reports}


def _subjects(args: Namespace, size: tuple[int, int], device: str) -> list[Subject]:
    """Every model in every variant that was asked for."""
    from dataclasses import replace

    from efnet.benchmark.subject import Subject
    from efnet.devices import check_precision

    subjects = []
    for model in dict.fromkeys(args.model):
        plain = Subject(
            model, size, args.batch, device, check_precision(args.precision), training=args.mode == "train"
        )
        subjects.append(plain)
        if args.checkpoint_activations:
            subjects.append(replace(plain, checkpoint_activations=True))
        if args.compile:
            subjects.append(replace(plain, variant="compile"))
        if args.cuda_graph:
            subjects.append(replace(plain, variant="cuda-graph"))
        if args.dense:
            subjects.append(replace(plain, dense=True))
    return subjects


def _measure_clusterings(args: Namespace, sizes: list[tuple[int, int]], device: str) -> dict[str, Any]:
    from efnet.benchmark.clustering import cases_of, compare_clusterings, standard_cases, steps
    from efnet.benchmark.tables import clustering_tables

    cases = [case for size in sizes for case in cases_of(size, args.batch, device)]
    if not sizes:
        cases = standard_cases(device) if args.batch == 1 else cases_of((480, 640), args.batch, device)
    runs, memory = args.runs or RUNS["clustering"], not args.no_memory
    with _steps(args.mode, steps(cases, runs, args.warmup, memory)) as progress:
        report = compare_clusterings(cases, runs, args.warmup, memory, progress)
    print(clustering_tables(report), flush=True)
    return report


def _measure_growth(args: Namespace, sizes: list[tuple[int, int]], device: str) -> dict[str, Any]:
    from efnet.benchmark.growth import SIZES, measure_growth, steps
    from efnet.benchmark.tables import growth_tables

    subjects = [_subjects(args, size, device)[0] for size in sizes or SIZES]
    runs, memory = args.runs or RUNS["growth"], not args.no_memory
    with _steps(args.mode, steps(subjects, runs, args.warmup, memory)) as progress:
        report = measure_growth(subjects, runs, args.warmup, memory, progress)
    print(growth_tables(report), flush=True)
    return report


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
