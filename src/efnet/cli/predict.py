"""`efnet predict`: label maps, colour pictures and overlays of files, folders and globs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from efnet.cli.options import add_model_arguments
from efnet.errors import InputError, ManyInputsError

if TYPE_CHECKING:
    from efnet.prediction.inputs import InputPair
    from efnet.prediction.journal import Journal
    from efnet.prediction.predictor import Predictor

DESCRIPTION = "Segment images without labels. Takes an interrupted run up again where it stopped."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_model_arguments(parser)
    parser.add_argument("--rgb", type=str | None, default=None, help="colour images: file, folder or glob")
    parser.add_argument(
        "--thermal", type=str | None, default=None, help="thermal images: file, folder or glob"
    )
    parser.add_argument(
        "--rgbt",
        type=str | None,
        default=None,
        help="four-channel images, thermal last: file, folder or glob",
    )
    parser.add_argument("--out", type=str, required=True, help="output folder")
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
    out = Path(args.out)
    pairs = find_pairs(args.rgb, args.thermal, args.rgbt, exclude=out)
    return _predict(args, pairs, outputs, out)


def _predict(args: Namespace, pairs: tuple[InputPair, ...], outputs: tuple[str, ...], out: Path) -> int:
    import efnet
    from efnet.devices import check_precision
    from efnet.prediction.journal import Journal, fingerprint
    from efnet.prediction.predictor import Predictor

    predictor = Predictor.from_pretrained(args.checkpoint, args.device, check_precision(args.precision))
    _check_modality(args, predictor.modality)
    settings = {
        "model": fingerprint(predictor.model),
        "precision": predictor.precision,
        "input_size": predictor.size,
        "thermal_scale": predictor.thermal_scale,
    } | ({"opacity": args.opacity} if "overlay" in outputs else {})
    about = {
        "checkpoint": args.checkpoint,
        "efnet": efnet.__version__,
        "classes": predictor.classes.to_dict(),
    }
    journal = Journal(out, settings, about, args.overwrite)
    left = journal.unfinished(pairs, outputs)
    started = time.perf_counter()
    with journal:
        faults = _write_all(args, predictor, left, outputs, journal)
    done, seconds = len(left) - len(faults), time.perf_counter() - started
    skipped = f", {len(pairs) - len(left)} finished before" if len(left) < len(pairs) else ""
    rate = f" in {seconds:.1f} s ({done / seconds:.1f} per second)" if done else ""
    print(f"predicted {done} of {len(pairs)} images{rate}{skipped}: {out}/{{{','.join(outputs)}}}")
    if faults:
        error = ManyInputsError("some images were left out; mend them and run the same command again", faults)
        print(f"efnet: error: {error}", file=sys.stderr)
        return 2
    return 0


def _check_modality(args: Namespace, modality: str) -> None:
    """Refuse a model that looks at images which were not given, before any file is read."""
    if args.rgbt is not None:
        return
    wanted = {"rgbt": ("rgb", "thermal"), "rgb": ("rgb",), "thermal": ("thermal",)}[modality]
    missing = [f"--{option}" for option in wanted if args[option] is None]
    if missing:
        raise InputError(f"the model of {args.checkpoint} needs {' and '.join(missing)} too (or --rgbt)")


def _write_all(
    args: Namespace,
    predictor: Predictor,
    pairs: list[InputPair],
    outputs: tuple[str, ...],
    journal: Journal,
) -> list[str]:
    """Predict and write `pairs`; returns a line for each that could not be read."""
    from efnet.prediction.arrays import Prepared
    from efnet.prediction.result import Prediction
    from efnet.prediction.stream import predict_files

    def save(
        pair: InputPair, prediction: Prediction, prepared: Prepared
    ) -> tuple[tuple[int, int], dict[str, float]]:
        prediction.save(journal.folder, pair.name, outputs, rgb=prepared.original, opacity=args.opacity)
        return prepared.size, prediction.shares()

    faults: list[str] = []
    finished = 0
    with _progress() as progress:
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
    return faults


def _unwritable(folder: Path, error: OSError) -> str:
    return f"{folder}: cannot be written ({error.strerror or error})"


def _named(pair: InputPair, error: InputError) -> str:
    """The error, with the file's name in front where it lacks one (sizes that do not fit, for example)."""
    files = [str(path) for path in (pair.rgb, pair.thermal) if path is not None]
    text = str(error)
    return text if any(file in text for file in files) else f"{' and '.join(files)}: {text}"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
