"""`efnet predict`: label maps, colour pictures and overlays of files, folders, globs and videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.options import add_model_arguments, check_folder_writable
from efnet.cli.predict_images import predict_images
from efnet.cli.predict_inputs import InputOptions, add_input_arguments, check_given, given, mark_absent
from efnet.cli.predict_video import (
    add_video_arguments,
    is_video_run,
    prepare_outputs,
    read_options,
    run_video,
)
from efnet.core.errors import InputError

if TYPE_CHECKING:
    from efnet.inference.predictor import Predictor

DESCRIPTION = "Segment images without labels. Takes an interrupted run up again where it stopped."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_model_arguments(parser)
    parser.add_argument(
        "--runtime",
        type=str | None,
        default=None,
        help="what runs a file of efnet export given as --checkpoint: torch (.pt2), onnx (.onnx) or openvino "
        "(.xml); default: by its suffix",
    )
    parser.add_argument(
        "--threads", type=int | None, default=None, help="of the computation (default: PyTorch's choice)"
    )
    parser.add_argument(
        "--rgb",
        type=str | None,
        default=None,
        help="colour images: file, folder or glob; video, stream's URL, /dev/video0; none: no such camera",
    )
    parser.add_argument("--thermal", type=str | None, default=None, help="thermal images, likewise")
    parser.add_argument(
        "--rgbt",
        type=str | None,
        default=None,
        help="four-channel images, thermal last: file, folder or glob; or tars of pairs (efnet data pack): "
        "folder, glob, or names separated by commas",
    )
    parser.add_argument(
        "--out", type=str, required=True, help="output folder; for videos a file (.mp4, .mkv, .mov)"
    )
    parser.add_argument(
        "--save",
        type=str,
        default="index,color,overlay",
        help="what to write, each to its sub-folder: index (palette PNG of class indices), color, overlay, "
        "probabilities (float16 .npy, classes first)",
    )
    parser.add_argument(
        "--opacity", type=float, default=0.5, help="of the class colours in the overlay, 0..1"
    )
    parser.add_argument("--workers", type=int, default=2, help="threads that read and write files")
    parser.add_argument("--overwrite", action="store_true", help="redo what is there already")
    parser.add_argument(
        "--shard",
        type=str | None,
        default=None,
        help="predict one part of the pairs, such as 2/5; other processes or machines take the others, into "
        "the same --out (processes of torchrun or srun share the work without it)",
    )
    add_input_arguments(parser)
    add_video_arguments(parser)


def run(args: Namespace) -> int:
    """Predict; see `efnet predict --help`.

    Returns:
        0, or 2 if some images could not be predicted (all others were).

    Raises:
        InputError: nothing could be started: options, files or checkpoint are wrong.
    """
    from efnet.core.devices import check_precision
    from efnet.inference.inputs import find_pairs
    from efnet.inference.postprocess import output_paths
    from efnet.inference.sharding import Shard

    outputs = tuple(dict.fromkeys(output.strip() for output in args.save.split(",") if output.strip()))
    if not outputs:
        raise InputError("--save is empty; name at least one of index, color, overlay, probabilities")
    output_paths(args.out, "", outputs)  # refuses unknown names before anything is loaded
    if not 0.0 <= args.opacity <= 1.0:
        raise InputError(f"--opacity {args.opacity} is not between 0 and 1")
    check_precision(args.precision)
    for option, value in (("--batch-size", args.batch_size), ("--workers", args.workers)):
        if value < 1:
            raise InputError(f"{option} {value} is below 1")
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads {args.threads} is below 1")
    out = Path(args.out)
    inputs, shard = InputOptions.read(args), Shard.choose(args.shard)
    if is_video_run(args):
        if shard.count > 1:
            raise InputError(f"--shard {shard.number}/{shard.count}: a video is predicted by one process")
        prepare_outputs(args, out, read_options(args))
        return run_video(args, _load(args, inputs), inputs)
    check_folder_writable("--out", out)
    pairs = find_pairs(given(args.rgb), given(args.thermal), args.rgbt, exclude=out)
    return predict_images(args, _load(args, inputs), mark_absent(args, pairs), outputs, inputs, shard)


def _load(args: Namespace, inputs: InputOptions) -> Predictor:
    """The predictor that the options ask for."""
    import torch

    from efnet.core.devices import check_precision
    from efnet.inference.predictor import Predictor
    from efnet.inference.runtime import check_runtime
    from efnet.inference.sharding import device_of_rank

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    predictor = Predictor.from_pretrained(
        args.checkpoint,
        device_of_rank(args.device),
        check_precision(args.precision),
        runtime=None if args.runtime is None else check_runtime(args.runtime),
    )
    check_given(args, predictor.modality)
    inputs.apply(predictor)
    return predictor
