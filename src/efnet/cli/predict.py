"""`efnet predict`: label maps, colour pictures and overlays of files, folders, globs and videos."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from efnet.cli.options import add_model_arguments
from efnet.cli.predict_inputs import (
    InputOptions,
    MissingCount,
    add_input_arguments,
    check_given,
    given,
    mark_absent,
)
from efnet.cli.predict_video import (
    add_video_arguments,
    is_video_run,
    prepare_outputs,
    read_options,
    run_video,
)
from efnet.errors import InputError, ManyInputsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from efnet.prediction.inputs import InputPair
    from efnet.prediction.journal import Journal
    from efnet.prediction.modality import Camera
    from efnet.prediction.predictor import Predictor

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
        help="four-channel images, thermal last: file, folder or glob",
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
    add_input_arguments(parser)
    add_video_arguments(parser)


def run(args: Namespace) -> int:
    """Predict; see `efnet predict --help`.

    Returns:
        0, or 2 if some images could not be predicted (all others were).

    Raises:
        InputError: nothing could be started: options, files or checkpoint are wrong.
    """
    from efnet.devices import check_precision
    from efnet.prediction.inputs import find_pairs
    from efnet.prediction.result import output_paths

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
    inputs = InputOptions.read(args)
    if is_video_run(args):
        prepare_outputs(args, out, read_options(args))
        return run_video(args, _load(args, inputs), inputs)
    pairs = find_pairs(given(args.rgb), given(args.thermal), args.rgbt, exclude=out)
    return _predict(args, mark_absent(args, pairs), outputs, out, inputs)


def _load(args: Namespace, inputs: InputOptions) -> Predictor:
    """The predictor that the options ask for."""
    import torch

    from efnet.devices import check_precision
    from efnet.prediction.predictor import Predictor
    from efnet.prediction.runtime import check_runtime

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    predictor = Predictor.from_pretrained(
        args.checkpoint,
        args.device,
        check_precision(args.precision),
        runtime=None if args.runtime is None else check_runtime(args.runtime),
    )
    check_given(args, predictor.modality)
    inputs.apply(predictor)
    return predictor


def _predict(
    args: Namespace,
    pairs: tuple[InputPair, ...],
    outputs: tuple[str, ...],
    out: Path,
    inputs: InputOptions,
) -> int:
    import efnet
    from efnet.prediction.journal import Journal, fingerprint

    predictor = _load(args, inputs)
    settings = {
        "model": fingerprint(predictor.model),
        "precision": predictor.precision,
        "input_size": predictor.size,
        "thermal_scale": predictor.thermal_scale,
    }
    settings |= {"opacity": args.opacity} if "overlay" in outputs else {}
    settings |= inputs.settings()
    about = {
        "checkpoint": args.checkpoint,
        "efnet": efnet.__version__,
        "classes": predictor.classes.to_dict(),
    }
    journal = Journal(out, settings, about, args.overwrite)
    left = journal.unfinished(pairs, outputs)
    started = time.perf_counter()
    with journal:
        faults, missing = _write_all(args, predictor, left, outputs, journal)
    done, seconds = len(left) - len(faults), time.perf_counter() - started
    skipped = f", {len(pairs) - len(left)} finished before" if len(left) < len(pairs) else ""
    rate = f" in {seconds:.1f} s ({done / seconds:.1f} per second)" if done else ""
    remarks = f"{rate}{skipped}{inputs.described()}{missing.described()}"
    print(f"predicted {done} of {len(pairs)} images{remarks}: {out}/{{{','.join(outputs)}}}")
    if faults:
        error = ManyInputsError("some images were left out; mend them and run the same command again", faults)
        print(f"efnet: error: {error}", file=sys.stderr)
        return 2
    return 0


def _write_all(
    args: Namespace,
    predictor: Predictor,
    pairs: list[InputPair],
    outputs: tuple[str, ...],
    journal: Journal,
) -> tuple[list[str], MissingCount]:
    """Predict and write `pairs`; returns a line for each that could not be read, and what showed nothing."""
    from efnet.prediction.arrays import Prepared
    from efnet.prediction.result import Prediction
    from efnet.prediction.stream import predict_files

    def save(
        pair: InputPair, prediction: Prediction, prepared: Prepared
    ) -> tuple[tuple[int, int], dict[str, float], Mapping[Camera, str]]:
        prediction.save(journal.folder, pair.name, outputs, rgb=prepared.original, opacity=args.opacity)
        return prepared.size, prediction.shares(), prepared.missing

    faults: list[str] = []
    finished = 0
    with _progress() as progress:
        missing = MissingCount(
            predictor.spared,
            lambda line: progress.console.print(line, markup=False, highlight=False, soft_wrap=True),
        )
        task = progress.add_task("predict", total=len(pairs), rate="")
        started = time.perf_counter()
        stream = predict_files(
            predictor,
            pairs,
            save,
            batch_size=args.batch_size,
            workers=args.workers,
            probabilities="probabilities" in outputs,
        )
        try:
            for pair, result in stream:
                if isinstance(result, InputError):
                    faults.append(_named(pair, result))
                else:
                    journal.add(pair, *result)
                    missing.add(" and ".join(_files(pair)), result[2])
                    finished += 1
                rate = finished / (time.perf_counter() - started)
                progress.update(task, advance=1, rate=f"{rate:.1f}/s")
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped after {finished} of {len(pairs)} images; run the same command again to go on"
            ) from None
        # Of writing or of the network: what cannot be read comes as a result.
        except (InputError, OSError) as error:
            fault = str(error) if isinstance(error, InputError) else _unwritable(journal.folder, error)
            raise InputError(
                f"{fault}\nstopped after {finished} of {len(pairs)} images; mend that and run the same "
                "command again to go on"
            ) from error
        finally:
            stream.close()
    return faults, missing


def _unwritable(folder: Path, error: OSError) -> str:
    return f"{folder}: cannot be written ({error.strerror or error})"


def _named(pair: InputPair, error: InputError) -> str:
    """The error, with the file's name in front where it lacks one (sizes that do not fit, for example)."""
    files = _files(pair)
    text = str(error)
    return text if any(file in text for file in files) else f"{' and '.join(files)}: {text}"


def _files(pair: InputPair) -> list[str]:
    return [str(path) for path in (pair.rgb, pair.thermal) if path is not None]


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
