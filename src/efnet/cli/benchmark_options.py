"""The options of `efnet benchmark`, and which of them go together."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.check_pairs import CHECKS, add_check_arguments, check_number
from efnet.cli.options import check_file_writable, parse_size
from efnet.errors import InputError

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
    from efnet.devices import check_precision
    from efnet.models.validation import MIN_SIZE

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
        from efnet.figure import check_plot

        check_plot(args.plot)


def _check_runtimes(args: Namespace) -> None:
    """Refuse runtimes that are unknown or not installed, and what exported files do not take."""
    from efnet.benchmark.runtimes import is_exported, parse_target
    from efnet.export.formats import check_installed

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
